"""One segment of the spool: a preallocated file that one process writes and others read.

A `header` page, then frames, then zeros. The writer maps the file and appends with one C call,
``mmap.write``, which copies and advances under the GIL: frames of several threads and of signal
handlers never interleave. The call raises ValueError at the end of the mapping. One page of the
file is behind that: `rescue` writes there what is to be told at the end of the process.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Self

from sidelight.host import monotonic
from sidelight.record import FRAME_MAGIC, length_of_frames
from sidelight.spool.allocation import NAME, ZEROS, new_file, write_all
from sidelight.spool.disk import DISK, Disk
from sidelight.spool.header import (
    PAGE,
    READER_BYTE,
    SLOTS,
    VERSION,
    WRITER_BYTE,
    Header,
    cursor_offset,
    decode_cursor,
    decode_header,
    encode_cursor,
    encode_header,
)
from sidelight.spool.system import populate

SMALL: Final = 64 * 1024
"""Bytes that `Segment.trim` leaves of a segment."""
READ: Final = 512 * 1024
"""Bytes of one read: more than the largest frame has."""
_UNREADABLE: Final = b"\xff"  # stands for each byte that the disk cannot read; begins no frame


class Segment:
    """A segment that this process has open, as its writer or as a reader.

    Attributes:
        fd: the open file; -1 for a segment in memory, and after `close`.
        path: name of the file; None for a segment in memory.
        mapping: the writer's mapping; None for a reader.
        size: length in bytes.
        meta: describes the writer; see `Header`.
        sealed: no frame is added any more.
        number: position among this process's own segments, from 1; 0 for another process's.
        created: monotonic clock when this process began to use the segment (s).
        synced: the offset up to which the content survives a power loss.
        cursors: the offset that each sink has reached.
        delivered_to: the sinks that have all of it.
        is_unreadable: the disk cannot read all of it; readers skip what it cannot read.
    """

    fd = -1  # `__del__` needs it, also where a signal interrupts the constructor
    mapping: mmap.mmap | None = None

    def __init__(
        self,
        fd: int,
        path: Path | None,
        mapping: mmap.mmap | None,
        size: int,
        header: Header,
        disk: Disk,
    ) -> None:
        self.disk = disk
        self.fd = fd
        self.path = path
        self.mapping = mapping
        self.size = size
        self.version, self.meta = header.version, header.meta
        self.sealed = mapping is None
        self.number = 0
        self.created = monotonic()
        self.synced = PAGE
        self.cursors: dict[str, int] = dict.fromkeys(SLOTS, PAGE)
        self.delivered_to: set[str] = set()
        self.is_unreadable = False

    # -- the writer's side -------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        directory: Path | None,
        size: int,
        meta: Mapping[str, Any],
        disk: Disk = DISK,
        check: Callable[[], object] = bool,
    ) -> Self:
        """Allocate a segment in full and touch its pages; without a directory, in memory.

        The file gets its name when it is locked and ``check`` has raised no error. So a process
        that finds a segment and gets its lock knows that the writer is dead.

        Raises:
            OSError: there is no room, or no right to write.
        """
        header = Header(VERSION, dict(meta))
        head = encode_header(meta)
        if directory is None:
            mapping = disk.map(-1, size - PAGE)
            populate(mapping, size - PAGE)
            mapping[: len(head)] = head
            mapping.seek(PAGE)
            return cls(-1, None, mapping, size, header, disk)
        pieces = (ZEROS[: size - offset] for offset in range(0, size, len(ZEROS)))
        with new_file(directory, size, pieces, disk) as (fd, path):
            write_all(disk, fd, head, 0)
            mapping = disk.map(fd, size - PAGE)
            populate(mapping, size - PAGE)
            mapping.seek(PAGE)
            check()
        return cls(fd, path, mapping, size, header, disk)

    def reassign(self, meta: Mapping[str, Any]) -> bool:
        """Give an unused segment to another writer; return False where its file is lost.

        The header is copied within memory, because the disk may be busy.
        """
        if (mapping := self.mapping) is None or self.has_lost_file():
            return False
        mapping[:PAGE] = encode_header(meta).ljust(PAGE, b"\0")
        self.meta = dict(meta)
        return True

    @property
    def write(self) -> Callable[[bytes], int]:
        """The C function that appends a frame; ValueError when the segment is full or closed."""
        if self.mapping is None:
            raise ValueError(self.path)
        return self.mapping.write

    def tell(self) -> int:
        """Return the offset behind the last frame; the size of a sealed or foreign segment."""
        try:
            return self.mapping.tell() if self.mapping is not None else self.size
        except ValueError:
            return self.size

    def seal(self) -> None:
        """Refuse later writes, also of a thread that still holds the bound `write`."""
        if (mapping := self.mapping) is not None:
            with contextlib.suppress(ValueError):  # delivered and closed meanwhile
                mapping.seek(0, os.SEEK_END)
        self.sealed = True

    def lacks_file(self) -> bool:
        """Return whether no file at the path holds the frames: memory, deleted, moved or closed."""
        if self.path is not None and self.has_descriptor():
            return not self.disk.is_at(self.fd, self.path)
        return self.mapping is not None

    def has_descriptor(self) -> bool:
        """Return whether the file is open; forget a descriptor that other code has closed."""
        if self.fd >= 0 and not self.disk.is_own(self.fd):
            self.fd = -1
        return self.fd >= 0

    def has_lost_file(self) -> bool:
        """Return whether the file below the mapping was deleted, moved, cut short or closed.

        Frames in a deleted file die with the process, and no relay finds a file that was moved. A
        write behind the cut kills the process. A closed file has no lock: it looks like an orphan.
        """
        if self.path is None or self.mapping is None:
            return False
        return self.lacks_file() or self.disk.size(self.fd) < self.size

    def copy_to(self, directory: Path) -> Segment:
        """Copy a sealed segment that lacks a file into a new file.

        Raises:
            OSError: there is no room, or no right to write.
        """
        pieces = (self.read(at, len(ZEROS)) for at in range(0, self.size, len(ZEROS)))
        with new_file(directory, self.size, pieces, self.disk) as (fd, path):
            write_all(self.disk, fd, encode_header(self.meta), 0)
        copy = Segment(fd, path, None, self.size, Header(self.version, self.meta), self.disk)
        copy.number, copy.created = self.number, self.created
        # Shared, because a worker may still be reading the original.
        copy.cursors, copy.delivered_to = self.cursors, self.delivered_to
        return copy

    def sync(self) -> None:
        """Make the frames that were written so far survive a power loss.

        Raises:
            OSError: they might not survive.
        """
        end, is_final = self.extent()
        if self.fd >= 0 and self.synced < end:
            self.disk.sync(self.fd)
            if is_final:
                self.synced = end

    def trim(self) -> None:
        """Give back the room behind the last frame of a segment that nobody writes to.

        64 KiB stay, so that a limit in bytes limits the number of files as well, and a page for
        `rescue`. Where anything but zeros follows the frames, as after damage, it keeps its size.

        Raises:
            OSError: the room comes back when the file is deleted.
        """
        end = self.end_of_frames() if self.size > SMALL else self.size
        if (end := max(SMALL, end + -end % PAGE + PAGE)) < self.size:
            self.size = end
            if self.fd >= 0:
                self.disk.truncate(self.fd, end)

    def end_of_frames(self) -> int:
        """Return the offset behind the last frame; the size where anything but zeros follows."""
        free = max(PAGE, self.size - PAGE)
        if self.read(free).strip(b"\0"):
            return self.size
        if self.read(max(PAGE, free - PAGE)).strip(b"\0"):  # full
            return free
        end = PAGE
        while length := length_of_frames(self.read(end)):
            end += length
        follows = any(self.read(at).strip(b"\0") for at in range(end, self.size, READ))
        return self.size if follows else end

    def close(self) -> None:
        """Close mapping and file; the lock ends unless a forked child has the file open too."""
        self.sealed = True
        if self.mapping is not None:
            self.disk.unmap(self.mapping)
            self.mapping = None
        fd, self.fd = self.fd, -1
        if fd >= 0:
            self.disk.close(fd)

    # -- the readers' side -------------------------------------------------------------------

    @classmethod
    def adopt(cls, path: Path, disk: Disk = DISK) -> Segment | None:
        """Take over an orphaned segment; None where its writer or another reader lives."""
        segment = cls._open_as_reader(path, disk)
        return segment if segment is not None and segment.take_ownership() else None

    @classmethod
    def adopt_or_follow(cls, path: Path, disk: Disk = DISK) -> Segment | None:
        """Adopt an orphaned segment, or read one whose living writer wants an external relay."""
        segment = cls._open_as_reader(path, disk)
        if segment is None or segment.take_ownership():
            return segment
        segment.sealed = False
        return segment if segment.meta.get("relay") == "external" else None

    @classmethod
    def inspect(cls, path: Path, disk: Disk = DISK) -> Segment:
        """Open any segment read-only; take no lock."""
        segment = cls._open(path, disk, writable=False)
        if segment is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        segment.sealed = False
        return segment

    @classmethod
    def _open_as_reader(cls, path: Path, disk: Disk) -> Segment | None:
        """Open a segment as its only reader; None where that is not possible."""
        segment = cls._open(path, disk, writable=True)
        if segment is not None and not segment.version and not NAME.fullmatch(path.name):
            return None  # a file that sidelight has not made
        if (
            segment is None
            or segment.version > VERSION
            or not disk.lock_byte(segment.fd, READER_BYTE)
        ):
            return None
        # The reader before may have delivered and deleted the file meanwhile.
        return segment if disk.is_linked(segment.fd) else None

    @classmethod
    def _open(cls, path: Path, disk: Disk, *, writable: bool) -> Segment | None:
        """Open another process's file; None where it is gone or not a regular file."""
        try:
            fd = disk.open(path, writable=writable)
        except FileNotFoundError:
            return None
        segment = cls(fd, path, None, 0, Header(), disk)
        segment.size = disk.size(fd)
        if segment.size < 0:
            return None
        page = disk.read(fd, PAGE, 0)
        header = decode_header(page)
        segment.version, segment.meta = header.version, header.meta
        for sink in SLOTS:
            # A cursor behind the end was valid before a `trim`: its sink has all frames.
            cursor = min(decode_cursor(page, sink, disk.boot()), max(segment.size, PAGE))
            if segment._may_begin_frame(cursor):
                segment.cursors[sink] = cursor
        return segment

    def _may_begin_frame(self, offset: int) -> bool:
        """Return whether a frame, or nothing yet, is at ``offset``."""
        found = self.read(offset, len(FRAME_MAGIC)).rstrip(b"\0")
        return offset <= self.size and found in {b"", FRAME_MAGIC}

    def has_more(self, offset: int) -> bool:
        """Return whether anything was written at ``offset``."""
        return bool(self.read(offset, len(FRAME_MAGIC)).strip(b"\0"))

    def is_delivered_to(self, sinks: Iterable[str]) -> bool:
        """Return whether it is sealed, and ``sinks`` and the sinks of its writer have all of it."""
        return self.sealed and {*sinks, *self.meta.get("sinks", ())} <= self.delivered_to

    def may_have_more_for(self, sink: str) -> bool:
        """Return whether it may hold a frame that ``sink`` has not taken."""
        cursor = self.cursors[sink]
        if self.sealed or self.mapping is not None:
            return self.sealed or self.tell() > cursor
        try:
            return self.has_more(cursor)
        except OSError:
            return True

    def take_ownership(self) -> bool:
        """Become the owner of a followed segment; return False while its writer lives."""
        if not self.disk.lock(self.fd):
            return False
        self.size = self.disk.size(self.fd)  # its writer may have added to it at its end
        self.sealed = True
        with contextlib.suppress(OSError):
            self.trim()
        return True

    @property
    def has_writer(self) -> bool:
        """Whether the process that created it still has it; takes no lock."""
        return self.disk.is_byte_locked(self.fd, WRITER_BYTE)

    @property
    def has_reader(self) -> bool:
        """Whether a relay of another process reads it; takes no lock."""
        return self.disk.is_byte_locked(self.fd, READER_BYTE)

    def extent(self) -> tuple[int, bool]:
        """Return how far frames may reach, and whether all frames up to there must be complete.

        Frames of this process are complete. Another process may be in the middle of one.
        """
        return self.tell(), self.sealed or self.mapping is not None

    def read(self, offset: int, limit: int = READ) -> bytes:
        """Read up to ``limit`` bytes at ``offset``; fewer where the segment ends.

        Raises:
            OSError: the disk cannot read them.
        """
        end = min(self.size, offset + limit)
        if end <= offset:
            return b""
        if self.fd < 0:
            return b"" if self.mapping is None else self.mapping[offset:end]
        if not self.is_unreadable:
            return self.disk.read(self.fd, end - offset, offset)
        pages = range(offset - offset % PAGE + PAGE, end, PAGE)
        return b"".join(self._read_page(at, end) for at in (offset, *pages))

    def _read_page(self, offset: int, end: int) -> bytes:
        size = min(end, offset - offset % PAGE + PAGE) - offset
        try:
            return self.disk.read(self.fd, size, offset)
        except OSError:
            return _UNREADABLE * size

    def advance(self, sink: str, offset: int) -> None:
        """Move a sink's cursor, also in the file for the next reader.

        Raises:
            OSError: the cursor moved in this process only.
        """
        self.cursors[sink] = offset
        if self.fd >= 0:
            cursor = encode_cursor(sink, offset, self.disk.boot())
            self.disk.write(self.fd, cursor, cursor_offset(sink))

    def remove(self) -> None:
        """Delete the file; readers that have it open may go on.

        Raises:
            OSError: the file is still there.
        """
        if self.path is not None:
            self.disk.unlink(self.path)

    def __del__(self) -> None:
        self.close()
