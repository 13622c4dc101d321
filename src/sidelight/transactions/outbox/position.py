"""How far a relay has moved the rows of a SQLite outbox: a small file beside the database.

The relay writes this file instead of the database, because a second writer there would give the
business SQLITE_BUSY_SNAPSHOT. The next joined transaction deletes the rows up to the position. The
position names its row by number and by event id, and that row is kept: where the table does not
have it, the database was restored or made anew, and the position says nothing about it.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from sidelight.host import Descriptor, monotonic
from sidelight.spool import DISK, pread
from sidelight.store import beside

SUFFIX: Final = "-outbox"
_FORMAT: Final = struct.Struct("<8sQ36sI")
_MAGIC: Final = b"SL-MOVED"
_LOOK_AGAIN: Final = 1.0  # seconds until a file that was missing is looked for again


class Position(NamedTuple):
    """The last row that was moved; number 0 where none was."""

    number: int = 0
    event_id: str = ""


class PositionFile:
    """The file of a relay, which has it open only within `locked`."""

    def __init__(self, database: str) -> None:
        self._database = database
        self._fd = -1

    @contextlib.contextmanager
    def locked(self) -> Iterator[bool]:
        """Open the file, locked against other relays; False where another relay has the lock."""
        path = beside(self._database, SUFFIX)
        self._fd = DISK.open_or_create(path, 0o644)  # the business reads it
        try:
            yield DISK.lock(self._fd) and DISK.is_at(self._fd, path)
        finally:
            DISK.unlock(self._fd)
            self.close()

    def read(self) -> Position:
        """Return the position; 0 where the file is new or damaged."""
        return _parse(DISK.read(self._fd, _FORMAT.size, 0))

    def write(self, position: Position) -> None:
        """Write the position of the last row that was moved."""
        content = _FORMAT.pack(_MAGIC, position.number, position.event_id.encode(), 0)[:-4]
        DISK.write(self._fd, content + struct.pack("<I", zlib.crc32(content)), 0)

    def close(self) -> None:
        """Close the file."""
        fd, self._fd = self._fd, -1
        DISK.close(fd)


def read_position(database: str) -> Position:
    """Return the position in the file beside a database; 0 where there is none."""
    with contextlib.suppress(OSError), _opened(database) as fd:
        return _parse(pread(fd, _FORMAT.size, 0))
    return Position()


def _opened(database: str) -> Descriptor:
    path = beside(database, SUFFIX)
    return Descriptor(os.open(path, os.O_RDONLY), path)


def unwritable_beside(database: str) -> Path | None:
    """Return what keeps this user from noting a position; None where nothing does."""
    path = beside(database, SUFFIX)
    place = path if path.exists() else path.parent
    return None if os.access(place, os.W_OK) else place


def _parse(content: bytes) -> Position:
    if len(content) < _FORMAT.size:
        return Position()
    magic, number, event_id, crc = _FORMAT.unpack(content)
    if magic != _MAGIC or zlib.crc32(content[:-4]) != crc:
        return Position()
    return Position(number, event_id.rstrip(b"\0").decode("ascii", "replace"))


_open_files: dict[str, tuple[Descriptor | None, float]] = {}


def position_beside(database: str) -> Position:
    """Return what `read_position` returns; the file stays open for the next joined event."""
    fd, looked = _open_files.get(database, (None, -_LOOK_AGAIN))
    if fd is not None and not fd.is_own():  # other code has closed it
        fd, looked = None, -_LOOK_AGAIN
    with contextlib.suppress(OSError):
        if monotonic() - looked >= _LOOK_AGAIN:  # it may be new, or replaced
            if fd is None or not DISK.is_at(fd, beside(database, SUFFIX)):
                # The one before stays open, because another thread may be reading it.
                _open_files[database] = None, monotonic()
                fd = _opened(database)
            _open_files[database] = fd, monotonic()
        if fd is not None:
            return _parse(pread(fd, _FORMAT.size, 0))
    return Position()
