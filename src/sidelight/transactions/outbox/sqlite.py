"""Take rows out of the outbox of a SQLite database, without writing to it.

The connection is read-only. In WAL mode such a reader delays nobody. (In the other journal modes a
commit has to wait for a reader.)
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

from sidelight.exceptions import OutboxError
from sidelight.store import connect_file
from sidelight.transactions.outbox.position import Position, PositionFile

_NEXT: Final = (
    "SELECT position, event_id, record FROM sidelight_outbox"
    " WHERE position >= ? ORDER BY position LIMIT ?"
)


class SqliteOutbox:
    """The outbox of one SQLite file."""

    def __init__(self, path: Path) -> None:
        self.shown: Final = f"sqlite:///{path}"
        self._path = path
        self._position = PositionFile(os.fspath(path))
        self._connection: sqlite3.Connection | None = None
        self._version = -1
        self._file = (0, 0)

    def move(self, take: Callable[[Sequence[bytes]], None], limit: int) -> int:
        """Hand out committed rows, and note their position.

        Args:
            take: gets their records; where it raises, the position stays.
            limit: the largest number of rows.

        Returns:
            The number of rows.

        Raises:
            OutboxError: the database cannot be read.
        """
        try:
            connection = self._opened()
            (version,) = connection.execute("PRAGMA data_version").fetchone()
            if version == self._version:
                return 0
            with self._position.locked() as locked:
                if not locked:
                    return 0
                rows = self._next(connection, limit)
                if rows:
                    take([record for _, _, record in rows])
                    self._position.write(Position(*rows[-1][:2]))
            if len(rows) < limit:
                self._version = version
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise OutboxError(
                url=self.shown, problem=error, remedy="see `sidelight outbox status`"
            ) from error
        return len(rows)

    def _next(self, connection: sqlite3.Connection, limit: int) -> list[tuple[int, str, bytes]]:
        moved = self._position.read()
        rows: list[tuple[int, str, bytes]] = connection.execute(
            _NEXT, (moved.number, limit + 1)
        ).fetchall()
        if moved.number and (not rows or rows[0][:2] != moved):
            # The database was restored or made anew.
            return connection.execute(_NEXT, (0, limit)).fetchall()
        return rows[1:] if moved.number else rows[:limit]

    def _opened(self) -> sqlite3.Connection:
        status = self._path.stat()
        file = (status.st_dev, status.st_ino)
        if self._connection is None or file != self._file:
            self.close()
            self._connection = connect_file(
                f"file:{quote(os.fspath(self._path))}?mode=ro",
                uri=True,
                timeout=0.25,
                isolation_level=None,
                check_same_thread=False,
            )
            self._file, self._version = file, -1
        return self._connection

    def close(self) -> None:
        """Close the database; the next `move` opens it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        self._position.close()

    disown = close  # in a forked child; closing here unlocks nothing in the parent
