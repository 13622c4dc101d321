"""The differences between the drivers under SQLAlchemy's connections.

The INSERT goes to the driver, past the listeners of the engine: the caller's log and
`before_cursor_execute` show what they showed without it.
"""

from __future__ import annotations

import contextlib
import weakref
from typing import Any, Final

from sqlalchemy import Engine
from sqlalchemy.engine import Connection

from sidelight.transactions import control
from sidelight.transactions.control import Dialect
from sidelight.transactions.entry import BUSY, Entry, Refused
from sidelight.transactions.libpq import BEGUN, Status, check_postgres
from sidelight.transactions.sqlalchemy import asyncpg_turn
from sidelight.transactions.sqlalchemy.aiosqlite_turn import run_in_turn
from sidelight.transactions.sqlalchemy.asyncpg_turn import is_busy, runs_past_sqlalchemy
from sidelight.transactions.sqlalchemy.protocol import Answers, Driver, Insertion
from sidelight.transactions.sqlite import is_autocommit, sqlite_insert
from sidelight.transactions.statements import (
    PostgresInsert,
    Question,
    execute_all,
    execute_all_awaited,
    executing,
)
from sidelight.transactions.turns import in_turn


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

    tells_its_state = True
    may_undo_all = True

    def __init__(self) -> None:
        self._files: weakref.WeakKeyDictionary[Engine, str] = weakref.WeakKeyDictionary()

    def check(self, connection: Connection) -> None:
        if self.commits_itself(connection):
            raise Refused("autocommit")

    def insert(self, connection: Connection, insertion: Insertion) -> None:
        adapter: Any = connection.connection.dbapi_connection

        def insert(raw: Any) -> None:
            self._insert(connection.engine, raw, insertion)

        if connection.dialect.is_async:
            adapter.run_async(lambda raw: run_in_turn(raw, insert, insertion.within))
        else:
            in_turn(_raw(connection), insertion.within, lambda: insert(adapter))

    def _insert(self, engine: Engine, raw: Any, insertion: Insertion) -> None:
        with contextlib.closing(raw.cursor()) as cursor:
            path = self._files.get(engine)
            if path is None:
                cursor.execute("SELECT file FROM pragma_database_list WHERE name = 'main'")
                path = str((cursor.fetchone() or [""])[0])
                self._files[engine] = path
            if not path:  # in memory
                raise Refused("unsupported database")
            within = insertion.within if insertion.first else None
            sqlite_insert(cursor, raw, insertion.rows, path, within=within)

    def commits_itself(self, connection: Connection) -> bool:
        return is_autocommit(_raw(connection))

    def commits_alone(self, connection: Connection) -> bool:
        return self.commits_itself(connection)

    def leaves_open(self, connection: Connection) -> bool:
        return getattr(_raw(connection), "autocommit", False) is True and self.has_begun(connection)

    def is_alone(self, _: Connection) -> bool:
        return False

    def takes(self, *_: object) -> bool:
        return False

    def has_begun(self, connection: Connection) -> bool:
        return bool(_raw(connection).in_transaction)

    def is_sound(self, connection: Connection, *, ask: bool) -> bool:  # noqa: ARG002  # the protocol
        # An error undoes the statement, or the whole transaction.
        return True

    def ends_at_failed_commit(self, connection: Connection) -> bool:
        # The commit of a locked database can be repeated.
        return not self.has_begun(connection)

    def is_still_open(self, connection: Connection, _: BaseException | None) -> bool | None:
        is_open = self.has_begun(connection)
        # The thread of aiosqlite may go on with the COMMIT, and with autocommit=False the next
        # transaction begins at once.
        is_doubtful = (
            connection.dialect.is_async or getattr(_raw(connection), "autocommit", 1) is False
        )
        return None if is_open and is_doubtful else is_open

    def own_answers(self, _: Connection) -> Answers | None:
        return None

    def dialect(self, _: Connection) -> Dialect:
        return control.SQLITE

    def answer(self, cursor: Any, verb: str) -> str | None:  # noqa: ARG002  # the protocol
        # There are no tags, but a failed commit raises an error.
        return verb


class _Server:
    """A database whose failed commit ends the transaction."""

    tells_its_state = True
    may_undo_all = False

    def is_alone(self, connection: Connection) -> bool:  # noqa: ARG002  # the protocol
        return False

    def commits_alone(self, connection: Connection) -> bool:  # noqa: ARG002  # the protocol
        return True

    def takes(self, connection: Connection, entry: Entry) -> bool:
        is_alone = self.is_alone(connection)
        if is_alone:
            entry.forget()  # most drivers do not tell how the statement ends
        return is_alone

    def ends_at_failed_commit(self, _: Connection) -> bool:
        return True

    def is_still_open(self, _connection: Connection, _error: BaseException | None) -> bool | None:
        return None

    def own_answers(self, connection: Connection) -> Answers | None:  # noqa: ARG002  # the protocol
        return None


