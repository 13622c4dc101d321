"""SQLAlchemy's Connection: the INSERT that the Session shares, and the wait for a commit.

SQLAlchemy tells of rollbacks and statements by events, and of a commit by a method that is
overlaid. A commit counts only if the transaction was sound before it, because some servers answer
the COMMIT of a failed transaction by a rollback and no error.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from sqlalchemy import Engine, event
from sqlalchemy.engine import Connection, ExceptionContext

from sidelight.transactions import control
from sidelight.transactions.entry import (
    BROKEN,
    BUSY,
    ENDED,
    Entry,
    Refused,
    RolledBackError,
    UnknownError,
)
from sidelight.transactions.hooks import Contained
from sidelight.transactions.sqlalchemy.drivers import driver_of
from sidelight.transactions.sqlalchemy.protocol import Answers, Insertion
from sidelight.transactions.statements import bounded
from sidelight.transactions.transaction import CountedTransaction
from sidelight.transactions.waiting import Waiting

_ATTRIBUTE: Final = "_sidelight_watch"
_COMMITS: Final = ("_commit_impl", "_commit_twophase_impl")

_engines: Final[weakref.WeakSet[Engine]] = weakref.WeakSet()


class Watch(Waiting):
    """The transactions of one connection.

    Attributes:
        has_begun: whether the driver was in a transaction when an event began to wait.
        was_in_vain: whether the last commit was answered by a rollback, or not sent at all.
        statements: number of statements that were executed since the first event.
        is_blind: whether SQL has ended the transaction in a pipeline. psycopg sends no BEGIN there,
            so that nothing tells whether the next statement is committed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.has_begun = False
        self.was_in_vain = False
        self.statements = 0
        self.is_blind = False

    def _ended(self) -> list[Entry]:
        self.has_begun = self.is_blind = False
        return super()._ended()

    def wait(self, connection: Connection, entry: Entry) -> None:
        """Emit an event when the transaction of the connection has committed."""
        if connection.invalidated:  # its transaction is undone
            if is_autocommit(connection):
                entry.forget()
        elif self.is_blind:
            entry.forget()
        elif not driver_of(connection).takes(connection, entry):
            self.hold(connection, entry)

    def hold(self, connection: Connection, entry: Entry) -> None:
        """Keep an event until the transaction of the connection ends."""
        self.has_begun = self.has_begun or driver_of(connection).has_begun(connection)
        self.add(entry)

    def check_open(self, connection: Connection) -> None:
        """Count what waits for a transaction that has ended past SQLAlchemy, by the driver."""
        if self and self.has_begun and not connection.invalidated:
            is_open = True
            with contextlib.suppress(Exception):  # the driver's connection may be closed
                is_open = driver_of(connection).has_begun(connection)
            if not is_open:
                self.unknown()

    def is_sound(self, connection: Connection) -> bool:
        """Return whether the work of all events can still be committed."""
        if connection.invalidated:
            return False
        driver = driver_of(connection)
        if self.has_begun and not driver.has_begun(connection):
            return False
        return driver.is_sound(connection, ask=bool(self))


def watch(connection: Connection) -> Watch:
    """Watch a connection; once for each."""
    found: Watch | None = connection.__dict__.get(_ATTRIBUTE)
    if found is None:
        found = connection.__dict__[_ATTRIBUTE] = Watch()
        _listen(connection.engine)
        for name in _COMMITS:
            _overlay(connection, name, found)
    return found


def _overlay(connection: Connection, name: str, found: Watch) -> None:
    """Overlay a method that commits, because SQLAlchemy has no event after the commit."""
    commit = getattr(type(connection), name)
    weakly = weakref.ref(connection)

    def commit_and_emit(*arguments: Any) -> None:
        connection = weakly()
        assert connection is not None  # noqa: S101  # its method is being called
        answers = None
        with Contained(found.doubt):
            answers = driver_of(connection).own_answers(connection)
        if answers is not None:
            _commit_in_pipeline(found, connection, answers, partial(commit, connection, *arguments))
            return
        is_prepared = arguments[1:] == (True,)  # of `_commit_twophase_impl`
        if not is_prepared:
            with Contained(found.lose):
                found.check_open(connection)
        found.was_in_vain = not (is_prepared or _is_sound(found, connection))
        try:
            commit(connection, *arguments)
        except BaseException:
            with Contained(found.lose):
                _take_in_failed_commit(found, connection)
            raise
        with Contained(found.lose):
            _take_in_returned_commit(found, connection)

    connection.__dict__[name] = commit_and_emit


