"""The segments of other processes: the dead's are taken over, the living's read along.

Only some of the dead's have a place at a time, because each is an open file, and the process has
use for those too. What one sink has and another still lacks gives its place to what nobody has: a
Collector that is down keeps no event from the store.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from sidelight.spool.directory import Names, remove_unfinished, segments_in
from sidelight.spool.disk import Disk
from sidelight.spool.failures import Troubles, why
from sidelight.spool.header import PAGE
from sidelight.spool.segment import Segment
from sidelight.spool.supply import Supply

_PLACES: Final = 16


class _Former(NamedTuple):
    """What this process has had open: the sinks that have it, and itself while it is still read."""

    passed: frozenset[str]
    segment: weakref.ref[Segment]


class Adopted:
    """Those that this process has open; iterating gives the oldest first.

    Args:
        directory: where they lie; None where there can be none.
        store: whose records are delivered here: a directory may serve several stores.
        supply: told what those who write there may hold.
        names: told that there are some that this process has not made.
        count: told what goes wrong, by reason.
    """

    def __init__(
        self,
        directory: Path | None,
        store: str | None,
        supply: Supply,
        names: Names,
        count: Callable[[str, str], object],
        disk: Disk,
    ) -> None:
        self._directory = directory
        self._store = store
        self._supply = supply
        self._names = names
        self._count = count
        self._troubles = Troubles(count)
        self._disk = disk
        self._segments: deque[Segment] = deque()
        self._waiting: deque[Path] = deque()
        # Let go of: what comes again when there is a place, and what another relay has to deliver.
        self._put_off: dict[Path, _Former] = {}
        self._left: dict[Path, _Former] = {}

    def __iter__(self) -> Iterator[Segment]:
        return iter(self._segments)

    def __len__(self) -> int:
        return len(self._segments)

    def look(self, own: Iterable[Segment]) -> None:
        """Take over what dead processes left, and read along where a living one wants that.

        What died before it got its name is removed.

        Raises:
            OSError: the directory cannot be read.
        """
        if self._directory is None:
            return
        for attended in self._segments:
            if attended.live:
                attended.orphaned()
        found = segments_in(self._directory, self._disk)
        there = set(found)
        for former in (self._left, self._put_off):
            for gone in former.keys() - there:
                del former[gone]
        self._waiting = deque(path for path in self._waiting if path in there)
        known: set[Path | None] = {*self._waiting, *self._left, *self._put_off}
        known |= {segment.path for segment in (*own, *self._segments)}
        for path in found:
            if path not in known:
                self._take_over(path)
        remove_unfinished(self._directory, self._disk)

    def let_go(self, sinks: Sequence[str]) -> None:
        """Close what these sinks need no more, or what others are to have the places of."""
        for segment in tuple(self._segments):
            ours = segment.sealed and segment.passed.issuperset(sinks)
            if ours and not segment.is_done(sinks):
                self._forgo(segment, self._left)
                segment.close()  # until then it keeps no descriptor of ours
        if self._waiting:
            sealed = [segment for segment in self._segments if segment.sealed]
            for segment in sealed[1:]:  # the oldest is being read by who lacks it
                if segment.passed and not segment.passed.issuperset(sinks):
                    self._forgo(segment, self._put_off)

    def _forgo(self, segment: Segment, known: dict[Path, _Former]) -> None:
        """It closes when the last of our threads that reads it has done so."""
        self._segments.remove(segment)
        if segment.path is not None:
            known[segment.path] = _Former(frozenset(segment.passed), weakref.ref(segment))

    def fill(self) -> None:
        """Give the places that are free to those that wait; last to those that were put off."""
        while self._has_place():
            if self._waiting:
                self._take_over(self._waiting.popleft())
            elif self._put_off:
                self._take_back(next(iter(self._put_off)), self._put_off)
            else:
                return

    def take_back(self) -> None:
        """Open again some of what the store has: the room of it is needed."""
        for known in (self._left, self._put_off):
            stored = sorted(path for path, former in known.items() if "store" in former.passed)
            for path in stored[:_PLACES]:
                self._take_back(path, known)

    def remove(self, segment: Segment) -> None:
        """It was deleted."""
        self._segments.remove(segment)

    def close(self) -> None:
        """Let go of all; what some sink still has to read stays for the next process."""
        read_still = (former.segment() for former in self._put_off.values())
        for segment in (*self._segments, *read_still):
            if segment is not None:
                with contextlib.suppress(OSError, BufferError):
                    segment.close()

    def _has_place(self) -> bool:
        return sum(segment.sealed for segment in self._segments) < _PLACES

    def _take_over(self, path: Path) -> None:
        try:
            if not self._has_place() and not Segment.look(path, self._disk).written:
                self._waiting.append(path)
                return
            segment = Segment.adopt(path, self._disk) or Segment.attend(path, self._disk)
            if segment is not None:
                self._join(segment)
        except FileNotFoundError:  # another relay was faster
            return
        except OSError as error:
            self._troubles.count(f"segment not taken over: {why(error)}", str(error))

    def _take_back(self, path: Path, known: dict[Path, _Former]) -> None:
        former = known.pop(path)
        segment = former.segment()
        with contextlib.suppress(OSError):  # the next look will find it
            if segment is None or segment.fd < 0:
                segment = Segment.adopt(path, self._disk)
            if segment is not None:
                segment.passed |= former.passed
                self._segments.append(segment)

    def _join(self, segment: Segment) -> None:
        """Let it be delivered, where it is meant for our store."""
        if len({self._store, segment.meta.get("store")} - {None}) > 1:
            segment.close()
            return
        self._segments.append(segment)
        self._supply.mind(segment.meta)
        self._names.new = True
        if not segment.version and segment.has_more(PAGE):
            self._count("damaged header of a segment", str(segment.path))
