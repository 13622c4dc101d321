"""SQLAlchemy's AsyncSession and AsyncConnection, by the synchronous ones that they are made on."""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from sidelight.transactions.entry import Entry, Refused
from sidelight.transactions.sqlalchemy_core import ConnectionTransaction
from sidelight.transactions.sqlalchemy_orm import SessionTransactionOf, session


def async_session(target: AsyncSession) -> AsyncSessionTransaction:
    """Look at an asynchronous session's transaction."""
    return AsyncSessionTransaction(target)


def async_scoped(target: Any) -> AsyncSessionTransaction:
    """Look at the transaction of the session that a registry has for this task."""
    return AsyncSessionTransaction(target())


def async_connection(target: AsyncConnection) -> AsyncConnectionTransaction:
    """Look at an asynchronous connection's transaction."""
    return AsyncConnectionTransaction(target)


class AsyncSessionTransaction:
    """The transaction of an asynchronous session."""

    def __init__(self, target: AsyncSession) -> None:
        self._session = target
        self._inner: SessionTransactionOf = session(target.sync_session)
        self.hush = self._inner.hush
        self.check = self._inner.check
        self.after_commit = self._inner.after_commit

    @property
    def awaited(self) -> bool:
        """Whether the event need not wait for a flush."""
        return self._inner.is_clean

    def insert(self, entry: Entry) -> None:
        """Put an event into the outbox at the next flush, or at the commit."""
        self._inner.insert_later(entry)

    async def insert_awaited(self, entry: Entry) -> None:
        """Put an event into the outbox."""
        await self._session.run_sync(lambda _: self._inner.insert(entry))


class AsyncConnectionTransaction:
    """The transaction of an asynchronous Core connection."""

    awaited = True

    def __init__(self, target: AsyncConnection) -> None:
        if target.sync_connection is None:
            raise ValueError("the connection has not been started")
        self._connection = target
        self._inner = ConnectionTransaction(target.sync_connection)
        self.hush = self._inner.hush
        self.check = self._inner.check
        self.after_commit = self._inner.after_commit

    def insert(self, entry: Entry) -> None:  # noqa: ARG002  # the transactions' common face
        """Refuse: this would have to be awaited."""
        raise Refused("not awaited")

    async def insert_awaited(self, entry: Entry) -> None:
        """Put an event into the outbox."""
        await self._connection.run_sync(lambda _: self._inner.insert(entry))