def _is_sound(found: Watch, connection: Connection) -> bool:
    """Ask whether the work of all events can be committed; a cancelled question ends it."""
    try:
        with Contained(found.doubt):
            return found.is_sound(connection)
    except BaseException as error:
        # As where SQLAlchemy's COMMIT is cancelled: else the connection goes back to the pool with
        # the transaction open, because SQLAlchemy takes a commit that has raised as ended.
        found.rolled_back()
        connection.invalidate(error)
        raise
    return True


def _take_in_failed_commit(found: Watch, connection: Connection) -> None:
    if connection.invalidated:
        found.unknown()
    elif driver_of(connection).ends_at_failed_commit(connection):
        found.rolled_back()


def _take_in_returned_commit(found: Watch, connection: Connection) -> None:
    if found.was_in_vain:
        found.rolled_back()
    elif found and _is_left_open(connection):
        found.was_in_vain = True
        found.unknown()
    else:
        found.committed()


def commits_itself(connection: Connection) -> bool:
    """Return whether each statement commits by itself; a lost connection is not connected again."""
    is_lost = connection.invalidated or connection.closed
    return not is_lost and driver_of(connection).commits_itself(connection)


def is_autocommit(connection: Connection) -> bool:
    """Return whether each statement commits by itself, unless SQL has begun a transaction."""
    return connection._is_autocommit_isolation()  # noqa: SLF001


def _commit_in_pipeline(
    found: Watch, connection: Connection, answers: Answers, commit: Callable[[], None]
) -> None:
    """Commit and emit where only the answer to the COMMIT tells whether it was sound."""
    is_empty, has_returned, found.was_in_vain = False, False, True
    tags: list[bytes] = []
    with contextlib.ExitStack() as collecting:
        with Contained(found.doubt):
            is_empty = not driver_of(connection).has_begun(connection)
            tags = collecting.enter_context(answers)
        try:
            commit()
            has_returned = True
        finally:
            with Contained(found.lose):
                if tags[-1:] == [b"COMMIT"] or (has_returned and is_empty):
                    found.was_in_vain = False
                    found.committed()
                elif connection.invalidated or (has_returned and not tags):
                    found.unknown()  # the COMMIT of two phases is answered later
                else:
                    found.rolled_back()


def _is_left_open(connection: Connection) -> bool:
    """Return whether a transaction stays open, which a later user of the pool may commit."""
    return not connection.invalidated and driver_of(connection).leaves_open(connection)


def _listen(engine: Engine) -> None:
    """Listen to the connections of an engine; once for each engine."""
    if engine not in _engines:
        _engines.add(engine)
        event.listen(engine, "rollback", _rolled_back)
        event.listen(engine, "rollback_twophase", _rolled_back)
        event.listen(engine, "before_cursor_execute", _executes)
        event.listen(engine, "after_cursor_execute", _executed)
        event.listen(engine, "handle_error", _failed)


def _executes(connection: Connection, *_: object) -> None:
    found: Watch | None = connection.__dict__.get(_ATTRIBUTE)
    if found is not None:
        with Contained(found.lose):
            found.check_open(connection)


def _rolled_back(connection: Connection, *arguments: object) -> None:
    found: Watch | None = connection.__dict__.get(_ATTRIBUTE)
    if found is not None:
        with Contained(found.lose):
            if arguments[1:] != (True,):  # prepared, of `rollback_twophase`
                found.check_open(connection)
            if found and _is_left_open(connection):
                found.unknown()
            else:
                found.rolled_back()


def _executed(connection: Connection, cursor: Any, statement: str, *_: object) -> None:
    found: Watch | None = connection.__dict__.get(_ATTRIBUTE)
    if found is not None:
        found.statements += 1
        with Contained(found.doubt):
            _take_in(found, connection, cursor, statement)


