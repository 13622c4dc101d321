"""The events of one session that wait: for a flush, then for the commit.

A session over several databases has a transaction in each, and SQLAlchemy commits one after the
other. So an event belongs to the connection on which its function has executed statements, or to
the one that flushes what it has left pending. Where there are several, nothing tells which of them
has the work, and the event waits until all have committed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy.engine import Connection
from sqlalchemy.orm import Mapper, Session, object_session
from sqlalchemy.orm import SessionTransaction as Part

from sidelight.transactions.entry import INSERT_FAILED, Entry
from sidelight.transactions.hooks import Contained
from sidelight.transactions.sqlalchemy.pending import mappers_to_flush
from sidelight.transactions.sqlalchemy.watch import (
    ConnectionWork,
    Watch,
    commits_itself,
    is_autocommit,
    watch,
)
from sidelight.transactions.work import Chain

#: No number of commits: a connection in autocommit mode has always committed.
_ALWAYS: Final = -1


class Called(NamedTuple):
    """An event of a function.

    Attributes:
        part: innermost transaction of the session around it.
        entry: the event.
        before: what `statements_of` the session was before the call of the function.
        executed: the connections on which the function has executed statements.
        mappers: of all that was left to the flush then; none where they do not tell the database.
    """

    part: Part | None
    entry: Entry
    before: Mapping[Connection, int]
    executed: Sequence[Connection] = ()
    mappers: frozenset[Mapper[Any]] = frozenset()

    def unflushed(self, session: Session) -> Called:
        """Note what the function has executed, and what it leaves to the flush."""
        mappers = mappers_to_flush(session)
        if not mappers:
            return self
        return self._replace(executed=self._used(statements_of(session)), mappers=mappers)

    def connections(self, session: Session) -> list[Connection]:
        """Return the connections that may have the work of the function; one, where that is known.

        Statements of others that were executed until now count as those of the function.
        """
        now = statements_of(session)
        used = self._used(now)
        if len(used) > 1 and self.mappers:
            own = {*self.executed, *connections_for(session, self.mappers)}
            used = [each for each in used if each in own] or used
        return used or list(now)

    def _used(self, now: Mapping[Connection, int]) -> list[Connection]:
        return [each for each in now if now[each] != self.before.get(each, 0)]


class Unflushed(NamedTuple):
    """An event whose work waits for a flush, wholly or in part.

    Attributes:
        called: the event; partial if the function has also executed statements.
        held_by: holds a partial event. If the connection commits before the flush, the event is
            counted. None where the event is not partial, or the part of its work is committed.
        objects: all that the function has changed, and left to the flush; none where it may have
            changed more.
        is_in_doubt: whether nothing tells if the flush writes any of the work. The event is counted
            if it is committed.
    """

    called: Called
    held_by: Watch | None
    objects: Sequence[object] = ()
    is_in_doubt: bool = False

    @property
    def entry(self) -> Entry:
        """The event."""
        return self.called.entry

    def is_whole(self, session: Session) -> bool:
        """Return whether the flush completes the work; an event that lost a part is counted."""
        if self.held_by is not None:
            is_whole = self.held_by.taken(self.entry)
        else:  # a flush within a transaction does not complete what has committed by itself
            begun = connections_of(session.get_transaction())
            is_whole = not self.entry.is_partial or any(map(commits_itself, begun))
        if self.entry.is_partial and not is_whole:
            self.entry.forget()
        self.entry.is_partial = self.is_in_doubt
        return is_whole

    def is_expunged(self) -> bool:
        """Return whether no object of the work is left in its session, so that none is flushed."""
        return bool(self.objects) and not any(map(object_session, self.objects))

    def drop(self) -> None:
        """Count the event if a part of its work is committed already."""
        if self.entry.is_partial and self.held_by is None:
            self.entry.forget()


class Unattached(NamedTuple):
    """An event that waits for a commit, and not at a connection yet.

    Attributes:
        part: innermost transaction of the session around it.
        entry: the event.
        connections: those that may have its work; none where the session had none.
    """

    part: Part | None
    entry: Entry
    connections: list[Connection]


class Events:
    """The events of one session.

    Attributes:
        commits: number of commits of the outermost transaction since the first event.
        ends: number of its ends, of every kind.
        works: what the connections do from now on, on which the session will begin.
        undone: the states of objects that leave the session without a flush from now on, and the
            session itself for all those that a rollback undoes.
        rows: events that wait for a flush, to become rows.
        unattached: events that wait for a commit, and at no connection yet.
        unflushed: events that wait for a flush, to wait for a commit then.
    """

    def __init__(self) -> None:
        self.commits = 0
        self.ends = 0
        self.works: Chain[ConnectionWork] = Chain()
        self.undone: Chain[object] = Chain()
        self.rows: list[Unflushed] = []
        self.unflushed: list[Unflushed] = []
        self.unattached: list[Unattached] = []
        self._begun: dict[Watch, int] = {}

    @property
    def rollbacks(self) -> int:
        """Number of ends without a commit; a session that is closed rolls back."""
        return self.ends - self.commits

    def begin(self, connection: Connection) -> ConnectionWork:
        """Watch a connection on which the transaction has begun; return what it does from now."""
        found = watch(connection)
        if found not in self._begun:
            self._begun[found] = _ALWAYS if is_autocommit(connection) else found.commits
        return ConnectionWork(connection)

    def drop(self, part: Part) -> None:
        """Drop the events of a transaction that was rolled back."""
        for each in (*self.rows, *self.unflushed):
            if each.called.part is part:
                each.drop()
        self.rows = [each for each in self.rows if each.called.part is not part]
        self.unflushed = [each for each in self.unflushed if each.called.part is not part]
        self.unattached = [each for each in self.unattached if each.part is not part]

    def add(self, session: Session, called: Called) -> None:
        """Emit an event, whose work is flushed, when the transaction has committed."""
        connections = called.connections(session)
        self.unattached.append(Unattached(called.part, called.entry, connections))
        self.attach(session)

    def attach(self, session: Session) -> None:
        """Let each event wait at the connection that has its work, if that is known."""
        begun = connections_of(session.get_transaction())
        unattached, self.unattached = self.unattached, []
        for each in unattached:
            with Contained(each.entry.fail):
                connections = each.connections or begun
                if len(connections) == 1 and connections[0] in connections_of(each.part):
                    watch(connections[0]).wait(connections[0], each.entry)
                else:
                    self.unattached.append(each)

    def refuse(self, error: Exception) -> None:
        """Drop all events and count them, because a hook has failed before the commit.

        Raises:
            TransactionError: a strict event was still to be inserted.
        """
        strict = [each.entry for each in self.rows if each.entry.strict]
        self.rows = [each for each in self.rows if not each.entry.strict]
        self.lose(error)
        for entry in strict:
            entry.refuse(INSERT_FAILED, error)

    def lose(self, error: Exception) -> None:
        """Drop all events and count them, because a hook has failed."""
        lost = [each.entry for each in self.unattached]
        lost += [
            each.entry
            for each in (*self.rows, *self.unflushed)
            if each.held_by is None or each.held_by.taken(each.entry)
        ]
        self.clear()
        for entry in lost:
            entry.fail(error)

    def clear(self) -> None:
        """Drop all events."""
        self.rows.clear()
        self.unattached.clear()
        self.unflushed.clear()

    def end(self) -> None:
        """Drop the events that no commit has taken; count those whose work may be committed."""
        self.ends += 1
        begun, self._begun = self._begun, {}
        unattached = [each.entry for each in self.unattached if len(each.connections) > 1]
        unflushed = [*self.rows, *self.unflushed]
        self.clear()
        for each in unflushed:
            each.drop()
        if any(found.commits != commits for found, commits in begun.items()):
            for entry in unattached:  # one of their databases has committed, and another has not
                entry.forget()

    def __del__(self) -> None:
        """Count events of several databases where the session is dropped, and a pool commits."""
        if any(found.outlives for found in getattr(self, "_begun", ())):
            for each in self.unattached:
                each.entry.forget()

    def flushed(self, session: Session) -> list[Called]:
        """Let events wait for the commit, because their work is flushed; return those for rows.

        Strict ones come last, because they may raise.
        """
        unflushed, self.unflushed = self.unflushed, []
        for each in unflushed:
            if each.is_expunged():
                continue
            with Contained(each.entry.fail):
                if each.is_whole(session):
                    each.entry.settle()
                    self.add(session, each.called)
        rows, self.rows = self.rows, []
        whole = [each.called for each in rows if not each.is_expunged() and each.is_whole(session)]
        return sorted(whole, key=lambda called: called.entry.strict)


def innermost(session: Session) -> Part | None:
    """Return the innermost transaction of a session."""
    return session.get_nested_transaction() or session.get_transaction()


def connections_of(part: Part | None) -> list[Connection]:
    """Return the connections that a transaction of a session has begun on, in order."""
    begun = () if part is None else part._connections.values()  # noqa: SLF001
    return list(dict.fromkeys(connection for connection, *_ in begun))


def connections_for(session: Session, mappers: Iterable[Mapper[Any]]) -> list[Connection]:
    """Return the connections on which a session's transaction has begun for mappers."""
    part = session.get_transaction()
    begun = {} if part is None else part._connections  # noqa: SLF001
    binds = [session.get_bind(mapper=each.base_mapper) for each in mappers]
    return [begun[each][0] for each in binds if each in begun]


def statements_of(session: Session) -> dict[Connection, int]:
    """Return how many statements each connection of a session's transaction has executed."""
    begun = connections_of(session.get_transaction())
    return {connection: watch(connection).statements.number for connection in begun}
