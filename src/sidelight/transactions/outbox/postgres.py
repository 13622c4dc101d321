"""Rows out of the outbox of a PostgreSQL database; several relays may take from it at once.

Rows are taken where no other relay has them under lock, whatever their order: a transaction that
was begun early may commit late, and one that was prepared much later still. Nothing here waits for
the business, and the business never touches a row that has been committed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Final

import psycopg
from sqlalchemy.engine import make_url

from sidelight.exceptions import OutboxError
from sidelight.settings import public_url
from sidelight.store import WRITE_TIMEOUT, DeadlineConnection, begin_statement, connection_defaults

_PEEK: Final = "SELECT position, event_id, record FROM sidelight_outbox ORDER BY position LIMIT %s"
_TAKE: Final = f"{_PEEK} FOR UPDATE SKIP LOCKED"
_SCHEMA: Final = (
    "SELECT quote_ident(nspname) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace"
    " WHERE pg_class.oid = 'sidelight_outbox'::regclass"
)
_FORGET: Final = (
    "DELETE FROM sidelight_outbox WHERE (position, event_id) IN"
    " (SELECT * FROM unnest(%s::bigint[], %s::text[]))"
)


class PostgresOutbox:
    """The outbox of one PostgreSQL database."""

    def __init__(self, url: str) -> None:
        self.shown: Final = public_url(url)
        self._url = make_url(url).set(drivername="postgresql+psycopg")
        self._connection: DeadlineConnection | None = None

    def move(self, take: Callable[[Sequence[bytes]], None], limit: int) -> int:
        """Hand out rows that have been committed, and delete them.

        Args:
            take: is given their records; what it raises leaves them where they are.
            limit: how many at once.

        Returns:
            How many there were.

        Raises:
            OutboxError: the database does not answer, or not as it should.
        """
        try:
            connection = self._opened()
            connection.deadline = time.monotonic() + WRITE_TIMEOUT
            connection.execute(begin_statement(WRITE_TIMEOUT).encode())
            rows = connection.execute(_TAKE, (limit,)).fetchall()
            if rows:
                take([bytes(record) for _, _, record in rows])
                forgotten = [row[0] for row in rows], [row[1] for row in rows]
                connection.execute(_FORGET, forgotten)
            connection.execute("COMMIT")
        except psycopg.Error as error:
            raise OutboxError(
                url=self.shown,
                problem=" ".join(str(error).split()),
                remedy="see `sidelight outbox status`",
            ) from error
        finally:
            if self._connection is not None and self._connection.pgconn.transaction_status:
                self.close()  # whatever it was: the transaction is not to stay open
        return len(rows)

    def peek(self, limit: int) -> list[tuple[int, str, bytes]]:
        """Rows that are there, left where they are.

        Raises:
            psycopg.Error: the database does not answer, or not as it should.
        """
        rows = self._opened().execute(_PEEK, (limit,)).fetchall()
        return [(position, event_id, bytes(record)) for position, event_id, record in rows]

    def schema(self) -> str:
        """Where the table is that the connection sees, quoted.

        Raises:
            psycopg.Error: there is none.
        """
        (name,) = self._opened().execute(_SCHEMA).fetchall()[0]
        return str(name)

    def _opened(self) -> DeadlineConnection:
        if self._connection is None:
            dialect = self._url.get_dialect()()
            arguments, named = dialect.create_connect_args(self._url)
            self._connection = DeadlineConnection.connect(
                *arguments,
                **{**connection_defaults(self._url), **named},
                autocommit=True,
                prepare_threshold=None,
            )
        return self._connection

    def close(self) -> None:
        """Let go of the connection; the next `move` makes another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                connection.close()

    def disown(self) -> None:
        """In a forked child: hold on to it; closed or forgotten, it would end the parent's."""
