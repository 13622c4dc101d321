"""One segment of the spool: a preallocated file, mapped by its writer, read by its readers.

A `header` page, then frames, then zeros. A frame is
``magic (4) · length (4) · CRC-32 of the payload (4) · payload``.

The writer's side is one C call, ``mmap.write``, which copies and advances under the GIL: frames of
several threads and of signal handlers never interleave. It raises ValueError at the end.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from sidelight.record import FRAME_MAGIC, length_of_frames
from sidelight.spool.allocation import NAME, WRITERS_BYTE, ZEROS, map_pages, new_file, write_whole
from sidelight.spool.disk import DISK, Disk
from sidelight.spool.header import (
    PAGE,
    SLOTS,
    VERSION,
    Header,
    cursor_place,
    packed,
    packed_cursor,
    parsed,
    parsed_cursor,
)

SMALL: Final = 64 * 1024
READ: Final = 512 * 1024
"""Bytes of one read: more than the largest frame has."""
_READERS_BYTE: Final = 0
_GONE: Final = b"\xff"  # what the disk could not read; no frame begins with it


class Segment:
    """A segment that this process has open: its own, or one that it reads.

    Attributes:
        path: None where it is in memory only.
        sealed: nothing is written to it any more.
        number: its place among this process's own; 0 for those of others.
        synced: up to where it would survive a power loss.
        passed: the sinks that have all of it.
        cursors: how far each sink has got.
        is_sick: the disk cannot read all of it; what it cannot is passed over.
    """

    fd = -1  # for `__del__`: whoever makes one may be interrupted
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
        self.created = time.monotonic()
        self.synced = PAGE
        self.passed: set[str] = set()
        self.cursors: dict[str, int] = dict.fromkeys(SLOTS, PAGE)
        self.is_sick = False

    # -- the writer's side -------------------------------------------------------------------

    @classmethod
    def create(
        cls, directory: Path | None, size: int, meta: Mapping[str, Any], disk: Disk = DISK
    ) -> Segment:
        """Allocate a segment in full and touch its pages; with no directory, in memory.

        It is locked under a temporary name before it gets its own: whoever sees a segment and can
        lock it knows that its owner is dead.

        Raises:
            OSError: there is no room, or no right to write.
        """
        header = Header(VERSION, dict(meta))
        head = packed(meta)
        if directory is None:
            mapping = disk.map(-1, size)
            map_pages(mapping, size)
            mapping[: len(head)] = head
            mapping.seek(PAGE)
            return cls(-1, None, mapping, size, header, disk)
        pieces = (ZEROS[: size - offset] for offset in range(0, size, len(ZEROS)))
        with new_file(directory, size, pieces, disk) as (fd, path):
            write_whole(disk, fd, head, 0)
            mapping = disk.map(fd, size)
            map_pages(mapping, size)
            mapping.seek(PAGE)
        return cls(fd, path, mapping, size, header, disk)

    def dedicate(self, meta: Mapping[str, Any]) -> bool:
        """Say anew whose records these will be; False where its file is gone.

        A copy within memory: the disk may be busy.
        """
        if self.mapping is None or self.is_threatened():
            return False
        self.mapping[:PAGE] = packed(meta).ljust(PAGE, b"\0")
        self.meta = dict(meta)
        return True

    @property
    def write(self) -> Callable[[bytes], int]:
        """The C call that appends a frame; ValueError when the segment is full or closed."""
        if self.mapping is None:
            raise ValueError(self.path)
        return self.mapping.write

    def tell(self) -> int:
        """The offset behind the last frame; of one that is sealed or another's, its size."""
        try:
            return self.mapping.tell() if self.mapping is not None else self.size
        except ValueError:
            return self.size

    def seal(self) -> None:
        """Let no later write in, also none of a thread that still holds the bound `write`."""
        if self.mapping is not None:
            with contextlib.suppress(ValueError):  # closed already: drained meanwhile
                self.mapping.seek(0, os.SEEK_END)
        self.sealed = True

    def is_homeless(self) -> bool:
        """Whether its writer has it without a file, or with one that was deleted."""
        return self.mapping is not None and (self.fd < 0 or not self.disk.is_linked(self.fd))

    def is_threatened(self) -> bool:
        """Whether the file of this mapping was deleted or cut short by somebody.

        What is written to it now would die with the process; behind a cut it would kill it.
        """
        if self.fd < 0 or self.mapping is None:
            return False
        return self.is_homeless() or self.disk.size(self.fd) < self.size

    def saved(self, directory: Path) -> Segment:
        """A sealed segment that has no file, or none any more, in a file of its own.

        Raises:
            OSError: there is no room, or no right to write.
        """
        pieces = (self.read(at, len(ZEROS)) for at in range(0, self.size, len(ZEROS)))
        with new_file(directory, self.size, pieces, self.disk) as (fd, path):
            write_whole(self.disk, fd, packed(self.meta), 0)
        saved = Segment(fd, path, None, self.size, Header(self.version, self.meta), self.disk)
        saved.number, saved.created = self.number, self.created
        saved.cursors, saved.passed = self.cursors, self.passed  # whoever reads the old one counts
        return saved

    def sync(self) -> None:
        """Make what was written so far survive a power loss.

        Raises:
            OSError: it would not.
        """
        end, whole = self.extent()
        if self.fd >= 0 and self.synced < end:
            self.disk.sync(self.fd)
            if whole:
                self.synced = end

    def trim(self) -> None:
        """Give back the room behind the last frame: nobody is to write any more.

        64 KiB stay: so a bound in bytes bounds the number of files as well. Where there is more
        than frames and then zeros, as after damage, all stays as it is.

        Raises:
            OSError: the room comes back when the file is deleted.
        """
        if self.size > SMALL and (end := max(SMALL, self._end_of_frames())) < self.size:
            self.size = end
            if self.fd >= 0:
                self.disk.truncate(self.fd, end)

    def _end_of_frames(self) -> int:
        """The end of the page with the last frame's end; the size where something follows."""
        if self.read(max(PAGE, self.size - PAGE)).strip(b"\0"):  # full
            return self.size
        end = PAGE
        while length := length_of_frames(self.read(end)):
            end += length
        if any(self.read(at).strip(b"\0") for at in range(end, self.size, READ)):
            return self.size
        return end + -end % PAGE

    def close(self) -> None:
        """Let go of the mapping and, where no forked child holds it too, of the lock."""
        self.sealed = True
        if self.mapping is not None:
            self.mapping.close()
        fd, self.fd = self.fd, -1
        if fd >= 0:
            self.disk.close(fd)

    # -- the readers' side -------------------------------------------------------------------

    @classmethod
    def adopt(cls, path: Path, disk: Disk = DISK) -> Segment | None:
        """Take over a dead process's segment; None where its owner or another reader lives.

        Raises:
            OSError: it cannot be opened.
        """
        segment = cls._claimed(path, disk)
        return segment if segment is not None and segment.orphaned() else None

    @classmethod
    def attend(cls, path: Path, disk: Disk = DISK) -> Segment | None:
        """Read along while its owner lives, where the owner leaves that to others.

        Raises:
            OSError: it cannot be opened.
        """
        segment = cls._claimed(path, disk)
        if segment is None or segment.meta.get("relay") != "external":
            return None
        segment.sealed = False
        return segment

    @classmethod
    def look(cls, path: Path, disk: Disk = DISK) -> Segment:
        """Open a segment to read, whoever owns it, changing nothing.

        Raises:
            OSError: it cannot be opened.
        """
        segment = cls._opened(path, disk, writable=False)
        if segment is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        segment.sealed = False
        return segment

    @classmethod
    def _claimed(cls, path: Path, disk: Disk) -> Segment | None:
        """Open it as its one reader, who holds a lock of his own beside the owner's."""
        segment = cls._opened(path, disk, writable=True)
        if segment is not None and not segment.version and not NAME.fullmatch(path.name):
            return None  # a stranger's file
        if (
            segment is None
            or segment.version > VERSION
            or not disk.lock_byte(segment.fd, _READERS_BYTE)
        ):
            return None
        # The reader before us may have drained and removed it meanwhile.
        return segment if disk.is_linked(segment.fd) else None

    @classmethod
    def _opened(cls, path: Path, disk: Disk, *, writable: bool) -> Segment | None:
        """Open a file of another process; None where it has gone. The segment closes it."""
        try:
            fd = disk.open(path, writable=writable)
        except FileNotFoundError:
            return None
        segment = cls(fd, path, None, 0, Header(), disk)
        segment.size = disk.size(fd)
        if segment.size < 0:  # a directory, a pipe
            return None
        page = disk.read(fd, PAGE, 0)
        header = parsed(page)
        segment.version, segment.meta = header.version, header.meta
        for sink in SLOTS:
            # One beyond the end had all that is here, and was there before a `trim`.
            cursor = min(parsed_cursor(page, sink, disk.boot()), max(segment.size, PAGE))
            if segment._may_begin(cursor):
                segment.cursors[sink] = cursor
        return segment

    def has_more(self, offset: int) -> bool:
        """Whether something was written at ``offset``."""
        return bool(self.read(offset, len(FRAME_MAGIC)).strip(b"\0"))

    def is_done(self, sinks: Iterable[str]) -> bool:
        """Whether it is full, and these sinks have all of it as well as those its writer had."""
        return self.sealed and {*sinks, *self.meta.get("sinks", ())} <= self.passed

    def is_ahead_of(self, sink: str) -> bool:
        """Whether it may hold something that a sink has not taken."""
        cursor = self.cursors[sink]
        if self.sealed or self.mapping is not None:
            return self.sealed or self.tell() > cursor
        try:
            return self.has_more(cursor)  # of another process
        except OSError:
            return True

    def _may_begin(self, offset: int) -> bool:
        """Whether a frame is at ``offset``, or none yet."""
        return offset <= self.size and self.read(offset, 4).rstrip(b"\0") in {b"", FRAME_MAGIC}

    def orphaned(self) -> bool:
        """Whether the owner of an attended segment has let go of it; it is ours then."""
        if not self.disk.lock(self.fd):
            return False
        self.sealed = True
        with contextlib.suppress(OSError):
            self.trim()
        return True

    @property
    def written(self) -> bool:
        """Whether the process that made it holds it still; asked without taking a lock."""
        return self.disk.is_byte_locked(self.fd, WRITERS_BYTE)

    @property
    def attended(self) -> bool:
        """Whether a relay of another process reads it; asked without taking a lock."""
        return self.disk.is_byte_locked(self.fd, _READERS_BYTE)

    @property
    def live(self) -> bool:
        """Whether somebody may still be writing."""
        return not self.sealed

    def extent(self) -> tuple[int, bool]:
        """How far frames may reach, and whether all up to there must be whole.

        What our own callers have written is; what another process is writing need not be yet.
        """
        return self.tell(), self.sealed or self.mapping is not None

    def read(self, offset: int, limit: int = READ) -> bytes:
        """Bytes from ``offset``; fewer where the file ends.

        Raises:
            OSError: the disk cannot read them.
        """
        end = min(self.size, offset + limit)
        if end <= offset:
            return b""
        if self.fd < 0:
            return b"" if self.mapping is None else self.mapping[offset:end]
        if not self.is_sick:
            return self.disk.read(self.fd, end - offset, offset)
        return b"".join(self._read_page(at, end) for at in _page_bounds(offset, end))

    def _read_page(self, offset: int, end: int) -> bytes:
        size = min(end, offset - offset % PAGE + PAGE) - offset
        try:
            return self.disk.read(self.fd, size, offset)
        except OSError:
            return _GONE * size

    def advance(self, sink: str, offset: int) -> None:
        """Remember how far ``sink`` has got, also for whoever comes next.

        Raises:
            OSError: whoever comes next will not know.
        """
        self.cursors[sink] = offset
        if self.fd >= 0:
            cursor = packed_cursor(sink, offset, self.disk.boot())
            self.disk.write(self.fd, cursor, cursor_place(sink))

    def remove(self) -> None:
        """Delete the file; whoever is still reading it may go on.

        Raises:
            OSError: it is still there.
        """
        if self.path is not None:
            self.disk.unlink(self.path)

    def __del__(self) -> None:
        self.close()


def _page_bounds(offset: int, end: int) -> Iterator[int]:
    """The offsets at which a read page by page begins."""
    yield offset
    yield from range(offset - offset % PAGE + PAGE, end, PAGE)
