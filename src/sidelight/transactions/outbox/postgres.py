"""Take rows out of the outbox of a PostgreSQL database; several relays may do so at once.

A relay takes the rows that no other relay has locked, in any order, because a transaction that
began early may commit late, and a prepared one later still. The relay never waits for the business,
and the business never touches a committed row.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Final

import psycopg

from sidelight.exceptions import OutboxError, in_one_line
from sidelight.host import monotonic
from sidelight.store import (
    WRITE_TIMEOUT,
    DeadlineConnection,
    begin_statement,
    connect_server,
    parse_url,
)
from sidelight.transactions.outbox import draining
from sidelight.transactions.outbox.table import (
    FIND_TABLES,
    TABLE_NAME,
    FoundTable,
    outbox_command,
)

_PEEK: Final = "SELECT position, event_id, record FROM {table} ORDER BY position LIMIT %s"
_TAKE: Final = f"{_PEEK} FOR UPDATE SKIP LOCKED"
_DELETE: Final = (
    "DELETE FROM {table} WHERE (position, event_id) IN"
    " (SELECT * FROM unnest(%s::bigint[], %s::text[])) RETURNING event_id"
)


def kept_rows(shown: str, table: str, count: int, moved: int) -> OutboxError:
    """Return the error for rows that a DELETE has left without an error; they are not moved.

    Args:
        shown: the database's URL without secrets.
        table: their table.
        count: how many there are.
        moved: how many others were moved.
    """
    return OutboxError(
        url=shown,
        problem=f"{count} {'row' if count == 1 else 'rows'} of {table} cannot be deleted",
        remedy=f"look for a trigger, a rule or a policy on {table}",
        moved=moved,
    )


class PostgresOutbox:
    """The outbox of one PostgreSQL database."""

    def __init__(self, url: str) -> None:
        self.url: Final = url
        self._address = parse_url(url, "outboxes")
        self.shown: Final = self._address.shown
        self._connection: DeadlineConnection | None = None

    def move(self, take: Callable[[Sequence[bytes]], None], limit: int) -> int | None:
        """Hand out committed rows, and delete them.

        Args:
            take: gets their records; where it raises, the rows stay.
            limit: the largest number of rows.

        Returns:
            The number of rows; None where another relay has locked those that there are.

        Raises:
            OutboxError: the database does not answer, or refuses.
        """
        try:
            moved = 0
            tables = self.tables()
            for table in tables:
                if moved < limit:
                    moved += self._move(table, take, limit - moved)
            if not moved and any(self.peek(table, 1) for table in tables):
                return None
        except psycopg.Error as error:
            raise OutboxError(
                url=self.shown,
                problem=in_one_line(error),
                remedy=f"see {outbox_command('status', self.shown)}",
            ) from error
        finally:
            if self._connection is not None and (
                self._connection.pgconn.transaction_status or not self._connection.is_usable()
            ):
                self.close()  # the transaction must not stay open
        return moved

    def _move(self, table: str, take: Callable[[Sequence[bytes]], None], limit: int) -> int:
        connection = self._opened()
        connection.deadline = monotonic() + WRITE_TIMEOUT
        connection.execute(begin_statement(connection, WRITE_TIMEOUT).encode())
        rows = connection.execute(_TAKE.format(table=table).encode(), (limit,)).fetchall()
        gone: set[str] = set()
        if rows:
            keys = [row[0] for row in rows], [row[1] for row in rows]
            deleted = connection.execute(_DELETE.format(table=table).encode(), keys)
            gone = {event_id for (event_id,) in deleted}
            take([bytes(record) for _, event_id, record in rows if event_id in gone])
        connection.execute("COMMIT")
        if len(gone) < len(rows):
            raise kept_rows(self.shown, table, len(rows) - len(gone), len(gone))
        return len(rows)

    def peek(self, table: str, limit: int) -> list[tuple[int, str, bytes]]:
        """Return rows, and leave them in the table.

        Raises:
            psycopg.Error: the database does not answer, or refuses.
        """
        rows = self._ask(_PEEK.format(table=table).replace("%s", str(limit)))
        return [(position, event_id, bytes(record)) for position, event_id, record in rows]

    def _ask(self, question: str) -> list[tuple[Any, ...]]:
        """Ask in a transaction of its own, in one message.

        Raises:
            psycopg.Error: the database does not answer, or refuses.
        """
        connection = self._opened()
        connection.deadline = monotonic() + WRITE_TIMEOUT
        begin = begin_statement(connection, WRITE_TIMEOUT, read_only=True)
        cursor = connection.execute(f"{begin}; {question}; COMMIT".encode())
        while cursor.description is None:
            cursor.nextset()
        return cursor.fetchall()

    def tables(self) -> list[str]:
        """Return the outboxes of all schemas, qualified and quoted.

        Raises:
            psycopg.Error: the database does not answer.
            OutboxError: there is none.
        """
        tables = [FoundTable(*row) for row in self._ask(FIND_TABLES)]
        if not tables:
            raise OutboxError(
                url=self.shown,
                problem=f"there is no table {TABLE_NAME}",
                remedy=f"{outbox_command('create', self.shown)} makes it",
                holds_events=False,
            )
        draining.drained(self.url, [table.ids for table in tables])
        for table in tables:
            draining.latest[table.ids] = table
            table.check_readable(self.shown)
        return [table.path for table in tables]

    def _opened(self) -> DeadlineConnection:
        if self._connection is not None and self._connection.has_ended():
            self.close()
        if self._connection is None:
            self._connection = connect_server(self._address)
        return self._connection

    def close(self) -> None:
        """Close the connection; the next `move` opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                connection.close()

    def disown(self) -> None:
        """In a forked child: keep the connection, because closing it would end the parent's."""
