"""SQLAlchemy's Session: an event waits for the flush of what the function has left pending.

So the keys that the database generates are known, and the business's own statement is the one that
takes the locks and fails. Where nothing is pending, the event is inserted at once. An event that
waits for the commit waits for the flush first, because the connection may commit past the session,
and then at the session's connection, as soon as there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import groupby
from typing import Any, Final, NamedTuple

from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session, scoped_session
from sqlalchemy.orm import SessionTransaction as _Part

from sidelight.transactions.entry import (
    BROKEN,
    ENDED,
    INSERT_FAILED,
    NO_TABLE,
    Entry,
    Guard,
    Refused,
    UndoneError,
    reason_of,
)
from sidelight.transactions.hooks import Contained
from sidelight.transactions.outbox.table import outbox_table
from sidelight.transactions.sqlalchemy.connections import (
    Watch,
    commits_itself,
    insert,
    is_autocommit,
    watch,
)
from sidelight.transactions.transaction import CountedTransaction
from sidelight.transactions.waiting import emit

_ATTRIBUTE: Final = "_sidelight_events"
#: Tells a session that has not begun on any of its databases which of them to take.
_HINT: Final[dict[str, Any]] = {"clause": outbox_table()}


class _Unflushed(NamedTuple):
    """An event whose work waits for a flush, wholly or in part.

    Attributes:
        part: innermost transaction of the session around it.
        entry: the event; partial if the function has also executed statements.
        held_by: holds a partial event. If the connection commits before the flush, the event is
            counted. None where the event is not partial, or the part of its work is committed.
    """

    part: _Part | None
    entry: Entry
    held_by: Watch | None

    def is_whole(self) -> bool:
        """Return whether the flush completes the work; an event that lost a part is counted."""
        is_whole = self.held_by is None or self.held_by.taken(self.entry)
        if self.entry.is_partial and not is_whole:
            self.entry.forget()
        self.entry.is_partial = False
        return is_whole

    def drop(self) -> None:
        """Count the event if a part of its work is committed already."""
        if self.entry.is_partial and self.held_by is None:
            self.entry.forget()


class _Events:
    """The events of one session, each with the innermost transaction of the session around it.

    Attributes:
        commits: number of commits of the outermost transaction since the first event.
        rollbacks: number of its rollbacks.
        rows: events that wait for a flush, to become rows.
        unattached: events that wait for a commit, and whose transaction has no connection yet.
        unflushed: events that wait for a flush, to wait for a commit then.
    """

    def __init__(self) -> None:
        self.commits = 0
        self.rollbacks = 0
        self.rows: list[_Unflushed] = []
        self.unflushed: list[_Unflushed] = []
        self.unattached: list[tuple[_Part | None, Entry]] = []

    def drop(self, part: _Part) -> None:
        """Drop the events of a transaction that was rolled back."""
        for each in (*self.rows, *self.unflushed):
            if each.part is part:
                each.drop()
        self.rows = [each for each in self.rows if each.part is not part]
        self.unflushed = [each for each in self.unflushed if each.part is not part]
        self.unattached = [each for each in self.unattached if each[0] is not part]

    def attach(self) -> None:
        """Let the events wait at the connections of their transactions."""
        unattached, self.unattached = self.unattached, []
        for part, entry in unattached:
            with Contained(entry.fail):
                if connections := _connections(part):
                    watch(connections[0]).wait(connections[0], entry)
                else:
                    self.unattached.append((part, entry))

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
        lost = [entry for _, entry in self.unattached]
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

    def flushed(self) -> list[Entry]:
        """Let events wait for the commit, because their work is flushed; return those for rows."""
        unflushed, self.unflushed = self.unflushed, []
        for each in unflushed:
            with Contained(each.entry.fail):
                if each.is_whole():
                    each.entry.settle()
                    self.unattached.append((each.part, each.entry))
        self.attach()
        rows, self.rows = self.rows, []
        return [each.entry for each in rows if each.is_whole()]


def _events(session: Session) -> _Events | None:
    # In the session itself: a weak dictionary would keep sessions that its values refer to.
    return session.__dict__.get(_ATTRIBUTE)


class SessionTransaction(CountedTransaction):
    """The transaction of a session."""

    def __init__(self, session: Session) -> None:
        events = _events(session)
        if events is None:
            events = session.__dict__[_ATTRIBUTE] = _Events()
        self._session = session
        self._statements = _statements(session)
        self._events = events
        super().__init__(events)

    @property
    def is_clean(self) -> bool:
        """Whether no flush is pending."""
        return _is_clean(self._session)

    def suspend_autoflush(self) -> Callable[[], object]:
        """See `Transaction.suspend_autoflush`."""
        session, before = self._session, self._session.autoflush
        session.autoflush = False

        def restore() -> None:
            session.autoflush = before

        return restore

    def check(self) -> None:
        """See `Transaction.check`."""
        if self.is_committed:
            raise Refused(ENDED)
        if not self._session.in_transaction():
            raise self.missing()
        if not self._session.is_active:
            raise Refused(BROKEN)

    def insert(self, entry: Entry) -> None:
        """See `Transaction.insert`."""
        if self.is_clean:
            _insert(self._session, [entry], first=True)
        else:
            self.insert_later(entry)

    def insert_later(self, entry: Entry) -> None:
        """Insert an event into the outbox at the next flush, or at the commit."""
        self._events.rows.append(self._unflushed(entry))

    def _unflushed(self, entry: Entry) -> _Unflushed:
        part = _innermost(self._session)
        for connection, number in _statements(self._session).items():
            if number == self._statements.get(connection, 0):
                continue  # the function has executed nothing on it
            if connection.invalidated:
                entry.is_partial |= is_autocommit(connection)
            else:
                entry.is_partial = True
                if not commits_itself(connection):
                    watch(connection).hold(connection, entry)
                    return _Unflushed(part, entry, watch(connection))
        return _Unflushed(part, entry, None)

    def after_commit(self, entry: Entry) -> None:
        """See `Transaction.after_commit`."""
        if self.is_committed:  # the work is done
            entry.emit()
            return
        if not self._session.in_transaction():
            raise self.missing()
        if not self._session.is_active:
            raise UndoneError
        if self.is_clean:
            _wait(self._session, entry)
        else:
            self._events.unflushed.append(self._unflushed(entry))


def _is_clean(session: Session) -> bool:
    return not (session.new or session.dirty or session.deleted)


def _innermost(session: Session) -> _Part | None:
    return session.get_nested_transaction() or session.get_transaction()


def _connections(part: _Part | None) -> list[Connection]:
    """Return the connections that a transaction of a session has begun on, in order."""
    begun = () if part is None else part._connections.values()  # noqa: SLF001
    return list(dict.fromkeys(connection for connection, *_ in begun))


def _statements(session: Session) -> dict[Connection, int]:
    """Return how many statements each connection of a session's transaction has executed."""
    begun = _connections(session.get_transaction())
    return {connection: watch(connection).statements for connection in begun}


