"""Records that were read from a segment, decoded once for all sinks that read them soon.

The sinks of a relay have a cursor each, and read the same records one shortly after the other.
The first one decodes a stretch of a segment and leaves it here for the others. A sink that is far
behind decodes for itself, because only the latest stretches are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Final

import msgspec

from sidelight.host import allocate_lock, monotonic, sleep
from sidelight.record import decode
from sidelight.spool import Batch, Record, Scanner, Segment

STRETCH: Final = 2000
"""Records that are decoded, and kept, together."""
_MOST: Final = 10_000  # records that are kept, which take some 10 MB
_KEPT_FOR: Final = 2.0  # seconds
_LOOKED_AT: Final = 3  # of the oldest stretches, each time
_DECODED_AT_ONCE: Final = 100  # records between two offers of the GIL


class Reading(msgspec.Struct, eq=False):
    """What was read of a segment, in order.

    Attributes:
        records: what could be decoded.
        unreadable: payloads that hold no record of this format, each with the problem.
        damaged: stretches that are no frames, each with its offset.
        end: the offset behind all of it.
    """

    records: list[Record] = msgspec.field(default_factory=list)
    unreadable: list[tuple[bytes, str]] = msgspec.field(default_factory=list)
    damaged: list[tuple[int, bytes]] = msgspec.field(default_factory=list)
    end: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether there are records, and nothing else."""
        return bool(self.records) and not self.unreadable and not self.damaged

    def __len__(self) -> int:
        """Return how many payloads were read."""
        return len(self.records) + len(self.unreadable)

    def add(self, other: Reading) -> None:
        """Add what was read behind this."""
        self.records += other.records
        self.unreadable += other.unreadable
        self.damaged += other.damaged
        self.end = other.end


def decoded(batch: Batch, is_contended: Callable[[], bool]) -> Reading:
    """Decode what was scanned.

    Args:
        batch: the payloads.
        is_contended: whether other threads take the GIL anyway, so that it need not be offered.
    """
    reading = Reading(damaged=batch.damaged, end=batch.end)
    records = reading.records
    for start in range(0, len(batch.payloads), _DECODED_AT_ONCE):
        for payload in batch.payloads[start : start + _DECODED_AT_ONCE]:
            try:
                records.append(decode(payload))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                reading.unreadable.append((payload, str(error)))
        if len(batch.payloads) > start + _DECODED_AT_ONCE and not is_contended():
            sleep(0)
    return reading


class _Stretch(msgspec.Struct, eq=False):
    """A stretch that a sink reads or has read, and how many other sinks are to take it."""

    segment: Segment
    read_at: float
    takers: int
    reading: Reading | None = None
    lock: Any = msgspec.field(default_factory=allocate_lock)  # held while the first sink reads


class SharedReadings:
    """The stretches that some sinks of a relay have read and others have not.

    Args:
        answering: names the sinks that take records at the moment.
    """

    def __init__(self, answering: Callable[[], Iterable[str]]) -> None:
        self._answering = answering
        self._stretches: dict[tuple[int, int], _Stretch] = {}  # by segment and offset; oldest first
        self._kept = 0  # records
        self._lock = allocate_lock()  # of both, held for microseconds

    def next(self, scanner: Scanner, sink: str, is_contended: Callable[[], bool]) -> Reading:
        """Read the next stretch of a segment, or take what another sink has read.

        Raises:
            OSError: the disk cannot read.
        """
        segment = scanner.segment
        key = id(segment), scanner.offset
        stretch = self._stretches.get(key)
        if stretch is None:
            takers = self._takers(segment, scanner.offset, sink)
            mine = _Stretch(segment, monotonic(), takers)
            with mine.lock:
                stretch = self._stretches.setdefault(key, mine) if takers else mine
                if stretch is mine:
                    try:
                        reading = decoded(scanner.batch(STRETCH), is_contended)
                        mine.reading = reading if reading.is_whole else None
                    finally:
                        self._keep(key, mine)
                    return reading
        with stretch.lock:  # another sink may be reading it now
            shared = stretch.reading
        if shared is None or stretch.segment is not segment:
            return decoded(scanner.batch(STRETCH), is_contended)
        scanner.skip_to(shared.end)
        with self._lock:
            stretch.takers -= 1
            if not stretch.takers:
                self._forget(key)
        return shared

    def _takers(self, segment: Segment, offset: int, sink: str) -> int:
        """Return how many other sinks will probably read from here soon."""
        return sum(
            segment.cursors[name] <= offset and name not in segment.delivered_to
            for name in self._answering()
            if name != sink
        )

    def _keep(self, key: tuple[int, int], latest: _Stretch) -> None:
        """Keep a stretch for the others, and forget those that are too old or too much."""
        with self._lock:
            if latest.reading is None or not latest.takers:
                self._stretches.pop(key, None)  # each sink deals with damage itself
                return
            self._kept += len(latest.reading)
            for other, stretch in [*islice(self._stretches.items(), _LOOKED_AT)]:
                if self._kept > _MOST or latest.read_at - stretch.read_at > _KEPT_FOR:
                    self._forget(other)

    def _forget(self, key: tuple[int, int]) -> None:
        stretch = self._stretches.pop(key, None)
        if stretch is not None and stretch.reading is not None:
            self._kept -= len(stretch.reading)
