"""The libraries whose transactions an event can join, each imported where one of its objects is."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sidelight.transactions.entry import Transaction

#: Class, by module and name → where it is known, and the function that looks at one.
_KNOWN: Final = {
    ("sqlalchemy.orm.session", "Session"): ("sqlalchemy_orm", "session"),
    ("sqlalchemy.orm.scoping", "scoped_session"): ("sqlalchemy_orm", "scoped"),
    ("sqlalchemy.engine.base", "Connection"): ("sqlalchemy_core", "connection"),
    ("sqlalchemy.ext.asyncio.session", "AsyncSession"): ("sqlalchemy_async", "async_session"),
    ("sqlalchemy.ext.asyncio.scoping", "async_scoped_session"): (
        "sqlalchemy_async",
        "async_scoped",
    ),
    ("sqlalchemy.ext.asyncio.engine", "AsyncConnection"): ("sqlalchemy_async", "async_connection"),
    ("psycopg", "Connection"): ("psycopg", "connection"),
    ("psycopg", "AsyncConnection"): ("psycopg", "async_connection"),
    ("builtins", "str"): ("django", "alias"),
}
_found: dict[type, Callable[[Any], Transaction] | None] = {}


def transaction_of(target: Any) -> Transaction | None:
    """Look at the transaction of what a caller named; None where it is of no known kind.

    Where that is a tracer's proxy of a connection, it is the connection's.
    """
    kind = type(target)
    if kind not in _found:
        _found[kind] = _look_up(kind)
    if (look := _found[kind]) is not None:
        return look(target)
    wrapped = None if target.__class__ is kind else getattr(target, "__wrapped__", None)
    return None if wrapped is None else transaction_of(wrapped)


def _look_up(kind: type) -> Callable[[Any], Transaction] | None:
    for base in kind.__mro__:
        if (known := _KNOWN.get((base.__module__, base.__qualname__))) is not None:
            module, function = known
            found: Callable[[Any], Transaction] = getattr(
                importlib.import_module(f"sidelight.transactions.{module}"), function
            )
            return found
    return None
