"""Connections to a PostgreSQL store: with a deadline, a schema of their own, and safe in a fork.

Only a process with such a store imports this module, because it needs psycopg.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Generator
from typing import Any, Final, Self, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Engine, event, text
from sqlalchemy.engine import URL, Connection
from sqlalchemy.engine.create import create_engine  # tracers wrap `sqlalchemy.create_engine`

from sidelight.host import monotonic

SCHEMA: Final = "sidelight"
"""Schema of the tables; an application may well have tables named `events` and `artifacts`."""

WRITE_TIMEOUT: Final = 10.0
"""Seconds that one transaction of a relay may take; after that the store is unavailable."""
READ_TIMEOUT: Final = 60.0
UPGRADE_TIMEOUT: Final = 3600.0
_SERVER_SHARE: Final = 0.8  # the server times out first, because it names the lock it waits for
_UPGRADE_LOCK: Final = 0x51DE_1167
_DEFAULTS: Final[dict[str, Any]] = {
    "application_name": "sidelight",
    "connect_timeout": 5,
    "keepalives_idle": 30,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
_T = TypeVar("_T")


def open_server(url: URL, *, read_only: bool) -> Engine:
    """Make an engine on a database; connect nothing yet."""
    engine = create_engine(
        url,
        # Prepare nothing, because a pooler may send each transaction to another session.
        connect_args={
            **connection_defaults(url),
            "autocommit": True,
            "prepare_threshold": None,
        },
        use_native_hstore=False,
        pool_size=1,
        pool_pre_ping=read_only,
    )

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: Any, _record: Any, arguments: Any, named: Any) -> DeadlineConnection:
        return DeadlineConnection.connect(*arguments, **named)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        """Send BEGIN and all settings in one message, instead of psycopg's own BEGIN."""
        timeout = READ_TIMEOUT if read_only else WRITE_TIMEOUT
        psycopg_connection(connection).deadline = monotonic() + timeout
        connection.exec_driver_sql(
            f"{begin_statement(timeout, read_only=read_only)}; SET LOCAL search_path = {SCHEMA};"
            # A commit must survive the server's power loss: the relay then deletes the segment.
            " SELECT set_config('synchronous_commit', 'local', true)"
            " WHERE current_setting('synchronous_commit') = 'off'"
        )

    return engine


def connection_defaults(url: URL) -> dict[str, Any]:
    """Our connection parameters, without those that the URL sets; the encoding is always UTF-8."""
    unset = {name: value for name, value in _DEFAULTS.items() if name not in url.query}
    return {**unset, "client_encoding": "utf8"}  # whatever the database or the URL has


def begin_statement(timeout: float, *, read_only: bool = False) -> str:
    """BEGIN for a transaction that the server ends after ``timeout`` seconds."""
    milliseconds = int(timeout * 1000 * _SERVER_SHARE)
    return (
        f"BEGIN ISOLATION LEVEL READ COMMITTED {'READ ONLY' if read_only else 'READ WRITE'};"
        f" SET LOCAL statement_timeout = {milliseconds};"
        # Release the locks of a process that is stopped within a transaction.
        f" SET LOCAL idle_in_transaction_session_timeout = {milliseconds}"
    )


def psycopg_connection(connection: Connection) -> DeadlineConnection:
    """The psycopg connection below a SQLAlchemy connection."""
    raw = connection.connection.driver_connection
    assert isinstance(raw, DeadlineConnection)  # noqa: S101  # for mypy
    return raw


def lock_for_upgrade(connection: Connection) -> None:
    """Keep other processes from creating or upgrading the tables until this transaction ends."""
    psycopg_connection(connection).deadline = monotonic() + UPGRADE_TIMEOUT
    connection.execute(text(f"SET LOCAL statement_timeout = {int(UPGRADE_TIMEOUT * 1000)}"))
    connection.execute(text(f"SELECT pg_advisory_xact_lock({_UPGRADE_LOCK})"))
    if connection.execute(text(f"SELECT to_regnamespace('{SCHEMA}')")).scalar() is None:
        connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))


class DeadlineConnection(psycopg.Connection[Any]):
    """A connection with a deadline for each transaction, and without effect in a forked child.

    A stopped server, or a peer that sends byte by byte, keeps its connection open, so that neither
    the kernel's nor the server's timeouts end the wait.

    Attributes:
        deadline: when the transaction must have ended (monotonic, s).
    """

    deadline: float = 0.0

    @classmethod
    def connect(cls, *arguments: Any, **named: Any) -> Self:
        """Connect without a tracer's wrapper, because the relay's queries are not traced."""
        function = inspect.unwrap(vars(psycopg.Connection)["connect"])
        connection: Self = getattr(function, "__func__", function)(cls, *arguments, **named)
        return connection

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._owner = os.getpid()

    def wait(self, gen: Generator[Any, Any, _T], *arguments: Any, **named: Any) -> _T:
        """Run one exchange with the server (see psycopg), until the deadline.

        Raises:
            OperationalError: no answer in time, or the connection belongs to the parent process.
        """
        if os.getpid() != self._owner:
            raise psycopg.OperationalError("the connection belongs to the parent process")
        idle = self.pgconn.transaction_status == TransactionStatus.IDLE
        until = monotonic() + WRITE_TIMEOUT if idle else self.deadline
        return super().wait(self._until(gen, until), *arguments, **named)

    def _until(self, gen: Generator[Any, Any, _T], until: float) -> Generator[Any, Any, _T]:
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if monotonic() > until:
                    self.close()
                    raise psycopg.OperationalError("no answer in time: the connection was closed")
                wanted = gen.send(ready)
        except StopIteration as end:
            result: _T = end.value
            return result

    # The garbage collector may call these in a forked child. There they would write into the
    # parent's session, or wait for a lock that no thread of the child can release.

    def close(self) -> None:
        """Close; do nothing in a forked child."""
        if os.getpid() == self._owner:
            super().close()

    def rollback(self) -> None:
        """Roll back; do nothing in a forked child."""
        if os.getpid() == self._owner:
            super().rollback()

    def __del__(self, *arguments: Any) -> None:
        if os.getpid() == self.__dict__.get("_owner"):
            super().__del__(*arguments)


def _is_of_application(record: logging.LogRecord) -> bool:
    """Keep psycopg from logging a broken COPY of the relay, because the relay logs it itself."""
    subject = record.args[0] if isinstance(record.args, tuple) and record.args else None
    return not isinstance(getattr(subject, "connection", None), DeadlineConnection)


logging.getLogger("psycopg").addFilter(_is_of_application)
