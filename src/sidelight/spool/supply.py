"""Where the next segment comes from: allocated ahead of need, at need, or in memory.

Where the disk has no room, or cannot be written, a segment is kept in memory, which is counted.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from sidelight.exceptions import SpoolError
from sidelight.spool.directory import Names, bytes_in, prepare_directory
from sidelight.spool.disk import Disk
from sidelight.spool.failures import why
from sidelight.spool.segment import Segment

SMALLEST: Final = 1024 * 1024
LARGEST: Final = 32 * 1024 * 1024
SPARES: Final = 2
_GIVEN: Final = 4 * SMALLEST  # the largest that is given away
_MANY: Final = 8  # segments of our own that wait: from here on they are larger, not more
_LOOK_AGAIN: Final = 0.5  # seconds
_IN_MEMORY_LIMIT: Final = 64 * 1024 * 1024
_BEGINNERS: Final = 1 / 8  # of the limit: as much beyond it is for processes to begin with …
_LOOKED_AT: Final = 2000  # … who look at so many segments: it is a caller who waits


class Supply:
    """Makes segments, within what the spool may hold.

    Attributes:
        limit: bytes that the directory may hold, all processes together.
        full: whether it held that much at the last look: nothing more is allocated.
        spares: what was allocated ahead of need.
    """

    def __init__(
        self,
        directory: Path | None,
        meta: Mapping[str, Any],
        limit: int,
        count: Callable[[str, str], object],
        disk: Disk,
        names: Names,
    ) -> None:
        self.limit = limit if directory is not None else min(limit, _IN_MEMORY_LIMIT)
        self.full = False
        self.spares: deque[Segment] = deque()
        self._directory = directory
        self._meta = meta
        self._count = count
        self._disk = disk
        self._names = names
        self._begun = False
        self._size = SMALLEST
        self._look_again = 0.0
        self._failure: OSError | None = None
        self._failed_at = -_LOOK_AGAIN

    def first(self, given: Segment | None) -> Segment:
        """The segment to begin with: the one that was ``given``, where it lies in our directory.

        It is in memory where the disk lets us make none, or too many have begun at the limit. A
        relay that finds the disk full must be able to begin: it is the one that makes room.
        """
        if given is not None:
            ours = given.path is not None and given.path.parent == self._directory
            if ours and given.dedicate(self._meta):
                return given
            _drop(given)
        try:
            self._check_beginning()
            return self.create(SMALLEST)
        except OSError as error:
            self._has_failed(error)
            return self._in_memory(())

    def _check_beginning(self) -> None:
        if self._directory is not None:
            used = bytes_in(self._directory, self._disk, _LOOKED_AT)
            if used + SMALLEST > self.limit * (1 + _BEGINNERS):
                raise self.error("the spool is full")

    def take(self, own: Sequence[Segment]) -> Segment:
        """The next segment, at once; called by those who emit.

        Args:
            own: those that this process has.

        Raises:
            SpoolError: there is no room, on the disk nor in memory.
        """
        with contextlib.suppress(IndexError):
            return self.spares.popleft()
        if time.monotonic() - self._failed_at > _LOOK_AGAIN:
            try:
                if self.room(own) >= SMALLEST:
                    return self.create(SMALLEST)
            except OSError as error:
                self._has_failed(error)
            else:
                raise self.error(f"it holds its limit of {self.limit} bytes")
        return self._in_memory(own)

    def give_away(self) -> Segment | None:
        """One that was allocated ahead, for a process that is about to be forked."""
        with contextlib.suppress(IndexError):
            if self.spares[0].size <= _GIVEN and self.spares[0].path is not None:
                return self.spares.popleft()
        return None

    def give_back(self, spare: Segment) -> None:
        """Another thread's was put in the place that this one was for."""
        if spare.path is not None:
            self.spares.appendleft(spare)

    def provide(self, own: Sequence[Segment]) -> None:
        """Allocate ahead of need; larger segments where they fill within the second, or many wait.

        None is so large that a few of them, still empty, would take up the limit.

        Raises:
            OSError: the disk does not let us.
        """
        fast = len(own) > 1 and own[-1].created - own[-2].created < 1.0
        self._size = self._size * 2 if fast or len(own) > _MANY else self._size // 2
        self._size = max(SMALLEST, min(LARGEST, self.limit // 32, self._size))
        while len(self.spares) < SPARES and (room := self.room(own)) >= SMALLEST:
            size = self._size if self._size <= room else SMALLEST
            try:
                self.spares.append(self.create(size))
            except OSError as error:
                self._has_failed(error)
                if size == SMALLEST:
                    raise
                self._size = SMALLEST

    def create(self, size: int) -> Segment:
        """A new segment, in a new directory where there is none, or none any more.

        Raises:
            OSError: the disk does not let us.
        """
        try:
            segment = Segment.create(self._directory, size, self._meta, self._disk)
        except FileNotFoundError as error:
            if self._directory is None:
                raise
            prepare_directory(self._directory, self._disk)
            if self._begun:
                self._count("segment deleted under its writer", str(error))
            self._names.uproot()
            segment = Segment.create(self._directory, size, self._meta, self._disk)
        self._names.new, self._failure, self._begun = True, None, True
        return segment

    def mind(self, writer: Mapping[str, Any]) -> None:
        """A relay holds the directory within what those who write there may: nobody told it."""
        limit = writer.get("limit")
        if self._meta.get("role") == writer.get("role") or not isinstance(limit, int):
            return
        if self._meta.get("role") == "relay":
            self.limit = limit

    def drop_threatened(self) -> None:
        """Let go of spares whose files were deleted or cut short."""
        for spare in tuple(self.spares):
            if spare.is_threatened():
                with contextlib.suppress(ValueError):  # in use by now
                    self.spares.remove(spare)

    def drop_spares(self) -> None:
        """Delete what was allocated ahead: nobody will need it."""
        while self.spares:
            _drop(self.spares.popleft())  # nobody can take it by now

    def usage(self, own: Sequence[Segment]) -> int:
        """Bytes that the directory holds, all processes together; in memory those of ``own``.

        Raises:
            OSError: it cannot be read.
        """
        if self._directory is None:
            return sum(segment.size for segment in own)
        return bytes_in(self._directory, self._disk)

    def room(self, own: Sequence[Segment]) -> int:
        """How many more bytes are within the limit; that they are too few stands for a while.

        Raises:
            OSError: the directory cannot be read.
        """
        now = time.monotonic()
        if self.full and now < self._look_again:
            return 0
        room = self.limit - self.usage(own)
        self.full = room < SMALLEST
        self._look_again = now + _LOOK_AGAIN
        return room

    def error(self, problem: str) -> SpoolError:
        """The error that says so."""
        where = self._directory or "in memory"
        return SpoolError(directory=where, problem=problem, remedy="see `sidelight doctor`")

    def _in_memory(self, own: Sequence[Segment]) -> Segment:
        told = "" if self._failure is None else why(self._failure)
        if sum(segment.size for segment in own if segment.path is None) >= _IN_MEMORY_LIMIT:
            raise self.error(f"it holds all that it may in memory ({told})")
        if self._failure is not None:
            self._count(f"kept in memory: {told}", str(self._failure))
        return Segment.create(None, SMALLEST, self._meta, self._disk)

    def _has_failed(self, error: OSError) -> None:
        self._failure, self._failed_at = error, time.monotonic()


def _drop(unused: Segment) -> None:
    with contextlib.suppress(OSError):
        unused.remove()
    unused.close()
