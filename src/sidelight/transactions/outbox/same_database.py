"""An outbox in the database of the events store: rows become events in one transaction."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import psycopg

from sidelight.exceptions import OutboxError, SinkRefusedError, SinkUnavailableError, in_one_line
from sidelight.record import decode
from sidelight.store import Connection, StoreSink
from sidelight.transactions.outbox.postgres import PostgresOutbox, kept_rows
from sidelight.transactions.outbox.table import outbox_command

_CLAIM: Final = (
    "WITH locked AS MATERIALIZED"
    " (SELECT position, event_id FROM {table} WHERE (position, event_id) IN"
    " (SELECT * FROM unnest(%s::bigint[], %s::text[])) FOR UPDATE SKIP LOCKED),"
    " gone AS (DELETE FROM {table} WHERE (position, event_id) IN"
    " (SELECT position, event_id FROM locked) RETURNING event_id)"
    " SELECT (SELECT count(*) FROM locked), ARRAY(SELECT event_id::text FROM gone)"
)


class SameDatabaseOutbox:
    """Moves rows within a PostgreSQL database; records that the store refuses go by the spool."""

    def __init__(self, outbox: PostgresOutbox, sink: StoreSink, writer: dict[str, Any]) -> None:
        """Open nothing yet.

        Args:
            outbox: the table.
            sink: the store in the same database.
            writer: the header of the spool, for the losses that the sink counts.
        """
        self.shown: Final = outbox.shown
        self._outbox = outbox
        self._sink = sink
        self._writer = writer

    def move(self, take: Callable[[Sequence[bytes]], None], limit: int) -> int | None:
        """Turn rows into events; ``take`` gets the records that the store refuses.

        Raises:
            OutboxError: the database does not answer, or refuses.
        """
        try:
            return self._move_all(limit)
        except (msgspec.DecodeError, SinkRefusedError):
            return self._outbox.move(take, limit)
        except (psycopg.Error, SinkUnavailableError) as error:
            with contextlib.suppress(psycopg.Error):
                self._outbox.close()
            raise OutboxError(
                url=self.shown,
                problem=in_one_line(error),
                remedy=f"see {outbox_command('status', self.shown)}",
            ) from error

    def _move_all(self, limit: int) -> int | None:
        moved, seen = 0, 0
        for table in self._outbox.tables():
            if moved < limit:
                rows = self._outbox.peek(table, limit - moved)
                seen += len(rows)
                moved += self._move(table, rows)
        return None if seen and not moved else moved

    def _move(self, table: str, rows: Sequence[tuple[int, str, bytes]]) -> int:
        if not rows:
            return 0
        keys = [row[0] for row in rows], [row[1] for row in rows]

        kept = 0

        def claim(connection: Connection) -> set[str]:
            nonlocal kept
            locked, gone = connection.execute(_CLAIM.format(table=table), keys).fetchone()
            kept = locked - len(gone)
            return set(gone)

        records = [decode(record) for _, _, record in rows]
        moved = len(self._sink.write_claimed(records, self._writer, claim))
        if kept:
            raise kept_rows(self.shown, table, kept, moved)
        return moved

    def close(self) -> None:
        """Close the connections; the next `move` opens them again."""
        self._outbox.close()
        self._sink.close()

    def disown(self) -> None:
        """In a forked child: keep the connections, because closing them would end the parent's."""
