"""How a PostgreSQL store is reached: within a time, apart from other tables, across no fork.

Imported only where there is such a store: it needs psycopg.
"""

from __future__ import annotations

import inspect
import logging
import os
import time
from collections.abc import Generator
from typing import Any, Final, Self, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Engine, event, text
from sqlalchemy.engine import URL, Connection
from sqlalchemy.engine.create import create_engine  # as it is: tracers wrap the package's

SCHEMA: Final = "sidelight"
"""Where the tables are: `events` and `artifacts` are names that an application may well have."""

WRITE_WITHIN: Final = 10.0
"""Seconds that one transaction of a relay may take; then the store counts as not answering."""
READ_WITHIN: Final = 60.0
UPGRADE_WITHIN: Final = 3600.0
_EARLIER: Final = 0.8  # the server is to notice first: it says what it was waiting for
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
    """An engine on a database. Nothing is sent yet."""
    unsaid = unsaid_by(url)
    engine = create_engine(
        url,
        # A pooler between us and the server may hand each transaction to another session.
        connect_args={**unsaid, "autocommit": True, "prepare_threshold": None},
        use_native_hstore=False,
        pool_size=1,
        pool_pre_ping=read_only,
    )

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: Any, _record: Any, arguments: Any, named: Any) -> BoundedConnection:
        return BoundedConnection.connect(*arguments, **named)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        """Begin the transaction here, not in psycopg: all that it needs to know in one message."""
        within = READ_WITHIN if read_only else WRITE_WITHIN
        driver(connection).deadline = time.monotonic() + within
        connection.exec_driver_sql(
            f"{begin(within, read_only=read_only)}; SET LOCAL search_path = {SCHEMA};"
            # What is committed is deleted from the spool: it must survive the server's power loss.
            " SELECT set_config('synchronous_commit', 'local', true)"
            " WHERE current_setting('synchronous_commit') = 'off'"
        )

    return engine


def unsaid_by(url: URL) -> dict[str, Any]:
    """The parameters of a connection that a URL leaves to us."""
    return {name: value for name, value in _DEFAULTS.items() if name not in url.query}


def begin(within: float, *, read_only: bool = False) -> str:
    """The beginning of a transaction that the server does not let go on for longer (s)."""
    milliseconds = int(within * 1000 * _EARLIER)
    return (
        f"BEGIN ISOLATION LEVEL READ COMMITTED {'READ ONLY' if read_only else 'READ WRITE'};"
        f" SET LOCAL statement_timeout = {milliseconds};"
        # A process that is stopped in the middle must not keep its locks from all the others.
        f" SET LOCAL idle_in_transaction_session_timeout = {milliseconds}"
    )


def driver(connection: Connection) -> BoundedConnection:
    """The connection as psycopg has it."""
    raw = connection.connection.driver_connection
    assert isinstance(raw, BoundedConnection)  # noqa: S101  # for mypy
    return raw


def lock_for_upgrade(connection: Connection) -> None:
    """Let nobody else create or change the tables before this transaction has ended."""
    driver(connection).deadline = time.monotonic() + UPGRADE_WITHIN
    connection.execute(text(f"SET LOCAL statement_timeout = {int(UPGRADE_WITHIN * 1000)}"))
    connection.execute(text(f"SELECT pg_advisory_xact_lock({_UPGRADE_LOCK})"))
    if connection.execute(text(f"SELECT to_regnamespace('{SCHEMA}')")).scalar() is None:
        connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))


class BoundedConnection(psycopg.Connection[Any]):
    """A connection on which nothing waits for ever, and which a forked child cannot spoil.

    A server that is stopped (or a peer that drips byte by byte) keeps its end open: no timeout of
    the kernel's helps, and none of the server's.

    Attributes:
        deadline: when the transaction is to be over (monotonic).
    """

    deadline: float = 0.0

    @classmethod
    def connect(cls, *arguments: Any, **named: Any) -> Self:
        """As psycopg does, and not what a tracer has put around it: our queries are none of its."""
        function = inspect.unwrap(vars(psycopg.Connection)["connect"])
        connection: Self = getattr(function, "__func__", function)(cls, *arguments, **named)
        return connection

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._owner = os.getpid()

    def wait(self, gen: Generator[Any, Any, _T], *arguments: Any, **named: Any) -> _T:
        """See psycopg: runs one exchange with the server.

        Raises:
            OperationalError: no answer in time, or the connection is the parent process's.
        """
        if os.getpid() != self._owner:
            raise psycopg.OperationalError("the connection belongs to the parent process")
        idle = self.pgconn.transaction_status == TransactionStatus.IDLE
        until = time.monotonic() + WRITE_WITHIN if idle else self.deadline
        return super().wait(self._bounded(gen, until), *arguments, **named)

    def _bounded(self, gen: Generator[Any, Any, _T], until: float) -> Generator[Any, Any, _T]:
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if time.monotonic() > until:
                    self.close()
                    raise psycopg.OperationalError("no answer in time: the connection was closed")
                wanted = gen.send(ready)
        except StopIteration as end:
            result: _T = end.value
            return result

    # What the garbage collector calls in a child would be heard in the parent's conversation, or
    # wait for a lock that nobody in the child holds.

    def close(self) -> None:
        """Close; in a forked child the connection is not ours to close."""
        if os.getpid() == self._owner:
            super().close()

    def rollback(self) -> None:
        """Roll back; in a forked child the transaction is not ours to end."""
        if os.getpid() == self._owner:
            super().rollback()

    def __del__(self, *arguments: Any) -> None:
        if os.getpid() == self.__dict__.get("_owner"):
            super().__del__(*arguments)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether psycopg warns of something else than our own connection's end in a COPY."""
    about = record.args[0] if isinstance(record.args, tuple) and record.args else None
    return not isinstance(getattr(about, "connection", None), BoundedConnection)


logging.getLogger("psycopg").addFilter(_is_news)  # the relay has told it already
