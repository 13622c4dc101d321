"""Read ORM attributes without issuing SQL.

The fields of an event that joins a transaction are often attributes of objects that SQLAlchemy
maps. Reading an attribute that is not loaded sends a SELECT on the caller's connection, in a
transaction that may just have ended. It also flushes pending objects, so that errors of the
business would be raised inside sidelight's guard. Therefore only loaded attributes are read. An
attribute that the database has yet to fill in (a key, a default) is `Deferred`: it is read again
after its object was flushed.
"""

from __future__ import annotations

from typing import Any

from sidelight.exceptions import NotLoadedError

_ABSENT = object()


class Deferred:
    """A value that an object will have after the flush, and the steps that lead to it."""

    __slots__ = ("_object", "_steps")

    def __init__(self, owner: Any, *steps: tuple[str, Any]) -> None:
        self._object = owner
        self._steps = steps

    def __getitem__(self, key: object) -> Deferred:
        return Deferred(self._object, *self._steps, ("item", key))

    def attribute(self, name: str) -> Deferred:
        """Defer an attribute of the value."""
        return Deferred(self._object, *self._steps, ("attribute", name))

    def value(self) -> Any:
        """Read the value now; None where the database has not filled it in."""
        value = self._object
        for kind, key in self._steps:
            if isinstance(value, Deferred) or value is None:
                return None
            value = read_attribute(value, key) if kind == "attribute" else value[key]
        return None if isinstance(value, Deferred) else value


def read_attribute(owner: Any, name: str) -> Any:
    """Read ``owner.name``; of a mapped object only where it is loaded.

    Raises:
        NotLoadedError: reading the attribute would issue SQL.
    """
    if type(owner) is Deferred:
        return owner.attribute(name)
    state = getattr(owner, "_sa_instance_state", None)
    if state is None:
        return getattr(owner, name)
    return _read_mapped(owner, state, name)


def _read_mapped(owner: Any, state: Any, name: str) -> Any:
    if not state.mapper.has_property(name):  # a plain property or method of the class
        if (session := state.session) is None:
            return getattr(owner, name)
        with session.no_autoflush:
            return getattr(owner, name)
    value = state.dict.get(name, _ABSENT)
    if state.key is None:
        return Deferred(owner, ("attribute", name)) if value is _ABSENT or value is None else value
    if value is not _ABSENT:
        return value
    mapper = state.mapper
    for column, key in zip(mapper.primary_key, state.key[1], strict=False):
        if mapper.get_property_by_column(column).key == name:
            return key
    raise NotLoadedError(attribute=name, kind=type(owner).__qualname__)


def resolved(value: Any) -> Any:
    """Resolve a captured value; a deferred one that is not filled in yet becomes None."""
    return value.value() if type(value) is Deferred else value
