"""Supplies segments: allocated ahead of need, at need, or in memory.

Only a busy process has segments ahead of need, because the limit counts what is allocated, and
several hundred idle processes must not use it up.

Where the disk has no room or cannot be written, the next segment is kept in memory. Each segment
in memory is counted as a loss reason, because it does not survive the process.
"""

from __future__ import annotations

import contextlib
import errno
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from sidelight.exceptions import SpoolError, SpoolFullError
from sidelight.host import monotonic
from sidelight.spool.allocation import UNFINISHED
from sidelight.spool.directory import NameSync, bytes_in, prepare_directory
from sidelight.spool.disk import Disk
from sidelight.spool.failures import FailureCounter, os_error_text
from sidelight.spool.header import PAGE
from sidelight.spool.hot import HotSegment
from sidelight.spool.segment import Segment

SMALLEST: Final = 1024 * 1024
"""Bytes of the smallest segment that a relay allocates."""
_ON_CALL: Final = 256 * 1024  # some thousand events; meanwhile the relay allocates more
LARGEST: Final = 32 * 1024 * 1024
"""Bytes of the largest segment."""
SPARES: Final = 2
"""Segments that are allocated ahead of need, while the process is busy."""
IDLE: Final = 256 * 1024
"""Bytes of the segment of an idle process."""
_BUSY_AFTER: Final = 64 * 1024  # bytes; a process that has written so many is busy …
_BUSY_FOR: Final = 60.0  # … for so many seconds
_LARGEST_FOR_A_CHILD: Final = 4 * SMALLEST
_MANY: Final = 8  # more unread segments than this: allocate larger ones instead of more
_LOOK_AGAIN: Final = 0.5  # seconds
_IN_MEMORY_LIMIT: Final = 64 * 1024 * 1024
_HOT_LIMIT: Final = 64 * 1024 * 1024  # of all processes: a tmpfs is memory
_START_MARGIN: Final = 1 / 8  # of the limit; only the first segment of a process may use it
_COUNTED_AT_START: Final = 2000  # segments; a caller waits while they are counted


