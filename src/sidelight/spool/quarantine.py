"""The quarantine: one file for each poison record or damaged stretch that cannot be delivered.

An entry tells its kind, the reason, the writer, and the sinks that lack it, so that it can be
inspected and delivered again later. The name of an entry is derived from its content, so that a
record that is refused twice is one entry. The ledgers of a process that a sink refuses are one
entry, because another ledger comes after each loss. The number and the bytes of entries are limited
for each sink, so that a flood of refusals fills no disk and one sink takes no room from another.
"""

from __future__ import annotations

import contextlib
import errno
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from sidelight.host import allocate_lock, monotonic, sleep, status_of
from sidelight.record import encode, is_ledger, merge_ledgers, random_bits
from sidelight.spool.allocation import write_all
from sidelight.spool.disk import DISK, make_private_directory

DIRECTORY: Final = "quarantine"
LIMIT: Final = 1000
"""Entries that are kept for each sink."""
LIMIT_BYTES: Final = 64 * 1024 * 1024
"""Bytes that are kept for each sink: twice the largest segment."""
_NAME: Final = re.compile(r"([0-9a-f]{16})-([a-z]+)\.msgpack")
_COUNT_AGAIN: Final = 1.0  # seconds
_PATIENCE: Final = 5.0  # seconds for another process, which may be stopped, to write one entry
_PAUSE: Final = 0.005  # seconds between two attempts to lock
_UNFINISHED: Final = 3600.0  # seconds after which an unfinished file is deleted


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One quarantined record or stretch.

    Attributes:
        kind: a whole "record", or a damaged "stretch" of a segment.
        reason: the loss reason under which it was counted.
        problem: the latest problem in words.
        refused_by: the sink that refused it; None where no sink can read it.
        sinks: the sinks that lack it.
        at: wall clock when it was quarantined (ns since 1970).
        writer: describes the writer (the header of the segment).
        segment: name of the segment, without its suffix.
        offset: offset in the segment; None where it is unknown.
        payload: the bytes of the record or stretch.
    """

    kind: Literal["record", "stretch"]
    reason: str
    problem: str
    refused_by: str | None
    sinks: tuple[str, ...]
    at: int
    writer: dict[str, Any]
    segment: str
    offset: int | None
    payload: bytes

    @property
    def name(self) -> str:
        """Name of its file, derived from its content and the sink that it is kept for."""
        from hashlib import blake2b  # noqa: PLC0415  # slow to import, seldom needed

        content = self.payload
        if self.is_refused_ledger:
            content = str(self.writer.get("instance")).encode()
        digest = blake2b(content, digest_size=8)
        if self.refused_by is None:  # two damaged stretches may have the same bytes
            digest.update(f"{self.segment} {self.offset}".encode())
        return f"{digest.hexdigest()}-{self.bucket}.msgpack"

    @property
    def is_refused_ledger(self) -> bool:
        """Whether it holds what a process tells of its losses and costs, as far as refused."""
        return self.refused_by is not None and is_ledger(self.payload)

    @property
    def bucket(self) -> str:
        """The limit that it counts for: a sink's, or the spool's."""
        return self.refused_by or "spool"


class Quarantine:
    """The directory of entries; several threads and processes may use one.

    `keep`, `change` and `discard` lock the directory first. Windows and some filesystems lock no
    directory, and a process that was stopped may hold the lock for longer than five seconds. Then
    an entry is changed without the lock. Where two processes change the same entry at the same
    moment, one of the changes is lost.

    Attributes:
        directory: of the entries; None where none are kept.
        unkept: the names of ledgers that could not be kept, and were counted.

    Args:
        spool: the spool's directory; None where it cannot be used: then no entries are kept.
    """

    def __init__(self, spool: Path | None) -> None:
        self.directory = None if spool is None else spool / DIRECTORY
        self._lock = allocate_lock()
        self._held: dict[str, list[int]] = {}
        self.unkept: Final[set[str]] = set()
        self._counted = 0.0

    def keep(self, entry: Entry) -> bool:
        """Keep an entry, so that it survives a power loss.

        Returns:
            Whether it is new. An entry that is here already gets the additional sinks; a ledger
            also gets the additional losses and costs.

        Raises:
            OSError: the entry cannot be kept: no directory, no room on the disk, or the limit is
                reached.
        """
        if self.directory is None:
            raise OSError(errno.ENOENT, "the spool lies in memory")
        make_private_directory(self.directory)
        with self._locked(self.directory):
            path = self.directory / entry.name
            known = _read(path)
            if known is not None:
                sinks = tuple(sorted({*known.sinks, *entry.sinks}))
                payload = entry.payload
                if known.is_refused_ledger and entry.is_refused_ledger:
                    payload = merge_ledgers(known.payload, payload)
                _write(path, msgspec.structs.replace(entry, sinks=sinks, payload=payload))
                return False
            count, size = held = self._tally(self.directory, entry.bucket)
            if count >= LIMIT or size + len(entry.payload) > LIMIT_BYTES:
                raise OSError(errno.EDQUOT, "the quarantine is full")
            held[0], held[1] = count + 1, size + _write(path, entry)
            return True

    def entries(self) -> Iterator[tuple[str, Entry | None]]:
        """Yield id and entry, the oldest first; None for a file that cannot be read."""
        found = []
        for path in self._files():
            with contextlib.suppress(FileNotFoundError):
                found.append((path.stat().st_mtime_ns, path))
        for _, path in sorted(found):
            entry = _read(path)
            if entry is not None or status_of(path) is not None:
                yield path.stem, entry

    def read(self, identity: str) -> Entry | None:
        """Return an entry as it is now; None where it is missing or cannot be read.

        Raises:
            OSError: there is no access to it.
        """
        return _read(self._path(identity))

    def change(self, identity: str, change: Callable[[Entry], Entry | None]) -> None:
        """Change an entry as it is now; do nothing where it is missing or cannot be read.

        Others may have added to the entry since the caller has read it. They add nothing during the
        call.

        Args:
            identity: of the entry.
            change: gets the entry, and returns its later state; None deletes it.

        Raises:
            OSError: the entry cannot be written or deleted.
        """
        path = self._path(identity)
        with self._locked(path.parent):
            known = _read(path)
            if known is None:
                return
            changed = change(known)
            if changed is None:
                path.unlink(missing_ok=True)
            elif changed != known:
                _write(path, changed)

    def discard(self, identity: str) -> None:
        """Delete an entry, whatever it holds now.

        Raises:
            OSError: the entry cannot be deleted.
        """
        path = self._path(identity)
        with self._locked(path.parent):
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self, directory: Path) -> Iterator[None]:
        """Let no other thread or process change an entry meanwhile, as far as the system can."""
        with self._lock, contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                fd = DISK.open(directory, writable=False)
                stack.callback(DISK.close, fd)
                if _lock(fd):
                    stack.callback(DISK.unlock, fd)  # a forked child may have the directory open
            yield

    def _path(self, identity: str) -> Path:
        if self.directory is None:
            raise OSError(errno.ENOENT, "the spool lies in memory")
        return self.directory / f"{identity}.msgpack"

    def _files(self) -> Iterator[Path]:
        if self.directory is not None:
            with contextlib.suppress(FileNotFoundError):
                yield from (p for p in self.directory.iterdir() if _NAME.fullmatch(p.name))

    def _tally(self, directory: Path, bucket: str) -> list[int]:
        """Return the number and the bytes of a sink's entries; count them at most once a second.

        Other processes add and delete entries too. The count also deletes the unfinished files of
        processes that were killed.
        """
        now = monotonic()
        if now - self._counted > _COUNT_AGAIN:
            self._held, self._counted = {}, now
            for path in self._files():
                with contextlib.suppress(FileNotFoundError):
                    held = self._held.setdefault(path.stem.partition("-")[2], [0, 0])
                    held[1] += path.stat().st_size
                    held[0] += 1
            _remove_unfinished(directory)
        return self._held.setdefault(bucket, [0, 0])


def _lock(fd: int) -> bool:
    """Lock an open directory; return False where another process does not release it in time."""
    until = monotonic() + _PATIENCE
    while not DISK.lock(fd):
        if monotonic() > until:
            return False
        sleep(_PAUSE)
    return True


def _remove_unfinished(directory: Path) -> None:
    for path in directory.glob(".*.new"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _UNFINISHED:
                path.unlink()


def _read(path: Path) -> Entry | None:
    """Read an entry; None where the file is missing or cannot be read."""
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=Entry)
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _write(path: Path, entry: Entry) -> int:
    """Write an entry as a whole or not at all, and sync it; return its length in bytes."""
    content = encode(entry)
    temporary = path.with_name(f".{path.name}.{random_bits(32):08x}.new")
    fd = DISK.create(temporary)
    try:
        try:
            write_all(DISK, fd, content, 0)
            DISK.sync(fd)
        finally:
            DISK.close(fd)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    DISK.sync_directory(path.parent)
    return len(content)
