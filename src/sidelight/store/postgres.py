"""Connections to a PostgreSQL store: with a deadline, a schema of their own, and safe in a fork.

Only a process with such a store imports this module, because it needs psycopg.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
from collections.abc import Generator
from typing import Any, Final, Self, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from sidelight.host import keep_for_ever, monotonic, socket_descriptor
from sidelight.store.address import Address
from sidelight.store.database import Connection, DatabaseError

SCHEMA: Final = "sidelight"
"""Schema of the tables; an application may well have tables named `events` and `artifacts`."""

WRITE_TIMEOUT: Final = 10.0
"""Seconds that one transaction of a relay may take; after that the store is unavailable."""
READ_TIMEOUT: Final = 60.0
UPGRADE_TIMEOUT: Final = 3600.0
_SERVER_SHARE: Final = 0.8  # the server times out first, because it names the lock it waits for
_HAS_TRANSACTION_TIMEOUT: Final = 170_000  # the version of the server that knows this setting
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


class PostgresConnection(Connection):
    """A connection of a relay; each transaction has a deadline."""

    backend = "postgresql"
    errors = psycopg.Error
    raw: DeadlineConnection

    def __init__(self, address: Address, *, read_only: bool) -> None:
        """Connect.

        Raises:
            DatabaseError: the server does not answer, or refuses.
        """
        self._is_read_only: Final = read_only
        try:
            self.raw = connect_server(address)
        except psycopg.Error as error:
            raise DatabaseError("connect", error) from error

    def _dialect(self, statement: str) -> str:
        return statement.replace("?", "%s")

    def ask_alone(self, question: str) -> Any:
        """Ask outside a transaction, whatever the session is set to."""
        limits = _limits(self.raw, WRITE_TIMEOUT)
        cursor = self.execute(f"{limits}; {question}")  # one message
        while cursor.description is None:
            cursor.nextset()
        return cursor.fetchone()

    def begin(self) -> None:
        """Send BEGIN and all settings in one message."""
        self.execute(self.raw.begin_text(read_only=self._is_read_only))

    def commit(self) -> None:
        """Commit; the server answers the COMMIT of a transaction that failed with ROLLBACK.

        Raises:
            DatabaseError: the server has not answered with COMMIT.
        """
        if (answer := self.execute("COMMIT").statusmessage) != "COMMIT":
            error = psycopg.OperationalError(f"the server answered a COMMIT with {answer}")
            raise DatabaseError("COMMIT", error)

    def rollback(self) -> None:
        """Roll back a transaction that is open."""
        with contextlib.suppress(psycopg.Error):
            if not self.raw.closed:
                self.raw.rollback()

    def has_ended(self) -> bool:
        """Return whether the server has ended the session while it was idle."""
        return self.raw.has_ended()

    def has_table(self, name: str) -> bool:
        """Return whether the store has a table of this name."""
        query = "SELECT to_regclass(%s) IS NOT NULL"
        return bool(self.execute(query, (f"{SCHEMA}.{name}",)).fetchone()[0])

    def lock_for_upgrade(self) -> None:
        """Lock, give the transaction more time, and create the schema where it is missing."""
        self.raw.deadline = monotonic() + UPGRADE_TIMEOUT
        self.execute(f"SET LOCAL statement_timeout = {int(UPGRADE_TIMEOUT * 1000)}")
        self.execute(f"SELECT pg_advisory_xact_lock({_UPGRADE_LOCK})")
        if self.execute(f"SELECT to_regnamespace('{SCHEMA}')").fetchone()[0] is None:
            self.execute(f"CREATE SCHEMA {SCHEMA}")

    def close(self) -> None:
        """Close the session."""
        with contextlib.suppress(psycopg.Error):
            self.raw.close()


def connect_server(address: Address) -> DeadlineConnection:
    """Connect to a server.

    Raises:
        psycopg.Error: the server does not answer, or refuses.
    """
    return DeadlineConnection.connect(
        **connection_parameters(address),
        autocommit=True,
        # Prepare nothing, because a pooler may send each transaction to another session.
        prepare_threshold=None,
    )


def connection_parameters(address: Address) -> dict[str, Any]:
    """Our connection parameters, and those that the URL sets; the encoding is always UTF-8."""
    return {**_DEFAULTS, **address.parameters, "client_encoding": "utf8"}


def begin_statement(
    connection: psycopg.Connection[Any], timeout: float, *, read_only: bool = False
) -> str:
    """Return the BEGIN of a transaction that the server ends after ``timeout`` seconds.

    It overrides what the server, the database, the role or PGOPTIONS set for every transaction.
    """
    return (
        f"BEGIN ISOLATION LEVEL READ COMMITTED {'READ ONLY' if read_only else 'READ WRITE'};"
        f" {_limits(connection, timeout)};"
        # Rows are sent as arrays. With array_nulls off, a missing organization is called "NULL".
        " SET LOCAL array_nulls = on"
    )


def _limits(connection: psycopg.Connection[Any], timeout: float) -> str:
    milliseconds = int(timeout * 1000 * _SERVER_SHARE)
    knows_all = connection.pgconn.server_version >= _HAS_TRANSACTION_TIMEOUT
    return (
        f"{'SET LOCAL transaction_timeout = 0; ' if knows_all else ''}"
        f"SET LOCAL statement_timeout = {milliseconds}; SET LOCAL lock_timeout = 0;"
        # Release the locks of a process that is stopped within a transaction.
        f" SET LOCAL idle_in_transaction_session_timeout = {milliseconds}"
    )


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
        self._socket = socket_descriptor(self.pgconn.socket)
        self._owner = os.getpid()

    def has_ended(self) -> bool:
        """Return whether the server has ended the idle session; send nothing.

        The server, a pooler or a firewall may end a session that was idle for some time.
        """
        if self.is_usable() and not self.closed:
            with contextlib.suppress(psycopg.Error):
                self.pgconn.consume_input()  # the server's farewell …
                self.pgconn.consume_input()  # … and the end behind it
        return self.closed

    def is_usable(self) -> bool:
        """Return whether this process opened the connection and no other code closed it."""
        is_open = self._socket is None or self._socket.is_own()
        return os.getpid() == self._owner and is_open

    def begin_text(self, *, read_only: bool) -> str:
        """Set the deadline of a transaction, and return the statements that begin it."""
        timeout = READ_TIMEOUT if read_only else WRITE_TIMEOUT
        self.deadline = monotonic() + timeout
        begin = begin_statement(self, timeout, read_only=read_only)
        return (
            f"{begin}; SET LOCAL search_path = {SCHEMA};"
            # A commit must survive the server's power loss: the relay then deletes the segment.
            " SELECT set_config('synchronous_commit', 'local', true)"
            " WHERE current_setting('synchronous_commit') = 'off'"
        )

    def wait(self, gen: Generator[Any, Any, _T], *arguments: Any, **named: Any) -> _T:
        """Run one exchange with the server (see psycopg), until the deadline.

        Raises:
            OperationalError: no answer in time, or the socket is not this connection's any more.
        """
        if not self.is_usable():
            raise psycopg.OperationalError(
                "the connection belongs to the parent process, or other code has closed it"
            )
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
        """Close; do nothing in a forked child.

        Where other code has closed the socket, its number may be another connection's.
        """
        if self.closed or self.is_usable():
            super().close()
        elif os.getpid() == self._owner:
            keep_for_ever(self)

    def rollback(self) -> None:
        """Roll back; do nothing in a forked child, or where other code has closed the socket."""
        if self.is_usable():
            super().rollback()

    def __del__(self, *arguments: Any) -> None:
        if os.getpid() != self.__dict__.get("_owner"):
            return
        if self.closed or self.is_usable():
            super().__del__(*arguments)
        else:
            keep_for_ever(self)


def _is_of_application(record: logging.LogRecord) -> bool:
    """Keep psycopg from logging a broken COPY of the relay, because the relay logs it itself."""
    subject = record.args[0] if isinstance(record.args, tuple) and record.args else None
    return not isinstance(getattr(subject, "connection", None), DeadlineConnection)


logging.getLogger("psycopg").addFilter(_is_of_application)
