"""Attributes of mapped objects, read without a word to the database.

Where an event joins a transaction its fields are often attributes of SQLAlchemy's mapped objects.
To read one that is not loaded sends a SELECT on the caller's connection, in a transaction that may
just have ended, and flushes what is pending: errors of the business would come out in our guard. So
only what is loaded is read. What the database has yet to fill in (a key, a default) is `Late`: it
is read again once the object has been flushed.
"""

from __future__ import annotations

from typing import Any

from sidelight.exceptions import NotLoadedError

_ABSENT = object()


class Late:
    """A value that its object will have after the flush."""

    __slots__ = ("_of", "_steps")

    def __init__(self, of: Any, *steps: tuple[str, Any]) -> None:
        self._of = of
        self._steps = steps

    def __getitem__(self, key: object) -> Late:
        return Late(self._of, *self._steps, ("item", key))

    def attribute(self, name: str) -> Late:
        """What an attribute of the value will be."""
        return Late(self._of, *self._steps, ("attribute", name))

    def now(self) -> Any:
        """The value as it is by now; None where it is missing still."""
        value = self._of
        for kind, key in self._steps:
            if isinstance(value, Late) or value is None:
                return None
            value = read(value, key) if kind == "attribute" else value[key]
        return None if isinstance(value, Late) else value


def read(of: Any, name: str) -> Any:
    """``of.name``; of a mapped object only what is loaded.

    Raises:
        NotLoadedError: to read it would send SQL.
    """
    if type(of) is Late:
        return of.attribute(name)
    state = getattr(of, "_sa_instance_state", None)
    if state is None:
        return getattr(of, name)
    return _read_mapped(of, state, name)


def _read_mapped(of: Any, state: Any, name: str) -> Any:
    if not state.mapper.has_property(name):  # a property or method of its own
        if (session := state.session) is None:
            return getattr(of, name)
        with session.no_autoflush:
            return getattr(of, name)
    value = state.dict.get(name, _ABSENT)
    if state.key is None:
        return Late(of, ("attribute", name)) if value is _ABSENT or value is None else value
    if value is not _ABSENT:
        return value
    mapper = state.mapper
    for column, key in zip(mapper.primary_key, state.key[1], strict=False):
        if mapper.get_property_by_column(column).key == name:
            return key
    raise NotLoadedError(attribute=name, kind=type(of).__qualname__)


def known(value: Any) -> Any:
    """A captured value as it is at this moment; what is late and not there yet is None."""
    return value.now() if type(value) is Late else value
