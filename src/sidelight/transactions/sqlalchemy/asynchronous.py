"""SQLAlchemy's AsyncSession and AsyncConnection, by the synchronous twins that they wrap."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session

from sidelight.transactions.entry import Entry
from sidelight.transactions.replaced import in_scope
from sidelight.transactions.sqlalchemy.connections import ConnectionTransaction
from sidelight.transactions.sqlalchemy.sessions import SessionTransaction
from sidelight.transactions.transaction import Transaction


class AsyncSessionTransaction(SessionTransaction):
    """The transaction of an asynchronous session."""

    def __init__(self, session: AsyncSession) -> None:
        super().__init__(session.sync_session)
        self._async = session

    @property
    def needs_await(self) -> bool:
        """Whether no flush is pending that the event could wait for."""
        return self.is_clean

    def insert(self, entry: Entry) -> None:
        """Insert an event into the outbox at the next flush, or at the commit."""
        self.insert_later(entry)

    async def insert_awaited(self, entry: Entry) -> None:
        """See `Transaction.insert_awaited`."""
        insert = super().insert
        await self._async.run_sync(lambda _: insert(entry))


class AsyncConnectionTransaction(ConnectionTransaction):
    """The transaction of an asynchronous Core connection."""

    @property
    def needs_await(self) -> bool:
        """See `Transaction.needs_await`."""
        return True

    def __init__(self, connection: AsyncConnection) -> None:
        if connection.sync_connection is None:
            raise ValueError("the connection has not been started")
        super().__init__(connection.sync_connection)
        self._async = connection

    def insert(self, entry: Entry) -> None:
        """See `Transaction.insert`."""
        Transaction.insert(self, entry)

    async def insert_awaited(self, entry: Entry) -> None:
        """See `Transaction.insert_awaited`."""
        insert = super().insert
        await self._async.run_sync(lambda _: insert(entry))


ADAPTERS: Final[Mapping[type, Callable[[Any], Any]]] = {
    AsyncSession: AsyncSessionTransaction,
    async_scoped_session: partial(in_scope, AsyncSessionTransaction),
    AsyncConnection: AsyncConnectionTransaction,
}
