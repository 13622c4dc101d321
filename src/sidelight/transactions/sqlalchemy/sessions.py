"""SQLAlchemy's Session: an event waits for the flush of what the function has left pending.

So the keys that the database generates are known, and the business's own statement is the one that
takes the locks and fails. Where nothing is pending, the event is inserted at once. An event that
waits for the commit waits for the flush first, because the connection may commit past the session,
and then at the session's connection, as soon as there is one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from itertools import groupby
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session, scoped_session
from sqlalchemy.orm import SessionTransaction as Part
from sqlalchemy.orm.attributes import instance_state

from sidelight.transactions.entry import (
    BROKEN,
    ENDED,
    Entry,
    Guard,
    Refused,
    UndoneError,
    UnknownError,
)
from sidelight.transactions.hooks import Contained
from sidelight.transactions.replaced import in_scope
from sidelight.transactions.sqlalchemy.connections import insert
from sidelight.transactions.sqlalchemy.databases import insert_into_one
from sidelight.transactions.sqlalchemy.events import (
    Called,
    Events,
    Unflushed,
    connections_of,
    innermost,
    statements_of,
)
from sidelight.transactions.sqlalchemy.pending import is_clean
from sidelight.transactions.sqlalchemy.session_work import SessionWork
from sidelight.transactions.sqlalchemy.watch import commits_itself, is_autocommit, is_open, watch
from sidelight.transactions.transaction import CountedTransaction, Transaction
from sidelight.transactions.waiting import emit
from sidelight.transactions.work import End

_ATTRIBUTE: Final = "_sidelight_events"
_STANDING: Final = frozenset({End.OPEN})
#: Work that stands, a part of which is committed.
_MIXED: Final = frozenset({End.ALONE, End.OPEN})


def _events(session: Session) -> Events | None:
    # In the session itself: a weak dictionary would keep sessions that its values refer to.
    return session.__dict__.get(_ATTRIBUTE)


class SessionTransaction(CountedTransaction):
    """The transaction of a session."""

    def __init__(self, session: Session) -> None:
        events = _events(session)
        if events is None:
            events = session.__dict__[_ATTRIBUTE] = Events()
        self._session = session
        self._work = SessionWork(session, events)
        self._statements = statements_of(session)
        self._events = events
        super().__init__(events)

    @property
    def place(self) -> object:
        """See `Transaction.place`."""
        return self._session

    @property
    def is_begun(self) -> bool:
        """See `Transaction.is_begun`."""
        begun = connections_of(self._session.get_transaction())
        return self._session.in_transaction() and not any(map(commits_itself, begun))

    @property
    def is_alone(self) -> bool:
        """See `CountedTransaction.is_alone`."""
        return bool(self._alone())

    @property
    def is_open(self) -> bool:
        """See `CountedTransaction.is_open`."""
        is_sound = self._session.in_transaction() and self._session.is_active
        return bool(self._left()) or (is_sound and self._work.is_open())

    @property
    def is_clean(self) -> bool:
        """Whether no flush is pending."""
        return is_clean(self._session)

    @property
    def is_committed(self) -> bool:
        """Whether the function has committed its work.

        Raises:
            UnknownError: nothing tells whether it has.
            UndoneError: the work was rolled back.
        """
        if self.is_clean and self._work.is_undone():
            raise UndoneError
        used = self._work.used()
        ends = set().union(*used.values())
        if ends <= _STANDING and not self._has_ended:
            return False
        is_mixed = any(each >= _MIXED for each in used.values()) or (
            not self.is_clean and any(End.ALONE in used[each] and is_open(each) for each in used)
        )
        if End.UNKNOWN in ends or is_mixed or self._is_past_the_session(ends):
            raise UnknownError
        if End.COMMITTED in ends:
            return True
        return super().is_committed and End.OPEN not in ends and self.is_clean

    @property
    def _has_ended(self) -> bool:
        """Whether a transaction of the session has ended since the call of the point began."""
        return super().is_committed or self.is_rolled_back

    def _is_past_the_session(self, ends: set[End]) -> bool:
        """Return whether work is committed, and nothing tells whether the session has flushed it.

        Args:
            ends: of the statements.
        """
        left = self._left()
        if super().is_committed:
            return len(left) > 1
        is_over = self.is_rolled_back or not self._session.is_active
        if End.COMMITTED in ends and is_over:
            return ends != {End.COMMITTED} or bool(self._work.pending.undone()) or not self.is_clean
        if End.COMMITTED in ends:
            return not (self._session.in_transaction() and self.is_clean)
        return is_over and (End.ALONE in ends or bool(left))

    def _left(self) -> list[Connection]:
        """Return the connections that the session has left with open work: it was given them."""
        if not self._has_ended:
            return []
        begun = connections_of(self._session.get_transaction())
        used = self._work.used().items()
        return [each for each, ends in used if End.OPEN in ends and each not in begun]

    def _alone(self) -> list[Connection]:
        """Return the connections that have committed each statement by itself: all of the work."""
        used = self._work.used()
        is_left = not self.is_clean or any(End.OPEN in ends for ends in used.values())
        return [] if is_left else [each for each, ends in used.items() if End.ALONE in ends]

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
        if self._left():
            return
        if not self._session.in_transaction():
            raise self.missing()
        if not self._session.is_active:
            raise Refused(BROKEN)
        if alone := self._alone():
            raise Refused("autocommit" if is_autocommit(alone[0]) else "no transaction")

    def insert(self, entry: Entry) -> None:
        """See `Transaction.insert`."""
        if left := self._left():
            insert(left[0], [entry], first=True)
        elif self.is_clean:
            _insert(self._session, [self._called(entry)], first=True)
        else:
            self.insert_later(entry)

    def insert_later(self, entry: Entry) -> None:
        """Insert an event into the outbox at the next flush, or at the commit.

        Raises:
            UnknownError: a strict event, and nothing tells whether the flush writes its work.
        """
        unflushed = self._unflushed(entry)
        if unflushed.is_in_doubt and entry.strict:
            raise UnknownError
        (self._events.unflushed if unflushed.is_in_doubt else self._events.rows).append(unflushed)

    def _unflushed(self, entry: Entry) -> Unflushed:
        called = self._called(entry).unflushed(self._session)
        # The function may have changed the caller's objects, which are still pending.
        if self._work.is_undone():
            return Unflushed(called, None, is_in_doubt=True)
        begun = connections_of(self._session.get_transaction())
        for connection, ends in self._work.used().items():
            if connection not in begun or not ends & _MIXED:
                continue  # the function has done nothing on it that stands
            if connection.invalidated:
                entry.is_partial |= is_autocommit(connection)
            else:
                entry.is_partial = True
                if End.OPEN in ends:
                    watch(connection).hold(connection, entry)
                    return Unflushed(called, watch(connection))
        return Unflushed(called, None, () if entry.is_partial else self._work.pending.own())

    def _called(self, entry: Entry) -> Called:
        return Called(innermost(self._session), entry, self._statements)

    def after_commit(self, entry: Entry) -> None:
        """See `Transaction.after_commit`."""
        if self.is_committed or self._alone():  # the work is done
            entry.emit()
            return
        if left := self._left():
            entry.settle()
            watch(left[0]).wait(left[0], entry)
            return
        if not self._session.in_transaction():
            raise self.missing()
        if not self._session.is_active:
            raise UndoneError
        if self.is_clean:
            _wait(self._session, self._called(entry))
        else:
            self._events.unflushed.append(self._unflushed(entry))


def _wait(session: Session, called: Called) -> None:
    """Emit an event, whose work is flushed, when the transaction has committed."""
    events = _events(session)
    assert events is not None  # noqa: S101  # a ticket has made them
    called.entry.settle()
    begun = connections_of(called.part)
    if begun and all(commits_itself(connection) for connection in begun):
        called.entry.emit()  # the work is done
    else:
        events.add(session, called)


def _insert(session: Session, events: list[Called], *, first: bool) -> None:
    def place(called: Called) -> tuple[bool, list[Connection]]:
        return called.entry.strict, called.connections(session)

    for (_, connections), group in groupby(events, key=place):
        by_entry = {id(called.entry): called for called in group}
        entries = [called.entry for called in by_entry.values()]
        with Guard(lambda entry, known=by_entry: _wait(session, known[id(entry)]), *entries):  # type: ignore[misc]
            insert_into_one(session, connections, entries, first=first)


# -- events of sessions ------------------------------------------------------------------------


def _hook(
    name: str, failed: Callable[[Events, Exception], None]
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


@_hook("after_begin", Events.refuse)
def _began(session: Session, events: Events, _: Part, connection: Connection) -> None:
    events.works = events.works.add(events.begin(connection))
    events.attach(session)


@_hook("after_flush_postexec", Events.refuse)
def _flushed(session: Session, events: Events, _context: object) -> None:
    try:
        _take_in(session, events, first=False)
    finally:  # also where a strict event raises
        for connection in connections_of(innermost(session)):
            if watch(connection) and commits_itself(connection):
                watch(connection).committed()  # the flush has committed each statement


def _take_in(session: Session, events: Events, *, first: bool) -> None:
    if rows := events.flushed(session):
        _insert(session, rows, first=first)


def _flush(session: Session) -> None:
    """Flush where events wait for it, as the commit would do next."""
    events = _events(session)
    if events is not None and (events.rows or events.unflushed) and not is_clean(session):
        session.flush()


# Not a `_hook`, because the errors are those of the caller's flush.
event.listen(Session, "before_commit", _flush)


@_hook("before_commit", Events.refuse)
def _before_commit(session: Session, events: Events) -> None:
    """Take in the events that no flush has taken in, because nothing was left to flush."""
    _take_in(session, events, first=True)


@_hook("pending_to_transient", Events.lose)
def _left(_session: Session, events: Events, instance: object) -> None:
    events.undone = events.undone.add(instance_state(instance))


@_hook("after_rollback", Events.lose)
def _undone(session: Session, events: Events) -> None:
    if not is_clean(session):
        # Stands for all that was pending: no call can have left the session itself to a flush.
        events.undone = events.undone.add(session)


@_hook("after_commit", Events.lose)
def _committed(session: Session, events: Events) -> None:
    part = innermost(session)
    if part is not None and part.nested:
        outer = part.parent
        while outer is not None and not outer.nested and outer.parent is not None:
            outer = outer.parent
        events.unattached = [
            each._replace(part=outer) if each.part is part else each for each in events.unattached
        ]
        events.attach(session)
        return
    if any(watch(connection).was_in_vain for connection in connections_of(part)):
        return
    events.commits += 1
    unattached, events.unattached = events.unattached, []
    emit(deque((each.part, each.entry) for each in unattached))


@_hook("after_soft_rollback", Events.lose)
def _rolled_back(_session: Session, events: Events, part: Part) -> None:
    events.drop(part)


@_hook("after_transaction_end", Events.lose)
def _ended(_session: Session, events: Events, part: Part) -> None:
    """Drop the events that no commit has taken, however the transaction has ended."""
    if part.parent is None:
        events.end()
    else:
        events.drop(part)


ADAPTERS: Final[Mapping[type, Callable[[Any], Transaction]]] = {
    Session: SessionTransaction,
    scoped_session: partial(in_scope, SessionTransaction),
}
