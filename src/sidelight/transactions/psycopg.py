"""psycopg's connections, synchronous and asynchronous."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Final

from psycopg import AsyncConnection, AsyncCursor, Connection, Cursor
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from sidelight.emission import EMITTER
from sidelight.transactions.entry import ENDED, Entry, Refused
from sidelight.transactions.psycopg_watch import AnyConnection, watch
from sidelight.transactions.statements import BACK, check_postgres, postgres_insert

_OPEN: Final = (TransactionStatus.INTRANS, TransactionStatus.INERROR)


def connection(target: Connection[Any]) -> PsycopgTransaction:
    """Look at a connection's transaction."""
    return PsycopgTransaction(target)


def async_connection(target: AsyncConnection[Any]) -> AsyncPsycopgTransaction:
    """Look at an asynchronous connection's transaction."""
    return AsyncPsycopgTransaction(target)


class _Either:
    """What both kinds of connection have in common."""

    def __init__(self, target: AnyConnection) -> None:
        self._watched = watch(target)
        self._commits = self._watched.commits

    def hush(self) -> Callable[[], object]:
        """Do nothing: a connection flushes nothing."""
        return _nothing

    def _check(self, target: AnyConnection) -> None:
        if self._watched.commits != self._commits:
            raise Refused(ENDED)
        check_postgres(target)
        if target.pgconn.transaction_status != TransactionStatus.INTRANS:
            raise Refused("no transaction")

    def _after_commit(self, target: AnyConnection, entry: Entry) -> None:
        entry.settle()
        if self._watched.commits != self._commits:
            entry.emit()  # the work is done
        elif target.pgconn.transaction_status in _OPEN:
            self._watched.wait(entry)
        elif target.autocommit:
            entry.emit()
        else:
            raise Refused("no transaction")


class PsycopgTransaction(_Either):
    """The transaction of a connection."""

    awaited = False

    def __init__(self, target: Connection[Any]) -> None:
        super().__init__(target)
        self._connection = target

    def check(self) -> None:
        """See `Transaction.check`."""
        self._check(self._connection)

    def insert(self, entry: Entry) -> None:
        """Put an event into the outbox."""
        within = None if entry.strict else EMITTER.deadline
        # psycopg's own cursor: the application's may log or count what it executes.
        with Cursor(self._connection, row_factory=tuple_row) as cursor:
            try:
                cursor.execute(postgres_insert([entry.row()], within=within).encode())
            except BaseException:
                if within is not None:
                    with contextlib.suppress(Exception):  # the connection is gone
                        cursor.execute(BACK.encode())
                raise

    async def insert_awaited(self, entry: Entry) -> None:
        """Put an event into the outbox."""
        self.insert(entry)

    def after_commit(self, entry: Entry) -> None:
        """Emit an event once the transaction has committed."""
        self._after_commit(self._connection, entry)


class AsyncPsycopgTransaction(_Either):
    """The transaction of an asynchronous connection."""

    awaited = True

    def __init__(self, target: AsyncConnection[Any]) -> None:
        super().__init__(target)
        self._connection = target

    def check(self) -> None:
        """See `Transaction.check`."""
        self._check(self._connection)

    def insert(self, entry: Entry) -> None:  # noqa: ARG002  # the transactions' common face
        """Refuse: this would have to be awaited."""
        raise Refused("not awaited")

    async def insert_awaited(self, entry: Entry) -> None:
        """Put an event into the outbox."""
        within = None if entry.strict else EMITTER.deadline
        async with AsyncCursor(self._connection, row_factory=tuple_row) as cursor:
            try:
                await cursor.execute(postgres_insert([entry.row()], within=within).encode())
            except BaseException:
                if within is not None:
                    with contextlib.suppress(Exception):  # the connection is gone
                        await cursor.execute(BACK.encode())
                raise

    def after_commit(self, entry: Entry) -> None:
        """Emit an event once the transaction has committed."""
        self._after_commit(self._connection, entry)


def _nothing() -> None:
    pass
