"""psycopg's connections, synchronous and asynchronous."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final

from psycopg import AsyncConnection, AsyncCursor, Connection, Cursor
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from sidelight.transactions.entry import BUSY, ENDED, Entry, Refused, UndoneError, UnknownError
from sidelight.transactions.libpq import check_postgres
from sidelight.transactions.psycopg.overlays import AnyConnection, watch
from sidelight.transactions.psycopg.queries import OwnText
from sidelight.transactions.psycopg.turn import take_turn, turn_awaited
from sidelight.transactions.savepoint import failed_closed
from sidelight.transactions.statements import (
    PostgresInsert,
    Question,
    bounded,
    execute_all,
    execute_all_awaited,
)
from sidelight.transactions.transaction import CountedTransaction
from sidelight.transactions.work import End

#: During a statement the server does not tell whether a transaction is open; a turn tells.
_PERHAPS_OPEN: Final = (TransactionStatus.INTRANS, TransactionStatus.ACTIVE)
_WAITED_FOR: Final = (*_PERHAPS_OPEN, TransactionStatus.INERROR)


def execute(
    connection: Connection[Any],
    insert: PostgresInsert,
    within: float | None,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Insert in one turn, independently of the settings of the connection.

    Args:
        connection: the caller's.
        insert: to execute.
        within: seconds that it may take; None for no limit.
        check: called when the connection is free.

    Raises:
        Refused: the connection is busy.
        psycopg.Error: the server refuses one of them.
    """
    held: list[bool] = []
    try:
        take_turn(connection, within, held)
        check()
        # psycopg's own cursor, because the application's may log or count the statements; and never
        # prepared, because a message of several statements cannot be.
        with Cursor(connection, row_factory=tuple_row) as cursor, failed_closed(connection):

            def run(text: str) -> Any:
                connection.wait(cursor._execute_gen(OwnText(text.encode()), prepare=False))  # noqa: SLF001
                return cursor.fetchall() if isinstance(text, Question) else None

            execute_all(insert, run)
    finally:
        if held:
            connection.lock.release()


async def execute_awaited(
    connection: AsyncConnection[Any],
    insert: PostgresInsert,
    within: float | None,
    check: Callable[[], None] = lambda: None,
) -> None:
    """See `execute`."""
    async with (
        turn_awaited(connection, within),
        AsyncCursor(connection, row_factory=tuple_row) as cursor,
    ):
        check()

        async def run(text: str) -> Any:
            await connection.wait(cursor._execute_gen(OwnText(text.encode()), prepare=False))  # noqa: SLF001
            return await cursor.fetchall() if isinstance(text, Question) else None

        await execute_all_awaited(insert, run)


class _PsycopgTransaction(CountedTransaction):
    """The transaction of either kind of connection."""

    def __init__(self, connection: AnyConnection) -> None:
        self._target: Any = connection
        self._watch = watch(connection)
        self._exchanges = self._watch.exchanges
        self._work = self._watch.begun()
        self._unknown, self._alone = self._watch.unknown_ends, self._watch.alone
        super().__init__(self._watch)

    @property
    def is_committed(self) -> bool:
        """Whether the call has committed its work, at least in part.

        Raises:
            UndoneError: the work was rolled back.
            UnknownError: nothing tells how the transaction has ended.
        """
        self._watch.look(self._target)
        if not self.is_alone and self._watch.has_undone(self._work):
            raise UndoneError
        if super().is_committed:
            return True
        if self._watch.unknown_ends != self._unknown:
            raise UnknownError
        return self.is_alone and self.is_begun  # all but what has begun since

    @property
    def is_rolled_back(self) -> bool:
        """See `CountedTransaction.is_rolled_back`; false where other work has committed alone."""
        return super().is_rolled_back and not self.is_alone

    @property
    def place(self) -> object:
        """See `Transaction.place`."""
        return self._target

    @property
    def is_begun(self) -> bool:
        """See `Transaction.is_begun`."""
        pgconn = self._target.pgconn
        return pgconn.transaction_status in _WAITED_FOR or bool(pgconn.pipeline_status)

    @property
    def is_alone(self) -> bool:
        """See `CountedTransaction.is_alone`."""
        return self._watch.alone != self._alone and End.ALONE in self._work.written()

    @property
    def is_open(self) -> bool:
        """See `CountedTransaction.is_open`; any statement may be work."""
        has_failed = self._target.pgconn.transaction_status == TransactionStatus.INERROR
        return self._watch.exchanges != self._exchanges and self.is_begun and not has_failed

    def check(self) -> None:
        if self.is_committed:
            raise Refused(ENDED)
        if self._target.lock.locked() and self._watch.is_of_another:
            return  # the state is another's; it is checked again when the connection is free
        status = self._target.pgconn.transaction_status
        if status not in _WAITED_FOR and self.is_rolled_back:
            raise UndoneError
        if status == TransactionStatus.IDLE and self._watch.has_sent:
            raise Refused(BUSY)  # in a pipeline the status is that before what was sent
        check_postgres(self._target)
        if status not in _PERHAPS_OPEN:
            raise self.missing()

    def after_commit(self, entry: Entry) -> None:
        entry.settle()
        pgconn = self._target.pgconn
        if self.is_committed:
            entry.emit()  # the work is done
        elif pgconn.transaction_status in _WAITED_FOR or pgconn.pipeline_status:
            self._watch.wait(entry)
        elif self._target.autocommit and not self.is_rolled_back:
            entry.emit()
        else:
            raise self.missing()

    def _bounded(self, entry: Entry) -> AbstractContextManager[float | None]:
        return bounded(self._database, strict=entry.strict)

    def _insert(self, entry: Entry, within: float | None) -> PostgresInsert:
        rows, database = [entry.row()], self._database
        return PostgresInsert(rows, database=database, within=within, raw=self._target)

    @property
    def _database(self) -> Hashable:
        pgconn = self._target.pgconn
        return pgconn.host, pgconn.port, pgconn.db


class _Transaction(_PsycopgTransaction):
    def insert(self, entry: Entry) -> None:
        with self._bounded(entry) as within:
            execute(self._target, self._insert(entry, within), within, self.check)


class _AsyncTransaction(_PsycopgTransaction):
    @property
    def needs_await(self) -> bool:
        return True

    async def insert_awaited(self, entry: Entry) -> None:
        with self._bounded(entry) as within:
            await execute_awaited(self._target, self._insert(entry, within), within, self.check)


ADAPTERS: Final[Mapping[type, Callable[[Any], _PsycopgTransaction]]] = {
    Connection: _Transaction,
    AsyncConnection: _AsyncTransaction,
}
