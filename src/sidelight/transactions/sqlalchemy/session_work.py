"""What a function has done through a session: statements on its connections, and what it left."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from sidelight.transactions.sqlalchemy.events import Events, connections_of
from sidelight.transactions.sqlalchemy.pending import Pending
from sidelight.transactions.sqlalchemy.watch import watch
from sidelight.transactions.work import End, Work


class SessionWork:
    """The work since a call began.

    Attributes:
        pending: the part that no flush has written.
    """

    __slots__ = ("_later", "_works", "pending")

    def __init__(self, session: Session, events: Events) -> None:
        begun = connections_of(session.get_transaction())
        self._works = [events.begin(connection) for connection in begun]
        self._later = events.works
        self.pending = Pending(session, events.undone)

    def used(self) -> dict[Connection, set[End]]:
        """Return each connection that has executed statements, and how these have ended.

        Where one of them may have written, those that only read are no part of the work.
        """
        return self._ended(Work.written) or self._ended(Work.executed)

    def is_undone(self) -> bool:
        """Return whether the function has changed something, and has undone all of it."""
        return self.pending.all_is_undone(set().union(*self._ended(Work.written).values()))

    def is_open(self) -> bool:
        """Return whether a commit of the session would commit anything that the function did."""
        written = set().union(*self._ended(Work.written).values())
        return End.OPEN in written or bool(self.pending.own())

    def _ended(self, ends_of: Callable[[Work], set[End]]) -> dict[Connection, set[End]]:
        ended: dict[Connection, set[End]] = {}
        for work in (*self._works, *self._later):
            if work.connection not in ended:
                watch(work.connection).check_open(work.connection)
                if ends := ends_of(work):
                    ended[work.connection] = ends
        return ended
