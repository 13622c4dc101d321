"""SQLAlchemy's Session: an event waits for the flush of what the function has left pending.

So the keys that the database generates are known, and the business's own statement is the one that
takes the locks and fails. Where nothing is pending, the event is inserted at once.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from itertools import groupby
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.orm import Session, scoped_session
from sqlalchemy.orm import SessionTransaction as _Part

from sidelight.transactions.entry import ENDED, Entry, Guard, Refused
from sidelight.transactions.outbox.table import OUTBOX
from sidelight.transactions.sqlalchemy import connections

#: Tells a session on several databases which of them has the outbox.
_HINT: Final = {"clause": OUTBOX}


class _Watched:
    """The events of one session.

    Attributes:
        commits: how often the outermost transaction has committed since the first event.
        rows: events that wait for the flush, to become rows, with their innermost transaction.
        waiting: events that wait for the commit, with their innermost transaction.
    """

    def __init__(self) -> None:
        self.commits = 0
        self.rows: list[tuple[_Part | None, Entry]] = []
        self.waiting: list[tuple[_Part | None, Entry]] = []

    def drop(self, transaction: _Part) -> None:
        """Drop the events of a transaction that was rolled back."""
        self.rows = [each for each in self.rows if each[0] is not transaction]
        self.waiting = [each for each in self.waiting if each[0] is not transaction]


_watched: Final[weakref.WeakKeyDictionary[Session, _Watched]] = weakref.WeakKeyDictionary()


class SessionTransaction:
    """The transaction of a session."""

    needs_await = False

    def __init__(self, session: Session) -> None:
        watched = _watched.get(session)
        if watched is None:
            watched = _watched[session] = _Watched()
        self._session = session
        self._watched = watched
        self._commits = watched.commits

    @property
    def is_clean(self) -> bool:
        """Whether no flush is pending."""
        return _is_clean(self._session)

    def suspend_autoflush(self) -> Callable[[], object]:
        """Keep reads of attributes from flushing what is pending."""
        session, before = self._session, self._session.autoflush
        session.autoflush = False

        def restore() -> None:
            session.autoflush = before

        return restore

    def check(self) -> None:
        """See `Transaction.check`."""
        if self._watched.commits != self._commits:
            raise Refused(ENDED)
        if not self._session.in_transaction():
            raise Refused("no transaction")
        if not self._session.is_active:
            raise Refused("broken transaction")

    def insert(self, entry: Entry) -> None:
        """Insert an event into the outbox, now or after the pending flush."""
        if self.is_clean:
            _insert(self._session, [entry], first=True)
        else:
            self.insert_later(entry)

    def insert_later(self, entry: Entry) -> None:
        """Insert an event into the outbox at the next flush, or at the commit."""
        self._watched.rows.append((_innermost(self._session), entry))

    async def insert_awaited(self, entry: Entry) -> None:
        """Insert an event into the outbox."""
        self.insert(entry)

    def after_commit(self, entry: Entry) -> None:
        """Emit an event once the transaction has committed."""
        if self._watched.commits != self._commits:  # the work is done
            entry.emit()
            return
        if not self._session.in_transaction():
            raise Refused("no transaction")
        if _is_clean(self._session):
            entry.settle()
        self._watched.waiting.append((_innermost(self._session), entry))


def _is_clean(session: Session) -> bool:
    return not (session.new or session.dirty or session.deleted)


def _innermost(session: Session) -> _Part | None:
    return session.get_nested_transaction() or session.get_transaction()


def _insert(session: Session, entries: list[Entry], *, first: bool) -> None:
    for _, group in groupby(entries, key=lambda entry: entry.strict):
        alike = list(group)
        with Guard(*alike):
            connection = session.connection(bind_arguments=_HINT)
            connections.insert(connection, alike, first=first)


# -- events of sessions ------------------------------------------------------------------------


def _flushed(session: Session, _context: object) -> None:
    watched = _watched.get(session)
    if watched is not None:
        _settle(session, watched, first=False)


def _settle(session: Session, watched: _Watched, *, first: bool) -> None:
    for _, entry in watched.waiting:
        entry.settle()
    rows, watched.rows = watched.rows, []
    if rows:
        _insert(session, [entry for _, entry in rows], first=first)


def _before_commit(session: Session) -> None:
    """Take in the events that no flush has taken in, because nothing was left to flush."""
    watched = _watched.get(session)
    if watched is None or not (watched.rows or watched.waiting):
        return
    if not _is_clean(session):
        session.flush()  # as the commit would do next
    _settle(session, watched, first=True)
    innermost = _innermost(session)
    # The connection commits; the session may be no more than a part of its transaction.
    if innermost is not None and not innermost.nested and innermost._connections:  # noqa: SLF001
        waiting, watched.waiting = watched.waiting, []
        (connection, *_), *_ = innermost._connections.values()  # noqa: SLF001
        for _, entry in waiting:
            with Guard(entry):
                connections.wait(connection, entry)


def _committed(session: Session) -> None:
    watched = _watched.get(session)
    if watched is None:
        return
    done = _innermost(session)
    if done is not None and done.nested:
        outer = done.parent
        while outer is not None and not outer.nested and outer.parent is not None:
            outer = outer.parent
        watched.waiting = [
            (outer if transaction is done else transaction, entry)
            for transaction, entry in watched.waiting
        ]
        return
    watched.commits += 1
    waiting, watched.waiting = watched.waiting, []
    for _, entry in waiting:
        with Guard(entry):
            entry.emit()


def _rolled_back(session: Session, transaction: _Part) -> None:
    watched = _watched.get(session)
    if watched is not None:
        watched.drop(transaction)


def _ended(session: Session, transaction: _Part) -> None:
    """Drop the events that no commit has taken, however the transaction has ended."""
    watched = _watched.get(session)
    if watched is None:
        return
    watched.drop(transaction)
    if transaction.parent is None:
        watched.rows.clear()
        watched.waiting.clear()


# On the class, once: a listener on one session costs more than all the rest of this module.
for _name, _hook in (
    ("after_flush_postexec", _flushed),
    ("before_commit", _before_commit),
    ("after_commit", _committed),
    ("after_soft_rollback", _rolled_back),
    ("after_transaction_end", _ended),
):
    event.listen(Session, _name, _hook)

ADAPTERS: Final[Mapping[type, Callable[[Any], SessionTransaction]]] = {
    Session: SessionTransaction,
    scoped_session: lambda registry: SessionTransaction(registry()),
}
