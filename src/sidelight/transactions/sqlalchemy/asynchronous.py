"""SQLAlchemy's AsyncSession and AsyncConnection, by the synchronous twins that they wrap."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session

from sidelight.transactions.entry import Entry, Refused
from sidelight.transactions.sqlalchemy.connections import ConnectionTransaction
from sidelight.transactions.sqlalchemy.sessions import SessionTransaction


class AsyncSessionTransaction:
    """The transaction of an asynchronous session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session
        self._inner = SessionTransaction(session.sync_session)
        self.suspend_autoflush = self._inner.suspend_autoflush
        self.check = self._inner.check
        self.after_commit = self._inner.after_commit

    @property
    def needs_await(self) -> bool:
        """Whether no flush is pending that the event could wait for."""
        return self._inner.is_clean

    def insert(self, entry: Entry) -> None:
        """Insert an event into the outbox at the next flush, or at the commit."""
        self._inner.insert_later(entry)

    async def insert_awaited(self, entry: Entry) -> None:
        """Insert an event into the outbox."""
        await self._session.run_sync(lambda _: self._inner.insert(entry))


class AsyncConnectionTransaction:
    """The transaction of an asynchronous Core connection."""

    needs_await = True

    def __init__(self, connection: AsyncConnection) -> None:
        if connection.sync_connection is None:
            raise ValueError("the connection has not been started")
        self._connection = connection
        self._inner = ConnectionTransaction(connection.sync_connection)
        self.suspend_autoflush = self._inner.suspend_autoflush
        self.check = self._inner.check
        self.after_commit = self._inner.after_commit

    def insert(self, entry: Entry) -> None:  # noqa: ARG002  # the protocol
        """Refuse: the INSERT needs an await."""
        raise Refused("not awaited")

    async def insert_awaited(self, entry: Entry) -> None:
        """Insert an event into the outbox."""
        await self._connection.run_sync(lambda _: self._inner.insert(entry))


ADAPTERS: Final[Mapping[type, Callable[[Any], Any]]] = {
    AsyncSession: AsyncSessionTransaction,
    async_scoped_session: lambda registry: AsyncSessionTransaction(registry()),
    AsyncConnection: AsyncConnectionTransaction,
}