class Supply:
    """Allocates segments within the spool's limit.

    Attributes:
        limit: bytes that the directory may hold, of all processes together.
        full: whether the limit was reached at the last look; then nothing is allocated.
        spares: segments that were allocated ahead of need.
    """

    def __init__(
        self,
        directory: Path | None,
        meta: Mapping[str, Any],
        limit: int,
        count: Callable[[str, str], object],
        disk: Disk,
        names: NameSync,
        hot: Path | None = None,
    ) -> None:
        self.limit = limit if directory is not None else min(limit, _IN_MEMORY_LIMIT)
        self.full = False
        self.spares: deque[Segment] = deque()
        self._directory = directory
        self._hot = hot
        self._failures = FailureCounter(count)
        self._meta = meta
        self._count = count
        self._disk = disk
        self._names = names
        self._has_allocated = False
        self._gives_to_children = False
        self._is_providing = False
        self._busy_since = (1, PAGE)
        self._busy_until = 0.0
        self._size = SMALLEST
        self._look_again = 0.0
        self._failure: OSError | None = None
        self._failed_at = -_LOOK_AGAIN

    def first(self, inherited: Segment | None, *, on_call: bool = False) -> Segment:
        """Return the first segment of a process; a forked child may have ``inherited`` one.

        Within a call of the application (``on_call``) it is a small one, because the caller waits
        until all of it is allocated.

        The segment is in memory where the disk refuses, or where too many processes begin at the
        limit. A relay must be able to begin at a full disk, because the relay makes room.
        """
        if inherited is not None:
            is_here = inherited.path and inherited.path.parent in {self._directory, self._hot}
            if is_here and inherited.reassign(self._meta):
                return inherited
            _delete(inherited)
        most = self.limit * (1 + _START_MARGIN)
        try:
            return self.create(_ON_CALL if on_call else SMALLEST, most, _COUNTED_AT_START)
        except OSError as error:
            self._note_failure(error)
            return self._in_memory(())

    def take(self, own: Sequence[Segment]) -> Segment:
        """Return the next segment at once; callers that emit use this.

        Args:
            own: the segments of this process.

        Raises:
            SpoolError: there is no room, on the disk or in memory.
        """
        with contextlib.suppress(IndexError):
            return self.spares.popleft()
        if monotonic() - self._failed_at > _LOOK_AGAIN:
            try:
                if self._may_have_room(own):
                    return self.create(SMALLEST, self.limit)
                is_full = True
            except SpoolFullError:
                is_full = not self._is_providing
            except BlockingIOError:
                is_full = False
            except OSError as error:
                is_full = False
                self._note_failure(error)
            if is_full:
                with contextlib.suppress(IndexError):  # the relay had just taken the last room
                    return self.spares.popleft()
                raise self.error(f"it holds its limit of {self.limit} bytes")
        return self._in_memory(own)  # the record moves to the disk when there is room

    def _may_have_room(self, own: Sequence[Segment]) -> bool:
        """Return whether to try; `create` measures files on the disk, so a caller waits once."""
        if self._directory is None or self._hot is not None:
            return self.room(own) >= SMALLEST
        return not self._is_known_full()

    def take_for_child(self) -> Segment | None:
        """Return a spare for a process that is about to be forked; None where there is none."""
        self._gives_to_children = True
        with contextlib.suppress(IndexError):
            spare = self.spares[0]
            if spare.size <= _LARGEST_FOR_A_CHILD and spare.path is not None:
                return self.spares.popleft()
        return None

    def put_back(self, spare: Segment) -> None:
        """Take back a segment that was not used, because another thread was faster."""
        if spare.path is not None:
            self.spares.appendleft(spare)

    def wanted(self, own: Sequence[Segment]) -> int:
        """Return the number of spares that there should be.

        A process that has forked keeps one for its next child. A segment in memory needs one, so
        that its records reach the disk.
        """
        now, newest = monotonic(), own[-1]
        number, offset = self._busy_since
        if newest.number != number or newest.tell() - offset > _BUSY_AFTER:
            self._busy_since = newest.number, newest.tell()
            self._busy_until = now + _BUSY_FOR
        if now < self._busy_until:
            return SPARES
        return int(self._gives_to_children or newest.path is None)

    def provide(self, own: Sequence[Segment]) -> None:
        """Allocate spares; double their size where segments fill within a second, or many wait.

        Delete those of a process that has become idle. No spare is larger than 1/32 of the limit,
        so that empty segments do not use it up.

        Raises:
            OSError: the disk refuses.
        """
        fast = len(own) > 1 and own[-1].created - own[-2].created < 1.0
        self._size = self._size * 2 if fast or len(own) > _MANY else self._size // 2
        self._size = max(SMALLEST, min(LARGEST, self.limit // 32, self._size))
        wanted = self.wanted(own)
        while len(self.spares) > wanted:
            with contextlib.suppress(IndexError):  # a caller has taken it meanwhile
                _delete(self.spares.pop())
        while len(self.spares) < wanted and (room := self.room(own)) >= SMALLEST:
            size = self._size if self._size <= room else SMALLEST
            self._is_providing = True
            try:
                self.spares.append(self.create(size, self.limit))
            except (SpoolFullError, BlockingIOError):  # others have taken the room meanwhile
                return
            except OSError as error:
                self._note_failure(error)
                if size == SMALLEST:
                    raise
                self._size = SMALLEST
            finally:
                self._is_providing = False

    def create(self, size: int, most: float = math.inf, newest: int | None = None) -> Segment:
        """Allocate a segment of ``size`` bytes; make the directory anew where it is missing.

        Several may find the same room at the same time. So each allocates first and then counts,
        also what the others are allocating.

        Args:
            size: bytes.
            most: bytes that the directory may hold then.
            newest: the number of files that are counted; None counts all.

        Raises:
            SpoolFullError: the directory would hold more.
            BlockingIOError: it would hold more with what others are allocating.
            OSError: the disk refuses.
        """
        if (hot := self._create_hot(size)) is not None:
            return hot

        def check() -> None:
            if self._directory is None:
                return
            used = bytes_in(self._directory, self._disk, newest)
            if used + size > most:
                self._note_room(int(most) - used)
                raise self.error("the spool is full", SpoolFullError)
            if used + bytes_in(self._directory, self._disk, suffix=UNFINISHED) > most:
                raise BlockingIOError(errno.EAGAIN, "others are allocating the last room")

        make = partial(Segment.create, self._directory, size, self._meta, self._disk, check)
        try:
            segment = make()
        except FileNotFoundError as error:
            if self._directory is None:
                raise
            prepare_directory(self._directory, self._disk)
            if self._has_allocated:
                self._count("segment deleted under its writer", str(error))
            self._names.directory_was_recreated()
            segment = make()
        self._names.is_due, self._failure, self._has_allocated = True, None, True
        return segment

    def _create_hot(self, size: int) -> Segment | None:
        """Allocate a segment on the tmpfs; None where there is no room or no tmpfs."""
        if self._hot is None or self._directory is None:
            return None
        try:
            self._disk.make_directory(self._hot)
            if bytes_in(self._hot, self._disk) + size > _HOT_LIMIT:  # no relay takes them away
                return None
            segment = HotSegment.create(self._hot, size, self._meta, self._disk)
        except OSError as error:
            self._failures.count(f"hot segment on the disk: {os_error_text(error)}", str(error))
            return None
        segment.spool = self._directory
        self._failure = None
        return segment

    def adopt_limit(self, writer: Mapping[str, Any]) -> None:
        """Let a relay use the limit of an application, because only the application knows it."""
        limit = writer.get("limit")
        if self._meta.get("role") == writer.get("role") or not isinstance(limit, int):
            return
        if self._meta.get("role") == "relay":
            self.limit = limit

    def drop_lost_spares(self) -> None:
        """Drop spares whose files were deleted or cut short."""
        for spare in tuple(self.spares):
            if spare.has_lost_file():
                with contextlib.suppress(ValueError):  # a caller has taken it meanwhile
                    self.spares.remove(spare)

    def delete_spares(self) -> None:
        """Delete the files of all spares."""
        while self.spares:
            _delete(self.spares.popleft())

    def usage(self, own: Sequence[Segment]) -> int:
        """Return the bytes in the directory, of all processes; in memory those of ``own``.

        Raises:
            OSError: the directory cannot be read.
        """
        if self._directory is None:
            return sum(segment.size for segment in tuple(own))
        return bytes_in(self._directory, self._disk)

    def room(self, own: Sequence[Segment]) -> int:
        """Return the bytes left within the limit; a "full" is believed for half a second.

        Raises:
            OSError: the directory cannot be read.
        """
        if self._is_known_full():
            return 0
        room = self.limit - self.usage(own)
        self._note_room(room)
        return room

    def _is_known_full(self) -> bool:
        return self.full and monotonic() < self._look_again

    def _note_room(self, room: int) -> None:
        self.full, self._look_again = room < SMALLEST, monotonic() + _LOOK_AGAIN

    def error(self, problem: str, kind: type[SpoolError] = SpoolError) -> SpoolError:
        """Make the error that tells a problem of this spool."""
        where = self._directory or "in memory"
        return kind(directory=where, problem=problem, remedy="see `sidelight doctor`")

    def _in_memory(self, own: Sequence[Segment]) -> Segment:
        cause = "" if self._failure is None else os_error_text(self._failure)
        if sum(segment.size for segment in tuple(own) if segment.path is None) >= _IN_MEMORY_LIMIT:
            raise self.error(f"it holds its limit in memory ({cause})")
        if self._failure is not None:
            self._count(f"kept in memory: {cause}", str(self._failure))
        return Segment.create(None, SMALLEST, self._meta, self._disk)

    def _note_failure(self, error: OSError) -> None:
        self._failure, self._failed_at = error, monotonic()


def _delete(unused: Segment) -> None:
    with contextlib.suppress(OSError):
        unused.remove()
    unused.close()
