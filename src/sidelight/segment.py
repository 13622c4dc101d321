"""One segment of the spool: a preallocated file, mapped by its writer, scanned by its readers.

Layout: a header page, then frames, then zeros. The header page holds a magic, one eight-byte cursor
for each kind of sink, and a msgpack map that says whose records these are. A frame is
``magic (4) · length (4) · CRC-32 of the payload (4) · payload``.

The writer's side is one C call, ``mmap.write``, which copies and advances under the GIL: frames of
several threads and of signal handlers never interleave. It raises ValueError at the end.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import struct
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from sidelight.record import FRAME, FRAME_MAGIC, random_bits

PAGE: Final = 4096
SUFFIX: Final = ".segment"
_HEADER: Final = struct.Struct("<8sII")
_HEADER_MAGIC: Final = b"SIDELITE"
_VERSION: Final = 1
_CURSORS_AT: Final = 64
_META_AT: Final = 256
_SLOTS: Final[Mapping[str, int]] = {"store": 0, "traces": 1, "logs": 2, "stream": 3}
_LOCK: Final = struct.Struct("hhqqi4x")
_READER_LOCK: Final = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
_WRITER_LOCK: Final = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 1, 1, 0)  # for those who only ask
_READ: Final = 512 * 1024  # more than the largest frame
_MADV_POPULATE_WRITE: Final = 23  # Linux; the mmap module has no name for it yet
_ZEROS: Final = bytes(256 * 1024)


@dataclass(slots=True)
class Batch:
    """Payloads read in order; ``end`` is the offset behind the last of them."""

    payloads: list[bytes] = field(default_factory=list)
    start: int = 0
    end: int = 0
    damaged: list[tuple[int, bytes]] = field(default_factory=list)


class Segment:
    """A segment that this process has open: its own, or one that it reads."""

    def __init__(
        self, fd: int, path: Path | None, mapping: mmap.mmap | None, size: int, meta: dict[str, Any]
    ) -> None:
        self.fd = fd
        self.path = path
        self.mapping = mapping
        self.size = size
        self.meta = meta
        self.sealed = mapping is None
        self.number = 0
        self.created = time.monotonic()
        self.synced = PAGE
        self.passed: set[str] = set()
        self.cursors: dict[str, int] = dict.fromkeys(_SLOTS, PAGE)

    # -- the writer's side -------------------------------------------------------------------

    @classmethod
    def create(cls, directory: Path | None, size: int, meta: Mapping[str, Any]) -> Segment:
        """Allocate a segment in full and touch its pages; with no directory, in memory.

        It is locked under a temporary name before it gets its own: whoever sees a segment and can
        lock it knows that its owner is dead.

        Raises:
            OSError: there is no room, or no right to write.
        """
        header = _header(meta)
        if directory is None:
            mapping = mmap.mmap(-1, size)
            mapping[: len(header)] = header
            mapping.seek(PAGE)
            return cls(-1, None, mapping, size, dict(meta))
        fd, name = _new_file(directory)
        temporary = directory / f".{name}.new"
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _WRITER_LOCK)
            os.posix_fallocate(fd, 0, size)
            for offset in range(0, size, len(_ZEROS)):
                os.pwrite(fd, _ZEROS[: size - offset], offset)
            os.pwrite(fd, header, 0)
            mapping = mmap.mmap(fd, size)
            _map_pages(mapping, size)
            mapping.seek(PAGE)
            path = directory / f"{name}{SUFFIX}"
            temporary.rename(path)
        except BaseException:
            os.close(fd)
            temporary.unlink(missing_ok=True)
            raise
        return cls(fd, path, mapping, size, dict(meta))

    @property
    def write(self) -> Callable[[bytes], int]:
        """The C call that appends a frame; ValueError when the segment is full or closed."""
        if self.mapping is None:
            raise ValueError(self.path)
        return self.mapping.write

    def tell(self) -> int:
        """The offset behind the last frame."""
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

    def sync(self) -> None:
        """Make what was written so far survive a power loss."""
        if self.fd >= 0:
            os.fdatasync(self.fd)

    def close(self) -> None:
        """Let go of the mapping and, where no forked child holds it too, of the lock."""
        self.sealed = True
        if self.mapping is not None:
            self.mapping.close()
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    # -- the readers' side -------------------------------------------------------------------

    @classmethod
    def adopt(cls, path: Path) -> Segment | None:
        """Take over a dead process's segment; None where its owner or another reader lives.

        Raises:
            OSError: it cannot be opened.
        """
        segment = cls._claimed(path)
        return segment if segment is not None and segment.orphaned() else None

    @classmethod
    def attend(cls, path: Path) -> Segment | None:
        """Read along while its owner lives, where the owner leaves that to others.

        Raises:
            OSError: it cannot be opened.
        """
        segment = cls._claimed(path)
        if segment is None or segment.meta.get("relay") != "external":
            return None
        segment.sealed = False
        return segment

    @classmethod
    def _claimed(cls, path: Path) -> Segment | None:
        """Open it as its one reader, who holds a lock of his own beside the owner's."""
        segment = cls._opened(path, os.O_RDWR)
        if segment is None:
            return None
        try:
            fcntl.fcntl(segment.fd, fcntl.F_OFD_SETLK, _READER_LOCK)
        except BlockingIOError:
            return None
        # The reader before us may have drained and removed it meanwhile.
        return segment if os.fstat(segment.fd).st_nlink else None

    def orphaned(self) -> bool:
        """Whether the owner of an attended segment has let go of it; it is ours then."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self.sealed = True
        return True

    @classmethod
    def look(cls, path: Path) -> Segment:
        """Open a segment to read, whoever owns it, changing nothing.

        Raises:
            OSError: it cannot be opened.
        """
        segment = cls._opened(path, os.O_RDONLY)
        if segment is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        segment.sealed = False
        return segment

    @classmethod
    def _opened(cls, path: Path, mode: int) -> Segment | None:
        """Open a file of another process; None where it has gone. The segment closes it."""
        try:
            fd = os.open(path, mode | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        segment = cls(fd, path, None, os.fstat(fd).st_size, {})
        segment.meta = _read_meta(os.pread(fd, PAGE, 0))
        for sink, slot in _SLOTS.items():
            (cursor,) = struct.unpack("<Q", os.pread(fd, 8, _CURSORS_AT + 8 * slot).ljust(8, b"\0"))
            segment.cursors[sink] = cursor if PAGE <= cursor <= segment.size else PAGE
        return segment

    @property
    def written(self) -> bool:
        """Whether the process that made it holds it still; asked without taking a lock."""
        return _is_held(self.fd, _WRITER_LOCK)

    @property
    def attended(self) -> bool:
        """Whether a relay of another process reads it; asked without taking a lock."""
        return _is_held(self.fd, _READER_LOCK)

    @property
    def live(self) -> bool:
        """Whether somebody may still be writing."""
        return not self.sealed

    def read(self, offset: int, limit: int = _READ) -> bytes:
        """Bytes from ``offset``."""
        end = min(self.size, offset + limit)
        if self.fd < 0:
            return b"" if self.mapping is None else self.mapping[offset:end]
        return os.pread(self.fd, end - offset, offset)

    def advance(self, sink: str, offset: int) -> None:
        """Remember how far ``sink`` has got: a hint for whoever comes next."""
        self.cursors[sink] = offset
        if self.fd >= 0:
            os.pwrite(self.fd, struct.pack("<Q", offset), _CURSORS_AT + 8 * _SLOTS[sink])

    def remove(self) -> None:
        """Delete the file; whoever is still reading it may go on."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def __del__(self) -> None:
        self.close()


