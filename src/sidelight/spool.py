"""The spool: a directory of segments into which the callers copy and out of which the relay reads.

The caller's path is ``spool.write(frame)``, and ``write`` *is* the C method of the current
segment's mapping. Only where that raises (the segment is full) is anything decided here: the next
segment, allocated ahead of need by the relay, takes its place. Nothing here waits for a lock, so
that a signal handler may emit in the middle of a rotation.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from sidelight.exceptions import SpoolError
from sidelight.quarantine import Quarantine
from sidelight.segment import PAGE, SUFFIX, Segment

Position: TypeAlias = tuple[int, int]
"""A place in this process's own part of the spool: number of the segment, offset in it."""

SMALLEST: Final = 1024 * 1024
LARGEST: Final = 32 * 1024 * 1024
_SMALL: Final = 64 * 1024
SPARES: Final = 2
_LOOK_AGAIN: Final = 0.5  # seconds
_IN_MEMORY_LIMIT: Final = 64 * 1024 * 1024
_NETWORK_FILESYSTEMS: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "ceph", "glusterfs", "afs"}
)


class Spool:
    """This process's part of a spool directory.

    Attributes:
        write: copies one frame in; raises ValueError where `append` must help. Looked up anew for
            each emission, because it changes with the segment.
        directory: where the segments lie; None keeps them in memory (nothing survives then).
        limit: bytes that the directory may hold, all processes together.
        full: whether the directory held that much at the last look: nothing more is allocated.
        quarantine: where what cannot be delivered is set aside.
    """

    write: Callable[[bytes], int]

    def __init__(
        self,
        directory: Path | None,
        meta: Mapping[str, Any],
        *,
        limit: int = 1024 * 1024 * 1024,
        on_rotation: Callable[[], object] = lambda: None,
    ) -> None:
        self.directory = directory
        self.quarantine = Quarantine(directory)
        self.meta = dict(meta)
        self.limit = limit
        self.full = False
        self._look_again = 0.0
        self.on_rotation = on_rotation
        self.own: deque[Segment] = deque()
        self.adopted: deque[Segment] = deque()
        self.trouble: OSError | None = None
        self._hands_over = self.meta.get("relay") == "external"
        self._spares: deque[Segment] = deque()
        self._successors: dict[int, Segment] = {}
        self._size = SMALLEST
        if directory is not None:
            prepare_directory(directory)
        first = Segment.create(directory, SMALLEST, self.meta)
        first.number = 1
        self._install(first)
        self.own.append(first)

    # -- the caller's side -------------------------------------------------------------------

    def append(self, frame: bytes) -> None:
        """Copy one frame in where `write` could not: rotate, then write.

        Raises:
            SpoolError: there is no room, on disk or within the limit.
        """
        for _ in range(8):  # each turn installs a fresh segment: others can only fill so many
            segment = self._current
            try:
                segment.write(frame)
            except ValueError:
                self._rotate(segment)
            else:
                return
        raise self._error("its segments fill faster than they can be replaced")

    def append_last(self, frame: bytes) -> None:
        """Copy one frame in, if need be a little beyond the limit: it says what was lost.

        Raises:
            SpoolError: there is no room on disk or in memory.
            OSError: likewise.
        """
        try:
            self.append(frame)
        except SpoolError:
            self._spares.append(Segment.create(self.directory, _SMALL, self.meta))
            self.append(frame)

    def position(self) -> Position:
        """A place behind everything that this thread has written so far."""
        newest = self.own[-1]
        return newest.number, newest.tell()

    def _rotate(self, segment: Segment) -> None:
        """Put the next segment in the place of ``segment``; of several threads, one wins.

        A segment is sealed, and may be deleted, once it has a successor: until then it stays.
        """
        newest = self.own[-1]
        if newest.number > segment.number:
            segment.seal()
            self._install(newest)
            return
        spare = self._spare()
        spare.number = segment.number + 1
        winner = self._successors.setdefault(segment.number, spare)
        if winner is spare:
            self.own.append(spare)
        else:
            self._spares.appendleft(spare)
        segment.seal()
        self._install(winner)
        if self._hands_over:
            segment.close()  # unlocked: it belongs to whoever relays
            with contextlib.suppress(ValueError):
                self.own.remove(segment)
        self.on_rotation()

    def _install(self, segment: Segment) -> None:
        segment.created = time.monotonic()
        self._current = segment
        self.write = segment.write

    def _spare(self) -> Segment:
        with contextlib.suppress(IndexError):
            return self._spares.popleft()
        if self._room() < SMALLEST:
            self.on_rotation()  # the relay may have something to let go
            raise self._error(f"it holds its limit of {self.limit} bytes")
        try:
            return Segment.create(self.directory, SMALLEST, self.meta)
        except OSError as error:
            self.trouble = error
        if sum(s.size for s in self.own if s.path is None) >= _IN_MEMORY_LIMIT:
            raise self._error(f"nothing can be allocated ({self.trouble.strerror})")
        return Segment.create(None, SMALLEST, self.meta)

    def _room(self) -> int:
        """How many more bytes are within the limit; that they are too few stands for a while."""
        now = time.monotonic()
        if self.full and now < self._look_again:
            return 0
        room = self.limit - self.usage()
        self.full = room < SMALLEST
        self._look_again = now + _LOOK_AGAIN
        return room

    def _error(self, problem: str) -> SpoolError:
        return SpoolError(
            directory=self.directory or "in memory",
            problem=problem,
            remedy="see `sidelight doctor`",
        )

    # -- the relay's side --------------------------------------------------------------------

    def provide(self) -> None:
        """Allocate ahead of need; larger segments where they fill within the second.

        None is so large that a few of them, still empty, would take up the limit.
        """
        if self.directory is None and self.usage() >= _IN_MEMORY_LIMIT:
            return
        if len(self.own) > 1 and self.own[-1].created - self.own[-2].created < 1.0:
            self._size = max(SMALLEST, min(LARGEST, self.limit // 32, self._size * 2))
        else:
            self._size = max(SMALLEST, self._size // 2)
        while len(self._spares) < SPARES and (room := self._room()) >= SMALLEST:
            size = self._size if self._size <= room else SMALLEST
            try:
                self._spares.append(Segment.create(self.directory, size, self.meta))
                self.trouble = None
            except OSError as error:
                self.trouble = error
                return

    def rotate_aged(self, seconds: float) -> None:
        """Seal a segment that has been written to for so long, so that its room can be freed."""
        current = self._current
        if current.tell() > PAGE and time.monotonic() - current.created > seconds:
            with contextlib.suppress(SpoolError):
                self._rotate(current)

    def rescue(self) -> None:
        """Start a new segment where the file of the current one was deleted under us.

        What was written to the old one is still mapped, and is delivered from there.
        """
        current = self._current
        if self.directory is None or current.fd < 0 or os.fstat(current.fd).st_nlink:
            return
        prepare_directory(self.directory)
        self._spares.clear()
        with contextlib.suppress(SpoolError):
            self._rotate(current)

    def adopt(self) -> None:
        """Take over what dead processes left, and read along where a living one wants that."""
        if self.directory is None:
            return
        for attended in self.adopted:
            if attended.live:
                attended.orphaned()
        mine = {segment.path for segment in (*self.own, *self.adopted, *self._spares)}
        for path in segments_in(self.directory):
            if path in mine:
                continue
            with contextlib.suppress(OSError):
                segment = Segment.adopt(path) or Segment.attend(path)
                if segment is not None and self._is_ours(segment):
                    self.adopted.append(segment)
                elif segment is not None:
                    segment.close()
        _remove_unfinished(self.directory)

    def _is_ours(self, segment: Segment) -> bool:
        """Whether a segment is meant for our store: a directory may serve several."""
        mine, theirs = self.meta.get("store"), segment.meta.get("store")
        return mine is None or theirs is None or mine == theirs

    def forget(self, segment: Segment) -> None:
        """Delete a segment that every sink has passed."""
        self._successors.pop(segment.number - 1, None)
        (self.own if segment in self.own else self.adopted).remove(segment)
        segment.remove()

    def usage(self) -> int:
        """Bytes that the directory holds, all processes together."""
        if self.directory is None:
            return sum(segment.size for segment in self.own)
        total = 0
        for path in segments_in(self.directory):
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    def close(self) -> None:
        """Let go of everything; what some sink still has to read stays for the next process."""
        for segment in self._spares:
            segment.remove()
            segment.close()
        for segment in (*self.own, *self.adopted):
            if segment in self.adopted and segment.live:  # its owner goes on writing
                segment.close()
                continue
            wanted = {"store", *self.meta.get("sinks", ()), *segment.meta.get("sinks", ())}
            end = PAGE if _is_empty(segment) else segment.tell()
            segment.seal()
            passed = segment.passed | {s for s, cursor in segment.cursors.items() if cursor >= end}
            if end == PAGE or wanted <= passed:
                segment.remove()
            segment.close()

    def abandon(self) -> None:
        """In a forked child: forget what is the parent's, touching neither files nor locks."""
        for segment in (*self.own, *self.adopted, *self._spares):
            with contextlib.suppress(OSError, BufferError):
                segment.close()


def _is_empty(segment: Segment) -> bool:
    return not segment.read(PAGE, 4).strip(b"\0")


def segments_in(directory: Path) -> Iterable[Path]:
    """The segments of a spool directory, oldest first."""
    try:
        return sorted(path for path in directory.iterdir() if path.suffix == SUFFIX)
    except FileNotFoundError:
        return ()


def prepare_directory(directory: Path) -> None:
    """Make the spool's directory, for its owner alone.

    Raises:
        SpoolError: it cannot be made or written, or lies on a network filesystem, where neither
            memory mappings nor locks can be trusted.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise SpoolError(
            directory=directory, problem=error.strerror, remedy="set SIDELIGHT_SPOOL"
        ) from error
    if not os.access(directory, os.W_OK | os.X_OK):
        raise SpoolError(
            directory=directory, problem="it is not writable", remedy="set SIDELIGHT_SPOOL"
        )
    kind = filesystem(directory)
    if kind in _NETWORK_FILESYSTEMS:
        raise SpoolError(
            directory=directory,
            problem=f"it lies on a network filesystem ({kind})",
            remedy="set SIDELIGHT_SPOOL to a directory on a local disk",
        )


def filesystem(directory: Path) -> str:
    """The type of the filesystem that holds ``directory``; "" where the system does not tell."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    resolved = directory.resolve()
    best, kind = -1, ""
    for line in mounts.splitlines():
        _, mount, filesystem_type, *_ = line.split(" ")
        point = Path(mount.replace("\\040", " "))
        if resolved.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), filesystem_type
    return kind


def _remove_unfinished(directory: Path) -> None:
    """Delete allocations that died before they got their name."""
    for path in directory.glob(".*.new"):
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
            finally:
                os.close(fd)
