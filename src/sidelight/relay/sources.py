"""What one worker reads: the segments of the spool, in order, each from the sink's own cursor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final
from weakref import WeakKeyDictionary

from sidelight.host import monotonic
from sidelight.relay.reading import Reading, SharedReadings
from sidelight.spool import Scanner, Segment, Spool, os_error_text

_READ_RETRIES: Final = 5.0  # seconds for a disk to become readable again


class Sources:
    """Reads batches out of the spool for one sink.

    Args:
        spool: the source.
        sink: the name of the sink's cursor.
        count: counts a loss by reason.
        shared: what other sinks have read.
    """

    def __init__(
        self, spool: Spool, sink: str, count: Callable[[str, str], None], shared: SharedReadings
    ) -> None:
        self._shared = shared
        self._spool = spool
        self._sink = sink
        self._count = count
        self._scanners: dict[int, Scanner] = {}
        self._unreadable_since: WeakKeyDictionary[Segment, float] = WeakKeyDictionary()

    def __iter__(self) -> Iterator[Segment]:
        """Yield the oldest undelivered own segment, the oldest orphan, and all live segments.

        The live segments of a process wait for its older segments, and the oldest of those is
        yielded in their place. Otherwise the end of a call could come before its start.
        """
        adopted = tuple(self._spool.adopted)
        own = (each for each in tuple(self._spool.own) if self._sink not in each.delivered_to)
        orphans = [s for s in adopted if s.sealed and self._sink not in s.delivered_to]
        oldest: dict[object, Segment] = {}
        for orphan in orphans:
            oldest.setdefault(orphan.meta.get("instance"), orphan)
        yield from islice(own, 1)
        yield from orphans[:1]
        begun = {*orphans[:1]}
        for segment in adopted:
            if segment.sealed:
                continue
            instance, cursor = segment.meta.get("instance"), segment.cursors[self._sink]
            first = oldest.get(instance, segment)
            if first not in begun:
                begun.add(first)
                yield first
            # What the process wrote into the next one comes later.
            if segment.cursors[self._sink] != cursor and segment.may_have_more_for(self._sink):
                oldest[instance] = segment

    def are_left(self) -> bool:
        """Return whether the sink has records left to take; any thread may ask."""
        return any(
            segment.may_have_more_for(self._sink)
            for segment in (*self._spool.own, *self._spool.adopted)
            if self._sink not in segment.delivered_to
        )

    def read(
        self, segment: Segment, limit: int, is_contended: Callable[[], bool] = lambda: False
    ) -> Reading | None:
        """Read the records behind the last ones; None where there is nothing to read.

        The disk gets 5 s to recover from an error. Then the pages that it cannot read are skipped.

        Args:
            segment: one of those that iteration yields.
            limit: no stretch is read once there are so many records.
            is_contended: whether other threads take the GIL without being offered it.
        """
        scanner = self._scanner_of(segment)
        if not segment.sealed and segment.mapping is not None and segment.tell() <= scanner.offset:
            return None
        reading = Reading(end=scanner.offset)
        try:
            while len(reading) < limit:
                more = self._shared.next(scanner, self._sink, is_contended)
                reading.add(more)
                if not more.is_whole:
                    break
        except OSError as error:
            if reading.records:  # the next read tells of the error
                return reading
            since = self._unreadable_since.setdefault(segment, monotonic())
            if monotonic() - since > _READ_RETRIES:
                segment.is_unreadable = True
                problem = f"{segment.path} from {scanner.offset} on"
                self._count(f"segment not readable: {os_error_text(error)}", problem)
            return None
        except BaseException:
            self.forget(segment)  # its scanner has passed records that are not delivered
            raise
        self._unreadable_since.pop(segment, None)
        return reading

    def forget(self, segment: Segment) -> None:
        """Read the segment again from the cursor, if at all."""
        self._scanners.pop(id(segment), None)

    def _scanner_of(self, segment: Segment) -> Scanner:
        if len(self._scanners) > len(self._spool.own) + len(self._spool.adopted):
            self._scanners.clear()  # some segments were dropped before their end was read
        scanner = self._scanners.get(id(segment))
        if scanner is None or scanner.segment is not segment:
            scanner = Scanner(segment, segment.cursors[self._sink])
            self._scanners[id(segment)] = scanner
        return scanner