def _is_held(fd: int, lock: bytes) -> bool:
    """Whether somebody else holds a lock on these bytes."""
    kind, *_ = _LOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, lock))
    return bool(kind != fcntl.F_UNLCK)


def _new_file(directory: Path) -> tuple[int, str]:
    """Make a file with a temporary name, and lock it: its descriptor, and its name to be.

    Between the two another process may take it for what a dead one has left, and delete it.
    """
    while True:
        name = f"{time.time_ns():016x}-{random_bits(32):08x}"
        temporary = directory / f".{name}.new"
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink:
                return fd, name
        except BlockingIOError:
            pass
        except BaseException:
            os.close(fd)
            temporary.unlink(missing_ok=True)
            raise
        os.close(fd)


def _map_pages(mapping: mmap.mmap, size: int) -> None:
    """Take the page faults now: else the caller takes one for each page, some of 10 µs.

    In pieces, because the call keeps the GIL. Kernels before 5.14 do not have it.
    """
    with contextlib.suppress(OSError, ValueError):
        for offset in range(0, size, len(_ZEROS)):
            mapping.madvise(_MADV_POPULATE_WRITE, offset, min(len(_ZEROS), size - offset))


def _header(meta: Mapping[str, Any]) -> bytes:
    encoded = msgspec.msgpack.encode(dict(meta))
    if len(encoded) > PAGE - _META_AT:
        encoded = msgspec.msgpack.encode({})
    head = _HEADER.pack(_HEADER_MAGIC, _VERSION, len(encoded))
    return head.ljust(_META_AT, b"\0") + encoded


