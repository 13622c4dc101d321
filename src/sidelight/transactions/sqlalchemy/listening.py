"""Listeners for the statements of an engine that may be in use already."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias

from sqlalchemy import Engine, event

from sidelight.transactions.turns import acquired

Listeners: TypeAlias = deque[Callable[..., Any]]

_engines: Final[weakref.WeakSet[Engine]] = weakref.WeakSet()
_lock: Final = threading.Lock()
_WAIT: Final = 0.005  # seconds; a fork may leave the lock held for ever


class Listener(NamedTuple):
    """A function that SQLAlchemy calls.

    Attributes:
        name: of SQLAlchemy's event.
        call: the function.
        is_first: whether it comes before the other listeners of the engine.
    """

    name: str
    call: Callable[..., None]
    is_first: bool = False


def listen(engine: Engine, listeners: Iterable[Listener]) -> None:
    """Listen to the connections of an engine; once for each engine.

    Args:
        engine: the caller's.
        listeners: the same ones at each call; after an interrupt the next call adds the rest.
    """
    if engine in _engines:
        return
    held: list[bool] = []
    try:
        acquired(_lock, held, timeout=_WAIT)
        for each in listeners:
            if not event.contains(engine, each.name, each.call):
                _renew(engine, each.name, deque.copy)
                event.listen(engine, each.name, each.call)
            if each.is_first:
                _renew(engine, each.name, partial(_first, each.call))
        _engines.add(engine)
    finally:
        if held:
            _lock.release()


def _renew(engine: Engine, name: str, made_of: Callable[[Listeners], Listeners]) -> None:
    """Replace the listeners of an engine, because SQLAlchemy may be calling them.

    This thread may be in one of them, and another thread as well. Their loop goes on over the old
    deque: one that changes would end it by an error.
    """
    for of in (engine.dispatch, engine.dialect.dispatch):  # an event belongs to one of them
        found: Any = getattr(of, name, None)
        if isinstance(getattr(found, "listeners", None), deque):
            found.listeners = made_of(found.listeners)


def _first(call: Callable[..., None], listeners: Listeners) -> Listeners:
    """Put a listener first; SQLAlchemy ignores ``insert=True`` for the events of engines."""
    return deque([call, *(each for each in listeners if each is not call)])
