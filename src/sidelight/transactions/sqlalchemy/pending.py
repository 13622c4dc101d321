"""What a function leaves to the flush of its session, and what it has undone before a flush."""

from __future__ import annotations

from sqlalchemy.orm import Session

from sidelight.transactions.sqlalchemy.work import Chain, End


class Pending:
    """The objects that a session is to flush, since a call began.

    Args:
        session: of the call.
        undone: what leaves the session without a flush from now on.
    """

    __slots__ = ("_before", "_session", "_undone")

    def __init__(self, session: Session, undone: Chain[object]) -> None:
        self._session = session
        self._undone = undone
        # By identity, and kept, because another object could have the identity of one that is gone.
        self._before = {id(each): each for each in _pending(session)}

    def own(self) -> list[object]:
        """Return what the function alone has left to the flush."""
        return [each for each in _pending(self._session) if id(each) not in self._before]

    def undone(self) -> list[object]:
        """Return what the function has changed, and what has left the session without a flush."""
        return [each for each in self._undone if id(each) not in self._before]

    def all_is_undone(self, ends: set[End]) -> bool:
        """Return whether the function has done something, and has undone all that it has done.

        Args:
            ends: of its statements.
        """
        return ends <= {End.UNDONE} and bool(ends or self.undone()) and not self.own()


def is_clean(session: Session) -> bool:
    """Return whether a session has nothing to flush."""
    return not (session.new or session.dirty or session.deleted)


def _pending(session: Session) -> list[object]:
    return [*session.new, *session.dirty, *session.deleted]
