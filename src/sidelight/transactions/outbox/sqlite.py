"""Take rows out of the outbox of a SQLite database, without writing to it.

The connection is read-only and short: it is open while rows are read, so that the business can
change the journal mode or put another file in its place. In between, the relay watches the times
and sizes of the files. In WAL mode such a reader delays no commit. (In the other journal modes a
commit has to wait for a reader.)
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

from sidelight.exceptions import OutboxError
from sidelight.host import monotonic
from sidelight.store import connect_file
from sidelight.transactions.outbox import draining
from sidelight.transactions.outbox.position import Position, PositionFile

_NEXT: Final = (
    "SELECT position, event_id, record FROM sidelight_outbox"
    " WHERE position >= ? ORDER BY position LIMIT ?"
)
_TICK: Final = 0.1  # seconds within which two changes of a file may have the same time


class SqliteOutbox:
    """The outbox of one SQLite file."""

    def __init__(self, path: Path) -> None:
        self.shown: Final = f"sqlite:///{path}"
        self._path = path
        self._position = PositionFile(os.fspath(path))
        self._state: object = None  # of the files …
        self._since = 0.0  # … when they were first seen so
        self._is_drained = False  # … and whether all of their rows were moved

    def move(self, take: Callable[[Sequence[bytes]], None], limit: int) -> int | None:
        """Hand out committed rows, and note their position.

        Args:
            take: gets their records; where it raises, the position stays.
            limit: the largest number of rows.

        Returns:
            The number of rows; None where another relay is moving rows at this moment.

        Raises:
            OutboxError: the database cannot be read.
        """
        try:
            if (state := self._state_of_files()) != self._state:
                self._state, self._since, self._is_drained = state, monotonic(), False
            if self._is_drained:
                return 0
            is_settled = monotonic() - self._since > _TICK
            with self._position.locked() as locked:
                if not locked:
                    return None
                rows = self._next(limit)
                if rows:
                    take([record for _, _, record in rows])
                    self._position.write(Position(*rows[-1][:2]))
            draining.drained(self.shown, [os.path.realpath(self._path)])
            self._is_drained = is_settled and len(rows) < limit
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise OutboxError(
                url=self.shown,
                problem=error,
                remedy="see `sidelight outbox status`",
                holds_events="no such table" not in str(error),
            ) from error
        return len(rows)

    def _next(self, limit: int) -> list[tuple[int, str, bytes]]:
        moved = self._position.read()
        with contextlib.closing(self._opened()) as connection:
            rows: list[tuple[int, str, bytes]] = connection.execute(
                _NEXT, (moved.number, limit + 1)
            ).fetchall()
            if moved.number and (not rows or rows[0][:2] != moved):
                # The database was restored or made anew.
                return connection.execute(_NEXT, (0, limit)).fetchall()
        return rows[1:] if moved.number else rows[:limit]

    def _state_of_files(self) -> object:
        """Return the identities, sizes and times of the database and of its write-ahead log."""
        database = self._path.stat()
        try:
            log = Path(f"{self._path}-wal").stat()
        except FileNotFoundError:
            log = None
        return [
            each and (each.st_dev, each.st_ino, each.st_size, each.st_mtime_ns)
            for each in (database, log)
        ]

    def _opened(self) -> sqlite3.Connection:
        return connect_file(
            f"file:{quote(os.fspath(self._path))}?mode=ro",
            uri=True,
            timeout=0.25,
            isolation_level=None,
            check_same_thread=False,
        )

    def close(self) -> None:
        """Close the file of the position; the next `move` opens it again."""
        self._position.close()

    disown = close  # in a forked child; closing here unlocks nothing in the parent
