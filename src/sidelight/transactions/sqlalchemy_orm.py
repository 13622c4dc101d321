"""SQLAlchemy's Session: an event waits for the flush of what the function has left pending.

So the keys that the database gives are known, and it is the business's own statement that takes the
locks, fails and says so. Where nothing is pending the event is inserted at once.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from itertools import groupby
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

from sidelight.transactions import sqlalchemy_core
from sidelight.transactions.entry import ENDED, Entry, Guard, Refused
from sidelight.transactions.outbox.table import OUTBOX

#: A session on several databases needs to be told which of them has the outbox.
_HINT: Final = {"clause": OUTBOX}


class _Watched:
    """What has happened to one session since an event wanted to know.

    Attributes:
        commits: how often its outermost transaction has committed.
        rows: events that wait for the flush, to become rows.
        waiting: events that wait for the commit; both with the innermost transaction they are in.
    """

    def __init__(self) -> None:
        self.commits = 0
        self.rows: list[tuple[SessionTransaction | None, Entry]] = []
        self.waiting: list[tuple[SessionTransaction | None, Entry]] = []

    def drop(self, transaction: SessionTransaction) -> None:
        """Forget the events of a transaction that was rolled back."""
        self.rows = [each for each in self.rows if each[0] is not transaction]
        self.waiting = [each for each in self.waiting if each[0] is not transaction]


_watched: Final[weakref.WeakKeyDictionary[Session, _Watched]] = weakref.WeakKeyDictionary()


def session(target: Session) -> SessionTransactionOf:
    """Look at a session's transaction."""
    watched = _watched.get(target)
    if watched is None:
        watched = _watched[target] = _Watched()
    return SessionTransactionOf(target, watched)


def scoped(target: Any) -> SessionTransactionOf:
    """Look at the transaction of the session that a registry has for this thread or task."""
    return session(target())


class SessionTransactionOf:
    """The transaction of a session."""

    awaited = False

    def __init__(self, target: Session, watched: _Watched) -> None:
        self._session = target
        self._watched = watched
        self._commits = watched.commits

    @property
    def is_clean(self) -> bool:
        """Whether nothing waits to be flushed."""
        return _is_clean(self._session)

    def hush(self) -> Callable[[], object]:
        """Let nothing that is read now flush what is pending."""
        session, before = self._session, self._session.autoflush
        session.autoflush = False

        def speak() -> None:
            session.autoflush = before

        return speak

    def check(self) -> None:
        """See `Transaction.check`."""
        if self._watched.commits != self._commits:
            raise Refused(ENDED)
        if not self._session.in_transaction():
            raise Refused("no transaction")
        if not self._session.is_active:
            raise Refused("broken transaction")

    def insert(self, entry: Entry) -> None:
        """Put an event into the outbox, when what is pending has been flushed."""
        if self.is_clean:
            _insert(self._session, [entry], first=True)
        else:
            self.insert_later(entry)

    def insert_later(self, entry: Entry) -> None:
        """Put an event into the outbox at the next flush, or at the commit."""
        self._watched.rows.append((_innermost(self._session), entry))

    async def insert_awaited(self, entry: Entry) -> None:
        """Put an event into the outbox."""
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


def _innermost(session: Session) -> SessionTransaction | None:
    return session.get_nested_transaction() or session.get_transaction()


def _insert(session: Session, entries: list[Entry], *, first: bool) -> None:
    for _, group in groupby(entries, key=lambda entry: entry.strict):
        alike = list(group)
        with Guard(*alike):
            connection = session.connection(bind_arguments=_HINT)
            sqlalchemy_core.insert(connection, alike, first=first)


# -- what sessions tell ------------------------------------------------------------------------


def _flushed(session: Session, _context: object) -> None:
    watched = _watched.get(session)
    if watched is not None:
        _take_in(session, watched, first=False)


def _take_in(session: Session, watched: _Watched, *, first: bool) -> None:
    for _, entry in watched.waiting:
        entry.settle()
    rows, watched.rows = watched.rows, []
    if rows:
        _insert(session, [entry for _, entry in rows], first=first)


def _before_commit(session: Session) -> None:
    """What no flush has taken in: nothing was left to be flushed after all."""
    watched = _watched.get(session)
    if watched is None or not (watched.rows or watched.waiting):
        return
    if not _is_clean(session):
        session.flush()  # as the commit would do next
    _take_in(session, watched, first=True)
    innermost = _innermost(session)
    # The commit is the connection's, of whose transaction the session's may be no more than a part.
    if innermost is not None and not innermost.nested and innermost._connections:  # noqa: SLF001
        waiting, watched.waiting = watched.waiting, []
        (connection, *_), *_ = innermost._connections.values()  # noqa: SLF001
        for _, entry in waiting:
            with Guard(entry):
                sqlalchemy_core.wait(connection, entry)


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


def _rolled_back(session: Session, transaction: SessionTransaction) -> None:
    watched = _watched.get(session)
    if watched is not None:
        watched.drop(transaction)


def _ended(session: Session, transaction: SessionTransaction) -> None:
    """However it ended: what a commit has not taken is not to be."""
    watched = _watched.get(session)
    if watched is None:
        return
    watched.drop(transaction)
    if transaction.parent is None:
        watched.rows.clear()
        watched.waiting.clear()


# On the class, once: to listen to one session costs more than all else that is done here.
for _name, _hook in (
    ("after_flush_postexec", _flushed),
    ("before_commit", _before_commit),
    ("after_commit", _committed),
    ("after_soft_rollback", _rolled_back),
    ("after_transaction_end", _ended),
):
    event.listen(Session, _name, _hook)