class _Psycopg2(_Server):
    """psycopg2: one message takes several statements."""

    def check(self, connection: Connection) -> None:
        check_postgres(_raw(connection))
        if self.commits_itself(connection):
            raise Refused("no transaction")

    def insert(self, connection: Connection, insertion: Insertion) -> None:
        raw = _raw(connection)

        def insert() -> None:
            with contextlib.closing(connection.connection.cursor()) as cursor:
                execute_all(_insert(connection, insertion, raw), executing(cursor))

        in_turn(raw, insertion.within, insert)

    def commits_itself(self, connection: Connection) -> bool:
        # After a COMMIT or a ROLLBACK in SQL psycopg2 sends no BEGIN until its own commit.
        raw = _raw(connection)
        return _status(connection) == Status.IDLE and (raw.autocommit or raw.status == BEGUN)

    def leaves_open(self, connection: Connection) -> bool:
        return bool(_raw(connection).autocommit) and self.has_begun(connection)

    def is_alone(self, connection: Connection) -> bool:
        return bool(_raw(connection).autocommit) and _status(connection) == Status.ACTIVE

    def has_begun(self, connection: Connection) -> bool:
        return _status(connection) != Status.IDLE

    def is_sound(self, connection: Connection, *, ask: bool) -> bool:  # noqa: ARG002  # the protocol
        return _status(connection) in {Status.IDLE, Status.INTRANS}

    def is_still_open(self, connection: Connection, error: BaseException | None) -> bool | None:  # noqa: ARG002  # the protocol
        return _OPEN.get(_status(connection))

    def dialect(self, connection: Connection) -> Dialect:
        return control.in_postgresql(_raw(connection).info.parameter_status("server_encoding"))

    def answer(self, cursor: Any, verb: str) -> str | None:  # noqa: ARG002  # the protocol
        own = getattr(cursor, "_cursor", cursor)  # below the adapter of an asynchronous driver
        tag: str | None = getattr(own, "statusmessage", None)
        return tag


class _Psycopg(_Psycopg2):
    """psycopg, synchronous and asynchronous."""

    def insert(self, connection: Connection, insertion: Insertion) -> None:
        from sidelight.transactions.psycopg import connections  # noqa: PLC0415  # needs psycopg

        pooled: Any = connection.connection
        insert = _insert(connection, insertion, _raw(connection))
        if connection.dialect.is_async:
            pooled.dbapi_connection.run_async(
                lambda raw: connections.execute_awaited(raw, insert, insertion.within)
            )
        else:
            connections.execute(_raw(connection), insert, insertion.within)

    def commits_itself(self, connection: Connection) -> bool:
        return bool(_raw(connection).autocommit) and _status(connection) == Status.IDLE

    def commits_alone(self, connection: Connection) -> bool:
        return not _raw(connection).pgconn.pipeline_status

    def leaves_open(self, connection: Connection) -> bool:  # noqa: ARG002  # the protocol
        return False

    def is_still_open(self, connection: Connection, error: BaseException | None) -> bool | None:
        is_open = super().is_still_open(connection, error)
        # Before an interrupt that ends the connection psycopg cancels the COMMIT.
        return is_open if is_open or error is None else None

    def own_answers(self, connection: Connection) -> Answers | None:
        from sidelight.transactions.psycopg.pipelines import own_answers  # noqa: PLC0415

        raw = None if connection.invalidated else _raw(connection)
        return own_answers(raw) if raw is not None and raw.pgconn.pipeline_status else None

    def takes(self, connection: Connection, entry: Entry) -> bool:
        from sidelight.transactions.psycopg.overlays import watch  # noqa: PLC0415  # needs psycopg

        is_alone = self.is_alone(connection)
        if is_alone:
            watch(_raw(connection)).wait(entry)
        return is_alone


