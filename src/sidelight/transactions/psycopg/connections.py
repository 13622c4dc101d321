"""psycopg's connections, synchronous and asynchronous."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final

from psycopg import AsyncConnection, AsyncCursor, Connection, Cursor
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from sidelight.transactions.entry import ENDED, Entry, Refused
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
from sidelight.transactions.transaction import CountedTransaction

_OPEN: Final = (TransactionStatus.INTRANS, TransactionStatus.INERROR)


def execute(connection: Connection[Any], statements: Statements) -> None:
    """Execute statements, independently of the settings of the connection.

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
    """Execute statements, independently of the settings of the connection.

    Raises:
        psycopg.Error: the server refuses one of them.
    """
    async with AsyncCursor(connection, row_factory=tuple_row) as cursor:

        async def run(text: str) -> Any:
            await cursor.execute(OwnText(text.encode()), prepare=False)
            return await cursor.fetchall() if isinstance(text, Question) else None

        await execute_all_awaited(statements, run)


class _PsycopgTransaction(CountedTransaction):
    """The transaction of either kind of connection."""

    def __init__(self, connection: AnyConnection) -> None:
        self._target: Any = connection
        self._watch = watch(connection)
        super().__init__(self._watch)

    def check(self) -> None:
        if self.is_committed:
            raise Refused(ENDED)
        check_postgres(self._target)
        if self._target.pgconn.transaction_status != TransactionStatus.INTRANS:
            raise self.missing()

    def after_commit(self, entry: Entry) -> None:
        entry.settle()
        pgconn = self._target.pgconn
        if self.is_committed:
            entry.emit()  # the work is done
        elif pgconn.transaction_status in _OPEN or pgconn.pipeline_status:
            self._watch.wait(entry)
        elif self._target.autocommit and not self.is_rolled_back:
            entry.emit()
        else:
            raise self.missing()

    def _bounded(self, entry: Entry) -> AbstractContextManager[float | None]:
        return bounded(self._database, strict=entry.strict)

    def _statements(self, entry: Entry, within: float | None) -> Statements:
        return postgres_insert([entry.row()], database=self._database, within=within)

    @property
    def _database(self) -> Hashable:
        pgconn = self._target.pgconn
        return pgconn.host, pgconn.port, pgconn.db


class _Transaction(_PsycopgTransaction):
    def insert(self, entry: Entry) -> None:
        with self._bounded(entry) as within:
            execute(self._target, self._statements(entry, within))


class _AsyncTransaction(_PsycopgTransaction):
    @property
    def needs_await(self) -> bool:
        return True

    async def insert_awaited(self, entry: Entry) -> None:
        with self._bounded(entry) as within:
            await execute_awaited(self._target, self._statements(entry, within))


ADAPTERS: Final[Mapping[type, Callable[[Any], _PsycopgTransaction]]] = {
    Connection: _Transaction,
    AsyncConnection: _AsyncTransaction,
}
