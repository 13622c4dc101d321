"""What a function leaves to the flush of its session, and what it has undone before a flush."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import MANYTOONE, Mapper, Session
from sqlalchemy.orm.attributes import instance_state

from sidelight.transactions.work import Chain, End


class Pending:
    """The objects that a session is to flush, since a call began.

    Keeps their states, because an object that is kept would stay in the session's identity map.

    Args:
        session: of the call.
        undone: what leaves the session without a flush from now on.
    """

    __slots__ = ("_before", "_session", "_undone")

    def __init__(self, session: Session, undone: Chain[object]) -> None:
        self._session = session
        self._undone = undone
        self._before = frozenset(map(instance_state, _pending(session)))

    def own(self) -> list[object]:
        """Return what the function alone has left to the flush."""
        pending = _pending(self._session)
        return [each for each in pending if instance_state(each) not in self._before]

    def undone(self) -> list[object]:
        """Return what the function has changed, and what has left the session without a flush."""
        return [each for each in self._undone if each not in self._before]

    def all_is_undone(self, ends: set[End]) -> bool:
        """Return whether the function has done something, and has undone all that it has done.

        Args:
            ends: of its statements that may have written.
        """
        return ends <= {End.UNDONE} and bool(ends or self.undone()) and not self.own()


def is_clean(session: Session) -> bool:
    """Return whether a session has nothing to flush."""
    return not (session.new or session.dirty or session.deleted)


def mappers_to_flush(session: Session) -> frozenset[Mapper[Any]]:
    """Return the mappers whose rows the next flush may write, in a session over several databases.

    Empty where the session has one database, or where each object has its own, as in shards.
    """
    own = vars(session)
    binds = own.get("binds") or own.get("_Session__binds")  # of SQLAlchemy 2.1, and of 2.0
    is_single = not binds and type(session).get_bind is Session.get_bind
    if is_single or session.connection_callable is not None:
        return frozenset()
    found: set[Mapper[Any]] = set()
    for each in _pending(session):
        state = instance_state(each)
        found.add(state.mapper)
        changed = (
            state.mapper.relationships.keys() if each in session.deleted else state.committed_state
        )
        for key in changed:
            related = state.mapper.relationships.get(key)
            if related is not None and related.direction is not MANYTOONE:
                found.add(related.mapper)  # its rows refer to this one
    return frozenset(found)


def _pending(session: Session) -> list[object]:
    return [*session.new, *session.dirty, *session.deleted]
