"""How far the rows of a SQLite outbox have been moved: a small file beside the database.

The relay writes to it, never to the database: a writer there would give the business
SQLITE_BUSY_SNAPSHOT. Who joins a transaction next deletes what the file says was moved. It names
the last row that was moved by position and by event, and that row is not deleted: where it is not
in the table, the database is another one than it was (restored, made anew), and the file says
nothing of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

SUFFIX: Final = "-outbox"
_FORMAT: Final = struct.Struct("<8sQ36sI")
_MAGIC: Final = b"SL-MOVED"
_LOOK_AGAIN: Final = 1.0  # seconds after which a file that was not there is looked for again


class Moved(NamedTuple):
    """The last row that was moved; position 0 where none was."""

    position: int = 0
    event_id: str = ""


class MovedFile:
    """The file, for the relay."""

    def __init__(self, database: str) -> None:
        self._path = f"{database}{SUFFIX}"
        self._fd = -1

    @contextlib.contextmanager
    def locked(self) -> Iterator[bool]:
        """Hold it against other relays; False where one of them has it."""
        if self._fd < 0 or not os.fstat(self._fd).st_nlink:
            self.close()
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def read(self) -> Moved:
        """What it says; nothing where it is new or damaged."""
        return _parse(os.pread(self._fd, _FORMAT.size, 0))

    def write(self, moved: Moved) -> None:
        """Say how far the rows have been moved by now."""
        content = _FORMAT.pack(_MAGIC, moved.position, moved.event_id.encode(), 0)[:-4]
        os.pwrite(self._fd, content + struct.pack("<I", zlib.crc32(content)), 0)

    def close(self) -> None:
        """Close the file."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def look(database: str) -> Moved:
    """What the file beside a database says, if there is one."""
    try:
        with Path(f"{database}{SUFFIX}").open("rb") as file:
            return _parse(file.read(_FORMAT.size))
    except OSError:
        return Moved()


def _parse(content: bytes) -> Moved:
    if len(content) < _FORMAT.size:
        return Moved()
    magic, position, event_id, crc = _FORMAT.unpack(content)
    if magic != _MAGIC or zlib.crc32(content[:-4]) != crc:
        return Moved()
    return Moved(position, event_id.rstrip(b"\0").decode("ascii", "replace"))


_open_files: dict[str, tuple[int, float]] = {}


def moved_from(database: str) -> Moved:
    """For who joins a transaction: how far the rows have been moved."""
    fd, looked = _open_files.get(database, (-1, 0.0))
    if fd < 0:
        if time.monotonic() - looked < _LOOK_AGAIN:
            return Moved()
        with contextlib.suppress(OSError):
            fd = os.open(f"{database}{SUFFIX}", os.O_RDONLY | os.O_CLOEXEC)
        _open_files[database] = fd, time.monotonic()
        if fd < 0:
            return Moved()
    return _parse(os.pread(fd, _FORMAT.size, 0))
