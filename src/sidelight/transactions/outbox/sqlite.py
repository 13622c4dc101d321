"""Take rows out of the outbox of a SQLite database, without changing what it holds.

The connection is short: it is open while rows are read, so that the business can change the journal
mode or put another file in its place. In between, the relay watches the times and sizes of the
files. In WAL mode such a reader delays no commit. (In the other journal modes a commit has to wait
for a reader.)

While the files change, the connection is read-only, because a connection that may write checkpoints
when it closes last, and an application that opens the file then has to wait. A read-only connection
leaves a log behind. So the connection that finds the files quiet may write: if it closes last,
SQLite puts the log into the file and deletes it, as after any application.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import quote

from sidelight.exceptions import OutboxError
from sidelight.host import monotonic
from sidelight.store import beside, connect_file
from sidelight.transactions.outbox import draining
from sidelight.transactions.outbox.position import Position, PositionFile
from sidelight.transactions.outbox.table import outbox_command

_NEXT: Final = (
    "SELECT position, event_id, record FROM sidelight_outbox"
    " WHERE position >= ? ORDER BY position LIMIT ?"
)
_TICK: Final = 0.1  # seconds within which two changes of a file may have the same time
_QUIET_NS: Final = 1_000_000_000  # the age of the latest change of a file that nobody uses

_File: TypeAlias = tuple[int, int, int, int]
"""Device, inode, size, and time of the latest change in ns."""
_State: TypeAlias = tuple[_File, _File | None]
"""Of the database, and of its write-ahead log."""


class SqliteOutbox:
    """The outbox of one SQLite file."""

    def __init__(self, path: Path) -> None:
        self.shown: Final = f"sqlite:///{path}"
        self._path = path
        self._position = PositionFile(os.fspath(path))
        self._state: _State | None = None  # of the files …
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
            is_quiet = is_settled or _is_old(state)
            with self._position.locked() as locked:
                if not locked:
                    return None
                rows = self._next(limit, "rw" if is_quiet else "ro")
                if rows:
                    take([record for _, _, record in rows])
                    self._position.write(Position(*rows[-1][:2]))
            draining.drained(self.shown, [os.path.realpath(self._path)])
            self._is_drained = is_settled and len(rows) < limit
            if self._is_drained and self._state_of_files() == (state[0], None):
                self._state = state[0], None  # the log was deleted, and nothing was written
        except (sqlite3.Error, OSError) as error:
            self._position.close()
            is_missing = "no such table" in str(error)
            raise OutboxError(
                url=self.shown,
                problem=error,
                remedy=f"{outbox_command('create', self.shown)} makes it"
                if is_missing
                else f"see {outbox_command('status', self.shown)}",
                holds_events=not is_missing,
            ) from error
        return len(rows)

    def _next(self, limit: int, mode: str) -> list[tuple[int, str, bytes]]:
        moved = self._position.read()
        with contextlib.closing(self._opened(mode)) as connection:
            rows: list[tuple[int, str, bytes]] = connection.execute(
                _NEXT, (moved.number, limit + 1)
            ).fetchall()
            if moved.number and (not rows or rows[0][:2] != moved):
                # The database was restored or made anew.
                return connection.execute(_NEXT, (0, limit)).fetchall()
        return rows[1:] if moved.number else rows[:limit]

    def _state_of_files(self) -> _State:
        """Return the identities, sizes and times of the database and of its write-ahead log."""
        database = self._path.stat()
        try:
            log = beside(self._path, "-wal").stat()
        except FileNotFoundError:
            log = None
        return _seen(database), log and _seen(log)

    def _opened(self, mode: str) -> sqlite3.Connection:
        connection = connect_file(
            f"file:{quote(os.fspath(self._path))}?mode={mode}",
            uri=True,
            timeout=0.25,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.execute("PRAGMA query_only = ON")
        return connection

    def close(self) -> None:
        """Close the file of the position, and leave no log where nobody uses the database."""
        self._position.close()
        if beside(self._path, "-wal").exists():
            with contextlib.suppress(sqlite3.Error), contextlib.closing(self._opened("rw")) as last:
                last.execute("PRAGMA schema_version")  # the closing of what was used tidies up

    def disown(self) -> None:
        """Close the file of the position in a forked child; this unlocks nothing in the parent."""
        self._position.close()


def _seen(found: os.stat_result) -> _File:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _is_old(state: _State) -> bool:
    """Return whether nothing was written for a while, as where a relay begins."""
    return time.time_ns() - max(each[3] for each in state if each) > _QUIET_NS