def _read_meta(page: bytes) -> dict[str, Any]:
    """The header's map; a damaged header costs its map, not the records behind it."""
    if len(page) < _HEADER.size:
        return {}
    _, _, length = _HEADER.unpack_from(page)
    try:
        meta = msgspec.msgpack.decode(page[_META_AT : _META_AT + min(length, PAGE)])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return meta if isinstance(meta, dict) else {}


class Scanner:
    """Reads one segment's frames in order, from a cursor.

    While the writer lives, zeros mean "nothing yet" and a bad CRC "not yet" (a reader in another
    thread can see a frame half copied). Once it is dead or the segment sealed, a bad frame is
    damage: the search for the next good one goes on one byte past its magic, never by the length
    that it claims, and the stretch between is handed out to be set aside.
    """

    def __init__(self, segment: Segment, offset: int) -> None:
        self.segment = segment
        self.offset = offset
        self._data = b""
        self._base = offset
        self._is_whole = False

    def batch(self, limit: int) -> Batch:
        """Up to ``limit`` payloads; an empty batch means that there is nothing to read now."""
        final = not self.segment.live  # read before the data: what is sealed now stays so
        batch = Batch(start=self.offset, end=self.offset)
        self._fill(final=final)
        data, base = self._data, self._base
        position, end = self.offset - base, len(data)
        unpack, crc32, head = FRAME.unpack_from, zlib.crc32, FRAME.size
        payloads = batch.payloads
        while len(payloads) < limit and position + head <= end:
            magic, length, crc = unpack(data, position)
            body = position + head
            if magic == FRAME_MAGIC and body + length <= end:
                payload = data[body : body + length]
                if length and crc32(payload) == crc:
                    payloads.append(payload)
                    position = body + length
                    continue
            elif magic == FRAME_MAGIC and base + body + length <= self.segment.size and not final:
                break  # the rest of this frame lies beyond what was read
            if not final:
                break
            following = data.find(FRAME_MAGIC, position + 1)
            lost = data[position : following if following >= 0 else end].rstrip(b"\0")
            if lost:  # without the zeros before it, except for those that were a head
                blank = max(0, len(lost) - len(lost.lstrip(b"\0")) - head)
                batch.damaged.append((base + position + blank, lost[blank:]))
            position = following if following >= 0 else end
        self.offset = batch.end = base + position
        return batch

    def _fill(self, *, final: bool) -> None:
        """Read on. What is final is read to its end at once: damage may hide where frames begin.

        What was read before the end of the writing, even up to the end of the file, is not that.
        """
        if final and not self._is_whole:
            self._base, self._data = self.offset, self.segment.read(self.offset, self.segment.size)
            self._is_whole = True
        elif not final:
            begins = self.segment.read(self.offset, len(FRAME_MAGIC)) == FRAME_MAGIC
            self._base = self.offset
            self._data = self.segment.read(self.offset) if begins else b""


def is_full(error: OSError) -> bool:
    """Whether an allocation failed for want of room."""
    return error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