def _take_in(found: Watch, connection: Connection, cursor: Any, statement: str) -> None:
    """Take in a statement, which may control the transaction: a savepoint, or one by hand."""
    if not control.may_control(statement):
        return
    statements = list(control.statements(statement))
    for each in statements if found else ():
        if each.verb == control.COMMIT and len(statements) > 1:
            found.unknown()
        elif each.verb == control.COMMIT:
            _take_in_commit(found, driver_of(connection).answer(cursor, each.verb))
        elif each.verb == control.RELEASE and not driver_of(connection).has_begun(connection):
            found.committed()  # in SQLite a savepoint can be the whole transaction
        else:  # PREPARE TRANSACTION too: where it was in vain, COMMIT PREPARED fails
            found.executed(each)
    if any(each.verb in control.ENDS for each in statements):
        found.is_blind = driver_of(connection).own_answers(connection) is not None


def _take_in_commit(found: Watch, tag: str | None) -> None:
    if tag == control.COMMIT:
        found.committed()
    elif tag == control.ROLLBACK:
        found.rolled_back()
    else:
        found.unknown()


def _failed(context: ExceptionContext) -> None:
    """Take in an error, which may have undone the whole transaction."""
    connection = context.connection
    found: Watch | None = None if connection is None else connection.__dict__.get(_ATTRIBUTE)
    if connection is not None and found and not context.is_disconnect:
        with Contained(found.doubt):
            driver = driver_of(connection)
            found.is_doubtful = found.is_doubtful or not driver.tells_its_state
            if driver.may_undo_all and found.has_begun and not driver.has_begun(connection):
                found.rolled_back()


class ConnectionTransaction(CountedTransaction):
    """The transaction of a Core connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._watch = watch(connection)
        super().__init__(self._watch)

    def missing(self) -> Exception:
        """See `CountedTransaction.missing`."""
        if self._connection.closed and is_autocommit(self._connection):
            return UnknownError()
        return Refused(BUSY) if self._is_alone else super().missing()

    @property
    def _is_alone(self) -> bool:
        """Whether a statement runs that is a transaction of its own."""
        connection = self._connection
        is_there = not (connection.closed or connection.invalidated)
        return is_there and driver_of(connection).is_alone(connection)

    def check(self) -> None:
        """See `Transaction.check`."""
        if self.is_committed:
            raise Refused(ENDED)
        root = self._connection.get_transaction()
        if root is None:
            raise self.missing()
        nested = self._connection.get_nested_transaction()
        if not root.is_active or (nested is not None and not nested.is_active):
            raise Refused(BROKEN)

    def insert(self, entry: Entry) -> None:
        """See `Transaction.insert`."""
        insert(self._connection, [entry], first=True)

    def after_commit(self, entry: Entry) -> None:
        """See `Transaction.after_commit`."""
        entry.settle()
        connection = self._connection
        if self.is_committed or commits_itself(connection):
            entry.emit()  # the work is done
        elif connection.in_transaction() or self._is_alone:
            self._watch.wait(connection, entry)
        else:
            raise self.missing()


def insert(connection: Connection, entries: Sequence[Entry], *, first: bool) -> None:
    """Insert events into the outbox of a connection that is in a transaction.

    Args:
        connection: the caller's.
        entries: of the same strictness.
        first: whether the INSERT may have to wait for other writers: nothing was flushed before.

    Raises:
        Refused: the events cannot be part of a transaction.
        RolledBackError: the transaction is undone; SQLAlchemy then refuses to commit it.
        Exception: of the driver; the transaction is as it was.
    """
    if connection.invalidated:
        raise UnknownError if is_autocommit(connection) else Refused(BROKEN)
    rows = [entry.row() for entry in entries]
    driver = driver_of(connection)
    driver.check(connection)
    try:
        with bounded(connection.engine.url, strict=entries[0].strict) as within:
            driver.insert(connection, Insertion(rows, within, first))
    except RolledBackError:
        watch(connection).rolled_back()
        connection.invalidate()
        raise
    except BaseException as error:
        # As SQLAlchemy does for its own statements. Otherwise the caller's rollback would raise an
        # error, or a commit without the event would succeed.
        if not isinstance(error, Exception) or _is_disconnect(connection, error):
            connection.invalidate(error)
        raise


def _is_disconnect(connection: Connection, error: Exception) -> bool:
    """Return whether an error has ended the connection to the database."""
    dialect: Any = connection.dialect
    raw: Any = connection.connection.dbapi_connection
    is_answer = isinstance(error, Refused)
    return not is_answer and dialect.is_disconnect(error, raw, None)


ADAPTERS: Final[Mapping[type, Callable[[Any], ConnectionTransaction]]] = {
    Connection: ConnectionTransaction
}
