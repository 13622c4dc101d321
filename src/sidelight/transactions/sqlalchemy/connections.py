"""SQLAlchemy's Connection: the INSERT that the Session shares, and the wait for a commit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy.engine import Connection

from sidelight.host import is_interrupt
from sidelight.transactions.entry import (
    BROKEN,
    BUSY,
    ENDED,
    Entry,
    Refused,
    RolledBackError,
    UndoneError,
    UnknownError,
)
from sidelight.transactions.sqlalchemy.drivers import driver_of
from sidelight.transactions.sqlalchemy.protocol import Insertion
from sidelight.transactions.sqlalchemy.watch import (
    ConnectionWork,
    commits_itself,
    is_autocommit,
    watch,
)
from sidelight.transactions.statements import bounded
from sidelight.transactions.transaction import CountedTransaction
from sidelight.transactions.work import End


class ConnectionTransaction(CountedTransaction):
    """The transaction of a Core connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._watch = watch(connection)
        self._work = ConnectionWork(connection)
        super().__init__(self._watch)

    def missing(self) -> Exception:
        """See `CountedTransaction.missing`."""
        if self.is_alone:
            return Refused("autocommit" if is_autocommit(self._connection) else "no transaction")
        if self._connection.closed and is_autocommit(self._connection):
            return UnknownError()
        return Refused(BUSY) if self._is_in_a_statement else super().missing()

    @property
    def is_committed(self) -> bool:
        """Whether the function has committed its work.

        Raises:
            UnknownError: nothing tells whether it has.
            UndoneError: the work was rolled back.
        """
        self._watch.check_open(self._connection)
        ends = self._work.ends()
        if End.UNKNOWN in ends or ends >= {End.ALONE, End.OPEN}:  # a part of the work is committed
            raise UnknownError
        if ends == {End.UNDONE}:
            raise UndoneError
        return End.COMMITTED in ends if ends else super().is_committed

    @property
    def place(self) -> object:
        """See `Transaction.place`."""
        return self._connection

    @property
    def is_begun(self) -> bool:
        """See `Transaction.is_begun`."""
        return self._connection.in_transaction() and not commits_itself(self._connection)

    @property
    def is_alone(self) -> bool:
        """See `CountedTransaction.is_alone`."""
        return End.ALONE in self._work.ends()

    @property
    def is_open(self) -> bool:
        """See `CountedTransaction.is_open`."""
        return End.OPEN in self._work.written() and not self._connection.invalidated

    @property
    def _is_in_transaction(self) -> bool:
        """Whether a transaction is open; in a listener of "begin" SQLAlchemy has none so far."""
        return self._connection.in_transaction() or End.OPEN in self._work.ends()

    @property
    def _is_in_a_statement(self) -> bool:
        """Whether a statement runs that is a transaction of its own."""
        connection = self._connection
        is_there = not (connection.closed or connection.invalidated)
        return is_there and driver_of(connection).is_alone(connection)

    def check(self) -> None:
        """See `Transaction.check`."""
        if self.is_committed:
            raise Refused(ENDED)
        if not self._is_in_transaction or self.is_alone:
            raise self.missing()
        connection = self._connection
        parts = connection.get_transaction(), connection.get_nested_transaction()
        if any(part is not None and not part.is_active for part in parts):
            raise Refused(BROKEN)

    def insert(self, entry: Entry) -> None:
        """See `Transaction.insert`."""
        insert(self._connection, [entry], first=True)

    def after_commit(self, entry: Entry) -> None:
        """See `Transaction.after_commit`."""
        entry.settle()
        connection = self._connection
        if self.is_committed or self.is_alone or commits_itself(connection):
            entry.emit()
        elif self._is_in_transaction or self._is_in_a_statement:
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
        if not isinstance(error, Exception) or _is_broken(connection, error):
            connection.invalidate(error)
        raise


def _is_broken(connection: Connection, error: Exception) -> bool:
    """Return whether an error has ended the connection, or an interrupt the transaction."""
    if isinstance(error, Refused):
        return False
    if is_interrupt(error, ran="library"):
        return not driver_of(connection).is_sound(connection, ask=True)
    dialect: Any = connection.dialect
    raw: Any = connection.connection.dbapi_connection
    return bool(dialect.is_disconnect(error, raw, None))


ADAPTERS: Final[Mapping[type, Callable[[Any], ConnectionTransaction]]] = {
    Connection: ConnectionTransaction
}
