"""The libraries whose transactions an event can join. The list stands here only.

A new library is one line of `LIBRARIES`, and one module whose ``ADAPTERS`` maps its classes to
functions that make a `Transaction` of an object.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Final, NamedTuple, TypeAlias

from sidelight.host import guarded, imported

#: Makes a `transaction.Transaction`; not named here, because that module imports this one.
Adapter: TypeAlias = Callable[[Any], Any]


class Library(NamedTuple):
    """A library with transactions.

    Attributes:
        module: of this package; imported where the process has imported ``needs``.
        needs: the module that defines the classes.
        prefix: how the full names of the classes begin.
        targets: what a caller can name, in words.
        annotations: the types of parameters that hold a transaction, as "module:class".
    """

    module: str
    needs: str
    prefix: str
    targets: str
    annotations: tuple[str, ...] = ()


LIBRARIES: Final = (
    Library(
        "sqlalchemy.sessions",
        "sqlalchemy.orm",
        "sqlalchemy.orm.",
        "a SQLAlchemy session",
        ("sqlalchemy.orm:Session", "sqlalchemy.orm.session:Session"),
    ),
    Library(
        "sqlalchemy.connections",
        "sqlalchemy.engine",
        "sqlalchemy.engine.",
        "a SQLAlchemy connection",
        ("sqlalchemy:Connection", "sqlalchemy.engine:Connection"),
    ),
    Library(
        "sqlalchemy.asynchronous",
        "sqlalchemy.ext.asyncio",
        "sqlalchemy.ext.asyncio.",
        "an asynchronous one of the two",
        ("sqlalchemy.ext.asyncio:AsyncConnection", "sqlalchemy.ext.asyncio:AsyncSession"),
    ),
    Library(
        "psycopg.connections",
        "psycopg",
        "psycopg.",
        "a psycopg connection",
        ("psycopg:Connection", "psycopg:AsyncConnection"),
    ),
    Library("django.databases", "django.db", "builtins.str", "a Django alias"),
)

ANNOTATIONS: Final = frozenset(name for library in LIBRARIES for name in library.annotations)
"""The types of parameters that hold a transaction, as "module:class"."""

_adapters: Final[dict[type, Adapter | None]] = {}


_joining_points: Final[set[str]] = set()


def prepare_libraries(point: str | None = None) -> None:
    """Import the adapters of the libraries that the process has imported, if any point joins.

    `transaction_of` would import them within the first call that joins a transaction.

    Args:
        point: a point that joins.
    """
    if point is not None:
        _joining_points.add(point)
    for library in LIBRARIES if _joining_points else ():
        if imported(library.needs) is not None:
            with guarded():  # the first call that needs it tells the problem
                _module_of(library)


def _module_of(library: Library) -> ModuleType:
    return importlib.import_module(f"sidelight.transactions.{library.module}")


def targets() -> str:
    """Everything that a caller can name, in words."""
    *first, last = (library.targets for library in LIBRARIES)
    return f"{', '.join(first)} or {last}"


def transaction_of(target: Any) -> Any:
    """Find the transaction of what a caller named.

    Returns:
        None where no library knows the object. A tracer's proxy of a connection stands for the
        connection.
    """
    kind = type(target)
    if kind not in _adapters:
        _adapters[kind] = _adapter_of(kind)
    if (adapter := _adapters[kind]) is not None:
        return adapter(target)
    wrapped = None if target.__class__ is kind else getattr(target, "__wrapped__", None)
    return None if wrapped is None else transaction_of(wrapped)


def _adapter_of(kind: type) -> Adapter | None:
    for base in kind.__mro__:
        name = f"{base.__module__}.{base.__qualname__}"
        for library in LIBRARIES:
            if name.startswith(library.prefix):
                adapters: Mapping[type, Adapter] = _module_of(library).ADAPTERS
                if base in adapters:
                    return adapters[base]
    return None
