"""Segments of other processes: orphaned ones are adopted, live ones are followed.

At most 16 orphaned segments are open at a time, to save descriptors. A segment that one sink has
and another lacks gives its place to a segment that no sink has. So a Collector that is down keeps
no event from the store.

A search looks at all new segments, and at 32 of those that it has left to other processes. Several
hundred processes would otherwise open one another's files all the time. Together they see each.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from sidelight.record import is_same_store, is_same_stream, random_bits
from sidelight.spool.directory import NameSync, remove_unfinished, segments_in
from sidelight.spool.disk import Disk
from sidelight.spool.failures import FailureCounter, os_error_text
from sidelight.spool.header import PAGE
from sidelight.spool.hot import HotSegment
from sidelight.spool.segment import Segment
from sidelight.spool.supply import Supply

_MAX_OPEN: Final = 16
_LOOKS: Final = 32  # in one search, at segments that were left to other processes


class _Released(NamedTuple):
    """A segment that was open: the sinks that have it, and the object while a worker reads it."""

    delivered_to: frozenset[str]
    segment: weakref.ref[Segment]


class Adopted:
    """The segments of other processes that this process has open; iteration gives the oldest first.

    Args:
        directory: the spool's directory; None where there can be no other process.
        meta: names the store and the stream of this process. A directory may serve several.
        supply: learns the limit of the processes that write there.
        names: learns of files that this process has not made.
        count: counts failures by reason.
        disk: the operating system.
    """

    def __init__(
        self,
        directory: Path | None,
        meta: Mapping[str, Any],
        supply: Supply,
        names: NameSync,
        count: Callable[[str, str], object],
        disk: Disk,
    ) -> None:
        self._directory = directory
        self._meta = meta
        self._supply = supply
        self._names = names
        self._count = count
        self._failures = FailureCounter(count)
        self._disk = disk
        self._segments: deque[Segment] = deque()
        self._waiting: deque[Path] = deque()
        # Their writer or reader lives, they are for another store, or they could not be opened.
        self._left: deque[Path] = deque()
        # Postponed segments are opened again when there is a place. Foreign segments wait for
        # another relay, which has the sinks that this one lacks.
        self._postponed: dict[Path, _Released] = {}
        self._foreign: dict[Path, _Released] = {}

    def __iter__(self) -> Iterator[Segment]:
        return iter(self._segments)

    def __len__(self) -> int:
        return len(self._segments)

    def search(self, own: Iterable[Segment]) -> None:
        """Adopt new orphaned segments and follow new live ones; remove unfinished files.

        Raises:
            OSError: the directory cannot be read.
        """
        if self._directory is None:
            return
        for segment in tuple(self._segments):
            if not segment.has_descriptor():  # other code has closed it: the file is adopted anew
                self._segments.remove(segment)
            elif not segment.sealed:
                segment.take_ownership()
        found = segments_in(self._directory, self._disk)
        present = set(found)
        for released in (self._foreign, self._postponed):
            for gone in released.keys() - present:
                del released[gone]
        self._waiting = deque(path for path in self._waiting if path in present)
        self._left = deque(path for path in self._left if path in present)
        known: set[Path | None] = {*self._waiting, *self._left, *self._foreign, *self._postponed}
        known |= {segment.path for segment in (*own, *self._segments)}
        new = [path for path in found if path not in known]
        looks = [self._left.popleft() for _ in range(min(_LOOKS, len(self._left)))]
        for path in (*new, *looks):
            self._adopt(path)
        if new:
            self._left.rotate(random_bits(16))  # each process looks at others first
        remove_unfinished(self._directory, self._disk)

    def release(self, sinks: Sequence[str]) -> None:
        """Close segments that ``sinks`` have, and those that must give their place to others."""
        for segment in tuple(self._segments):
            is_done_here = segment.sealed and segment.delivered_to.issuperset(sinks)
            if is_done_here and not segment.is_delivered_to(sinks):
                self._remember(segment, self._foreign)
                segment.close()  # frees the descriptor at once
        if self._waiting:
            sealed = [segment for segment in self._segments if segment.sealed]
            for segment in sealed[1:]:  # a worker is reading the oldest
                if segment.delivered_to and not segment.delivered_to.issuperset(sinks):
                    self._remember(segment, self._postponed)

    def _remember(self, segment: Segment, released: dict[Path, _Released]) -> None:
        """Drop a segment; it closes when the last thread that reads it has ended."""
        self._segments.remove(segment)
        if segment.path is not None:
            delivered_to = frozenset(segment.delivered_to)
            released[segment.path] = _Released(delivered_to, weakref.ref(segment))

    def fill(self) -> None:
        """Give free places to waiting segments first, then to postponed ones."""
        while self._has_place():
            if self._waiting:
                self._adopt(self._waiting.popleft())
            elif self._postponed:
                self._reopen(next(iter(self._postponed)), self._postponed)
            else:
                return

    def reopen_stored(self) -> None:
        """Open segments again that the store has, because their room may be needed."""
        for released in (self._foreign, self._postponed):
            stored = sorted(
                path for path, it in released.items() if it.delivered_to & {"store", "stream"}
            )
            for path in stored[:_MAX_OPEN]:
                self._reopen(path, released)

    def remove(self, segment: Segment) -> None:
        """Drop a segment that was deleted."""
        self._segments.remove(segment)

    def close(self) -> None:
        """Close all; undelivered records stay in their files for the next process."""
        being_read = (released.segment() for released in self._postponed.values())
        for segment in (*self._segments, *being_read):
            if segment is not None:
                with contextlib.suppress(OSError, BufferError):
                    segment.close()

    def replace(self, segment: Segment, by: Segment) -> None:
        """Put another segment in the place of one.

        Raises:
            ValueError: the segment was deleted meanwhile.
        """
        self._segments[self._segments.index(segment)] = by

    def _kind(self, path: Path) -> type[Segment]:
        return Segment if path.parent == self._directory else HotSegment

    def _has_place(self) -> bool:
        return sum(segment.sealed for segment in self._segments) < _MAX_OPEN

    def _adopt(self, path: Path) -> None:
        try:
            if not self._has_place() and not Segment.inspect(path, self._disk).has_writer:
                self._waiting.append(path)
                return
            segment = self._kind(path).adopt_or_follow(path, self._disk)
            if segment is None or not self._add(segment):
                self._left.append(path)
        except FileNotFoundError:  # another relay was faster
            return
        except OSError as error:
            self._left.append(path)
            self._failures.count(f"segment not taken over: {os_error_text(error)}", str(error))

    def _reopen(self, path: Path, released: dict[Path, _Released]) -> None:
        before = released.pop(path)
        segment = before.segment()
        with contextlib.suppress(OSError):  # the next search finds it
            if segment is None or segment.fd < 0:
                segment = self._kind(path).adopt(path, self._disk)
            if segment is not None:
                if isinstance(segment, HotSegment) and self._directory is not None:
                    segment.spool = self._directory
                segment.delivered_to |= before.delivered_to
                self._segments.append(segment)

    def _add(self, segment: Segment) -> bool:
        """Add a segment; return False where it is meant for another store or stream."""
        here, there = self._meta.get, segment.meta.get
        if not (
            is_same_store(here("store"), there("store"))
            and is_same_stream(here("stream"), there("stream"))
        ):
            segment.close()
            return False
        if isinstance(segment, HotSegment) and self._directory is not None:
            segment.spool = self._directory
        self._segments.append(segment)
        self._supply.adopt_limit(segment.meta)
        self._names.is_due = True
        if not segment.version and segment.has_more(PAGE):
            self._count("damaged header of a segment", str(segment.path))
        return True
