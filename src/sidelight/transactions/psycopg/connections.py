"""psycopg's connections, synchronous and asynchronous."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final

from psycopg import AsyncConnection, AsyncCursor, Connection, Cursor
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from sidelight.transactions.entry import ENDED, Entry, Refused, UndoneError, keep_settings
from sidelight.transactions.psycopg.watch import AnyConnection, OwnText, watch
from sidelight.transactions.statements import (
    Question,
    Statements,
    bounded,
    check_postgres,
    execute_all,
    execute_all_awaited,
    postgres_insert,
)

_OPEN: Final = (TransactionStatus.INTRANS, TransactionStatus.INERROR)


def execute(connection: Connection[Any], statements: Statements) -> None:
    """Execute statements, whatever the connection is set to.

    Raises:
        psycopg.Error: the server refuses one of them.
    """
    # psycopg's own cursor, because the application's may log or count the statements; and never
    # prepared, because a message of several statements cannot be.
    with Cursor(connection, row_factory=tuple_row) as cursor:

        def run(text: str) -> Any:
            cursor.execute(OwnText(text.encode()), prepare=False)
            return cursor.fetchall() if isinstance(text, Question) else None

        execute_all(statements, run)


async def execute_awaited(connection: AsyncConnection[Any], statements: Statements) -> None:
    """Execute statements, whatever the connection is set to.

    Raises:
        psycopg.Error: the server refuses one of them.
    """
    async with AsyncCursor(connection, row_factory=tuple_row) as cursor:

        async def run(text: str) -> Any:
            await cursor.execute(OwnText(text.encode()), prepare=False)
            return await cursor.fetchall() if isinstance(text, Question) else None

        await execute_all_awaited(statements, run)


class _PsycopgTransaction:
    """The transaction of either kind of connection."""

    def __init__(self, connection: AnyConnection) -> None:
        self._target = connection
        self._watch = watch(connection)
        self._commits, self._rollbacks = self._watch.commits, self._watch.rollbacks

    def suspend_autoflush(self) -> Callable[[], object]:
        """Do nothing: a connection flushes nothing."""
        return keep_settings

    def check(self) -> None:
        """See `Transaction.check`."""
        if self._watch.commits != self._commits:
            raise Refused(ENDED)
        check_postgres(self._target)
        if self._target.pgconn.transaction_status != TransactionStatus.INTRANS:
            raise self._no_transaction()

    def after_commit(self, entry: Entry) -> None:
        """Emit an event once the transaction has committed."""
        entry.settle()
        pgconn = self._target.pgconn
        if self._watch.commits != self._commits:
            entry.emit()  # the work is done
        elif pgconn.transaction_status in _OPEN or pgconn.pipeline_status:
            self._watch.wait(entry)
        elif self._target.autocommit and self._watch.rollbacks == self._rollbacks:
            entry.emit()
        else:
            raise self._no_transaction()

    def _bounded(self, entry: Entry) -> AbstractContextManager[float | None]:
        return bounded(self._database, strict=entry.strict)

    def _statements(self, entry: Entry, within: float | None) -> Statements:
        return postgres_insert([entry.row()], database=self._database, within=within)

    @property
    def _database(self) -> Hashable:
        pgconn = self._target.pgconn
        return pgconn.host, pgconn.port, pgconn.db

    def _no_transaction(self) -> Exception:
        undone = self._watch.rollbacks != self._rollbacks
        return UndoneError() if undone else Refused("no transaction")


class ConnectionTransaction(_PsycopgTransaction):
    """The transaction of a connection."""

    needs_await = False

    def __init__(self, connection: Connection[Any]) -> None:
        super().__init__(connection)
        self._connection = connection

    def insert(self, entry: Entry) -> None:
        """Insert an event into the outbox."""
        with self._bounded(entry) as within:
            execute(self._connection, self._statements(entry, within))

    async def insert_awaited(self, entry: Entry) -> None:
        """Insert an event into the outbox."""
        self.insert(entry)


class AsyncConnectionTransaction(_PsycopgTransaction):
    """The transaction of an asynchronous connection."""

    needs_await = True

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        super().__init__(connection)
        self._connection = connection

    def insert(self, entry: Entry) -> None:  # noqa: ARG002  # the protocol
        """Refuse: the INSERT needs an await."""
        raise Refused("not awaited")

    async def insert_awaited(self, entry: Entry) -> None:
        """Insert an event into the outbox."""
        with self._bounded(entry) as within:
            await execute_awaited(self._connection, self._statements(entry, within))


ADAPTERS: Final[Mapping[type, Callable[[Any], _PsycopgTransaction]]] = {
    Connection: ConnectionTransaction,
    AsyncConnection: AsyncConnectionTransaction,
}