class _Asyncpg(_Server):
    """asyncpg; SQLAlchemy prepares each statement, so the message goes to asyncpg itself."""

    def check(self, connection: Connection) -> None:
        adapter: Any = connection.connection.dbapi_connection
        if runs_past_sqlalchemy(adapter):
            raise Refused(BUSY)
        if self.commits_itself(connection):
            raise Refused("autocommit" if adapter.autocommit else "no transaction")

    def insert(self, connection: Connection, insertion: Insertion) -> None:
        pooled = connection.connection
        adapter: Any = pooled.dbapi_connection
        if not adapter.driver_connection.is_in_transaction():
            # SQLAlchemy delays the BEGIN until there is something to execute.
            with contextlib.closing(pooled.cursor()) as cursor:
                cursor.execute("SELECT 1")
        insert = _insert(connection, insertion)

        async def send(raw: Any) -> None:
            async def execute(text: str) -> Any:
                try:
                    return await (raw.fetch if isinstance(text, Question) else raw.execute)(
                        str(text)
                    )
                except Exception as error:
                    if "another operation is" in str(error):  # COPY; asyncpg has sent nothing
                        raise Refused(BUSY) from error
                    raise

            async with asyncpg_turn.turn(adapter, insertion.within):
                await execute_all_awaited(insert, execute)

        adapter.run_async(send)

    def commits_itself(self, connection: Connection) -> bool:
        # After a COMMIT or a ROLLBACK in SQL the adapter begins nothing until its own commit.
        adapter: Any = connection.connection.dbapi_connection
        commits = adapter.autocommit or adapter._transaction is not None  # noqa: SLF001
        return bool(commits and not self.has_begun(connection) and not self.is_alone(connection))

    def is_alone(self, connection: Connection) -> bool:
        adapter: Any = connection.connection.dbapi_connection
        return not self.has_begun(connection) and runs_past_sqlalchemy(adapter)

    def leaves_open(self, connection: Connection) -> bool:
        adapter: Any = connection.connection.dbapi_connection
        return bool(adapter.autocommit) and self.has_begun(connection)

    def has_begun(self, connection: Connection) -> bool:
        adapter: Any = connection.connection.dbapi_connection
        return bool(adapter.driver_connection.is_in_transaction())

    def is_still_open(self, connection: Connection, _: BaseException | None) -> bool | None:
        adapter: Any = connection.connection.dbapi_connection
        return None if is_busy(adapter) else self.has_begun(connection)

    def is_sound(self, connection: Connection, *, ask: bool) -> bool:
        # Asyncpg does not tell a failed transaction from another.
        if not ask or not self.has_begun(connection):
            return True
        try:
            adapter: Any = connection.connection.dbapi_connection
            adapter.run_async(lambda raw: raw.execute("SELECT 1"))
        except Exception:  # noqa: BLE001  # the server refuses each statement of a failed transaction
            return False
        return True

    def dialect(self, connection: Connection) -> Dialect:
        settings = _raw(connection).get_settings()
        return control.in_postgresql(getattr(settings, "server_encoding", None))

    def answer(self, cursor: Any, verb: str) -> str | None:  # noqa: ARG002  # the protocol
        return None


class _Other(_Server):
    """All other drivers: they have no outbox, but commits."""

    tells_its_state = False

    def check(self, _: Connection) -> None:
        raise Refused("unsupported database")

    def insert(self, *_: object) -> None:
        """Insert nothing: `check` refuses."""

    def commits_itself(self, connection: Connection) -> bool:
        return connection._is_autocommit_isolation()  # noqa: SLF001

    def leaves_open(self, _: Connection) -> bool:
        return False

    def has_begun(self, connection: Connection) -> bool:
        return not self.commits_itself(connection)

    def is_sound(self, _: Connection, *, ask: bool) -> bool:  # noqa: ARG002  # the protocol
        # What an error has undone is not known (`tells_its_state`).
        return True

    def dialect(self, _: Connection) -> Dialect:
        return control.UNKNOWN

    def answer(self, cursor: Any, verb: str) -> str | None:  # noqa: ARG002  # the protocol
        return None


def _insert(connection: Connection, insertion: Insertion, raw: Any = None) -> PostgresInsert:
    rows, within, _ = insertion
    return PostgresInsert(rows, database=connection.engine.url, within=within, raw=raw)


_OPEN: Final[dict[int, bool]] = {Status.IDLE: False, Status.INTRANS: True, Status.INERROR: True}


def _raw(connection: Connection) -> Any:
    """Return the driver's connection; SQLAlchemy's own property has none after a `detach`."""
    below: Any = connection.connection.dbapi_connection
    return connection.dialect.get_driver_connection(below)


def _status(connection: Connection) -> int:
    return int(_raw(connection).info.transaction_status)


_SQLITE: Final = _Sqlite()
_OTHER: Final = _Other()
_POSTGRESQL: Final[dict[str, Driver]] = {
    **dict.fromkeys(("psycopg", "psycopg_async"), _Psycopg()),
    "psycopg2": _Psycopg2(),
    "asyncpg": _Asyncpg(),
}