def _wait(session: Session, entry: Entry) -> None:
    """Emit an event, whose work is flushed, when the transaction has committed."""
    events = _events(session)
    assert events is not None  # noqa: S101  # a ticket has made them
    entry.settle()
    begun = _connections(_innermost(session))
    if begun and commits_itself(begun[0]):
        entry.emit()  # the work is done
        return
    events.unattached.append((_innermost(session), entry))
    events.attach()


def _insert(session: Session, entries: list[Entry], *, first: bool) -> None:
    for _, group in groupby(entries, key=lambda entry: entry.strict):
        alike = list(group)
        with Guard(lambda entry: _wait(session, entry), *alike):
            _insert_anywhere(session, alike, first=first)


def _insert_anywhere(session: Session, entries: list[Entry], *, first: bool) -> None:
    """Insert into the first database of the session's transaction that has an outbox.

    Raises:
        Exception: of the last database.
    """
    binds = [{"bind": each.engine} for each in _connections(session.get_transaction())]
    for number, bind in enumerate(binds or [_HINT], 1):
        try:
            insert(session.connection(bind_arguments=bind), entries, first=first)
        except Exception as error:
            reason = error.reason if isinstance(error, Refused) else reason_of(error)
            if number >= len(binds) or reason != NO_TABLE:
                raise
        else:
            return


# -- events of sessions ------------------------------------------------------------------------


def _hook(
    name: str, failed: Callable[[_Events, Exception], None]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Listen to an event of all sessions; one with events of ours calls the function.

    Args:
        name: of SQLAlchemy's event.
        failed: called where the function raises an error.
    """

    def listen(listener: Callable[..., None]) -> Callable[..., None]:
        def call(session: Session, *arguments: object) -> None:
            if (events := _events(session)) is not None:
                with Contained(partial(failed, events)):
                    listener(session, events, *arguments)

        # On the class, once: a listener on one session costs more than all the rest of this module.
        event.listen(Session, name, call)
        return listener

    return listen


@_hook("after_begin", _Events.refuse)
def _began(_session: Session, events: _Events, _: _Part, connection: Connection) -> None:
    watch(connection)
    events.attach()


@_hook("after_flush_postexec", _Events.refuse)
def _flushed(session: Session, events: _Events, _context: object) -> None:
    _take_in(session, events, first=False)
    for connection in _connections(_innermost(session)):
        if watch(connection) and commits_itself(connection):
            watch(connection).committed()  # the flush has committed each statement


def _take_in(session: Session, events: _Events, *, first: bool) -> None:
    if rows := events.flushed():
        _insert(session, rows, first=first)


def _flush(session: Session) -> None:
    """Flush where events wait for it, as the commit would do next."""
    events = _events(session)
    if events is not None and (events.rows or events.unflushed) and not _is_clean(session):
        session.flush()


# Not a `_hook`, because the errors are those of the caller's flush.
event.listen(Session, "before_commit", _flush)


@_hook("before_commit", _Events.refuse)
def _before_commit(session: Session, events: _Events) -> None:
    """Take in the events that no flush has taken in, because nothing was left to flush."""
    _take_in(session, events, first=True)


@_hook("after_commit", _Events.lose)
def _committed(session: Session, events: _Events) -> None:
    part = _innermost(session)
    if part is not None and part.nested:
        outer = part.parent
        while outer is not None and not outer.nested and outer.parent is not None:
            outer = outer.parent
        events.unattached = [
            (outer if each is part else each, entry) for each, entry in events.unattached
        ]
        events.attach()
        return
    if any(watch(connection).was_in_vain for connection in _connections(part)):
        events.rollbacks += 1
        return
    events.commits += 1
    unattached, events.unattached = events.unattached, []
    emit(entry for _, entry in unattached)


@_hook("after_soft_rollback", _Events.lose)
def _rolled_back(_session: Session, events: _Events, part: _Part) -> None:
    events.drop(part)
    if part.parent is None:
        events.rollbacks += 1


@_hook("after_transaction_end", _Events.lose)
def _ended(_session: Session, events: _Events, part: _Part) -> None:
    """Drop the events that no commit has taken, however the transaction has ended."""
    events.drop(part)
    if part.parent is None:
        for each in (*events.rows, *events.unflushed):
            each.drop()
        events.clear()


ADAPTERS: Final[Mapping[type, Callable[[Any], SessionTransaction]]] = {
    Session: SessionTransaction,
    scoped_session: lambda registry: SessionTransaction(registry()),
}
