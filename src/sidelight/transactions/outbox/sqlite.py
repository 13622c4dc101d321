"""Rows out of the outbox of a SQLite database, which is only ever read.

The connection is read-only, and so short-lived a reader in WAL mode holds nobody up. (In the other
journal modes a commit has to wait for whoever reads at that moment.)
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
from sidelight.transactions.outbox.sqlite_position import Moved, MovedFile

_NEXT: Final = (
    "SELECT position, event_id, record FROM sidelight_outbox"
    " WHERE position >= ? ORDER BY position LIMIT ?"
)


class SqliteOutbox:
    """The outbox of one SQLite file."""

    def __init__(self, path: Path) -> None:
        self.shown: Final = f"sqlite:///{path}"
        self._path = path
        self._moved = MovedFile(os.fspath(path))
        self._connection: sqlite3.Connection | None = None
        self._version = -1
        self._file = (0, 0)

    def move(self, take: Callable[[Sequence[bytes]], None], limit: int) -> int:
        """Hand out rows that have been committed, and remember that they were taken.

        Args:
            take: is given their records; what it raises leaves them where they are.
            limit: how many at once.

        Returns:
            How many there were.

        Raises:
            OutboxError: the database cannot be read.
        """
        try:
            connection = self._opened()
            (version,) = connection.execute("PRAGMA data_version").fetchone()
            if version == self._version:
                return 0
            with self._moved.locked() as ours:
                if not ours:
                    return 0
                rows = self._next(connection, limit)
                if rows:
                    take([record for _, _, record in rows])
                    self._moved.write(Moved(*rows[-1][:2]))
            if len(rows) < limit:
                self._version = version
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise OutboxError(
                url=self.shown, problem=error, remedy="see `sidelight outbox status`"
            ) from error
        return len(rows)

    def _next(self, connection: sqlite3.Connection, limit: int) -> list[tuple[int, str, bytes]]:
        moved = self._moved.read()
        rows: list[tuple[int, str, bytes]] = connection.execute(
            _NEXT, (moved.position, limit + 1)
        ).fetchall()
        if moved.position and (not rows or rows[0][:2] != moved):
            # It is another database than it was: restored, or made anew.
            return connection.execute(_NEXT, (0, limit)).fetchall()
        return rows[1:] if moved.position else rows[:limit]

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
        """Let go of the database; the next `move` opens it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        self._moved.close()

    disown = close  # what is closed here unlocks nothing there
