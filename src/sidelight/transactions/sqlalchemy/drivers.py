"""The differences between the drivers under SQLAlchemy's connections.

The INSERT goes to the driver, past the listeners of the engine: the caller's log and
`before_cursor_execute` show what they showed without it.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Sequence
from typing import Any, Final, Protocol

from sqlalchemy import Engine
from sqlalchemy.engine import Connection

from sidelight.transactions.entry import Refused, Row
from sidelight.transactions.statements import (
    check_postgres,
    execute_all,
    execute_all_awaited,
    is_autocommit,
    postgres_insert,
    sqlite_insert,
)


class Driver(Protocol):
    """A driver, on a connection that SQLAlchemy has in a transaction."""

    def insert(
        self, connection: Connection, rows: Sequence[Row], *, within: float | None, first: bool
    ) -> None:
        """Insert rows into the outbox.

        Args:
            connection: the caller's.
            rows: the rows.
            within: seconds that the INSERT may take; None keeps the connection's own limit.
            first: whether it may have to wait for other writers: nothing was flushed before.

        Raises:
            Refused: the rows cannot be part of a transaction.
            Exception: of the driver; the transaction is as it was, if there was a limit.
        """
        ...

    def commits_itself(self, connection: Connection) -> bool:
        """Return whether each statement commits by itself, whatever SQLAlchemy says."""
        ...


def driver_of(connection: Connection) -> Driver:
    """Return the driver of a connection."""
    dialect = connection.dialect
    if dialect.name == "sqlite":
        return _SQLITE
    if dialect.name == "postgresql":
        return _POSTGRESQL.get(dialect.driver, _OTHER)
    return _OTHER


class _Sqlite:
    """sqlite3, and aiosqlite behind SQLAlchemy's adapter."""

    def __init__(self) -> None:
        self._files: weakref.WeakKeyDictionary[Engine, str] = weakref.WeakKeyDictionary()

    def insert(
        self, connection: Connection, rows: Sequence[Row], *, within: float | None, first: bool
    ) -> None:
        """See `Driver.insert`."""
        if self.commits_itself(connection):
            raise Refused("autocommit")
        with contextlib.closing(connection.connection.cursor()) as cursor:
            path = self._files.get(connection.engine)
            if path is None:
                cursor.execute("SELECT file FROM pragma_database_list WHERE name = 'main'")
                path = str((cursor.fetchone() or [""])[0])
                self._files[connection.engine] = path
            if not path:  # in memory
                raise Refused("unsupported database")
            sqlite_insert(cursor, rows, path, within=within if first else None)

    def commits_itself(self, connection: Connection) -> bool:
        """See `Driver.commits_itself`."""
        return is_autocommit(connection.connection.driver_connection)


class _Psycopg:
    """psycopg, synchronous and asynchronous, and psycopg2: one message takes several statements."""

    def insert(
        self,
        connection: Connection,
        rows: Sequence[Row],
        *,
        within: float | None,
        first: bool,  # noqa: ARG002  # the protocol
    ) -> None:
        """See `Driver.insert`."""
        pooled = connection.connection
        check_postgres(pooled.driver_connection)
        with contextlib.closing(pooled.cursor()) as cursor:
            execute_all(postgres_insert(rows, within=within), cursor.execute)

    def commits_itself(self, connection: Connection) -> bool:
        """See `Driver.commits_itself`."""
        raw: Any = connection.connection.driver_connection
        return bool(raw.autocommit) and raw.info.transaction_status == 0


class _Asyncpg:
    """asyncpg; SQLAlchemy prepares each statement, so the message goes to asyncpg itself."""

    def insert(
        self,
        connection: Connection,
        rows: Sequence[Row],
        *,
        within: float | None,
        first: bool,  # noqa: ARG002  # the protocol
    ) -> None:
        """See `Driver.insert`."""
        if self.commits_itself(connection):
            raise Refused("autocommit")
        pooled = connection.connection
        adapter: Any = pooled.dbapi_connection
        if not adapter.driver_connection.is_in_transaction():
            # SQLAlchemy delays the BEGIN until there is something to execute.
            with contextlib.closing(pooled.cursor()) as cursor:
                cursor.execute("SELECT 1")
        statements = postgres_insert(rows, within=within)
        taking_turns = adapter._execute_mutex  # noqa: SLF001  # as the statements of other tasks

        async def send(raw: Any) -> None:
            async with taking_turns:
                await execute_all_awaited(statements, raw.execute)

        adapter.run_async(send)

    def commits_itself(self, connection: Connection) -> bool:
        """See `Driver.commits_itself`."""
        adapter: Any = connection.connection.dbapi_connection
        return adapter.autocommit and not adapter.driver_connection.is_in_transaction()


class _Other:
    """All other drivers: they have no outbox, but commits."""

    def insert(self, *_: object, **__: object) -> None:
        """See `Driver.insert`."""
        raise Refused("unsupported database")

    def commits_itself(self, connection: Connection) -> bool:
        """See `Driver.commits_itself`."""
        return connection._is_autocommit_isolation()  # noqa: SLF001


_SQLITE: Final = _Sqlite()
_OTHER: Final = _Other()
_POSTGRESQL: Final[dict[str, Driver]] = {
    **dict.fromkeys(("psycopg", "psycopg2", "psycopg_async"), _Psycopg()),
    "asyncpg": _Asyncpg(),
}
