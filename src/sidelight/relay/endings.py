"""Tell the store or the stream of other processes: that one lives, or that one has ended."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from sidelight.exceptions import SinkUnavailableError
from sidelight.host import monotonic
from sidelight.spool import Health, HotSegment, NotesProcesses, Segment, Sink, segments_in

_EVERY: Final = 5.0  # seconds between two notes of a process …
_IDLE: Final = 20.0  # … of one that emits nothing: the pause doubles up to this
_LOOK: Final = 1.0  # seconds between two looks at all segments, and at least …
_LOOK_REST: Final = 20  # … so many times as long as the last look took
_MOST: Final = 1000  # processes whose last notes are remembered


class _Note(NamedTuple):
    """The last note of a process: when, the pause after it, and how far its segment was read."""

    at: float
    pause: float
    offset: int


class _Survey(NamedTuple):
    """Which segments hold records that the sink lacks, as far as they were written before ``at``.

    Attributes:
        at: wall clock before the look (ns).
        due: monotonic clock of the next look.
        left: names of segments, by the instance that wrote them.
    """

    at: int
    due: float
    left: Mapping[object, Collection[str]]


class Endings:
    """What one sink is told of other processes.

    Args:
        sink: the store or the stream; other sinks note nothing.
        adopted: the segments of other processes that this process has open.
    """

    def __init__(self, sink: Sink, adopted: Iterable[Segment]) -> None:
        self._sink = sink if isinstance(sink, NotesProcesses) else None
        self._adopted = adopted
        self._noted: dict[str, _Note] = {}  # by instance
        self._survey = _Survey(0, 0.0, {})

    def note_alive(self, segment: Segment, until: int) -> None:
        """Note that a living process, which leaves delivery to this relay, has nothing left.

        Such a process has no thread that could write signs of life into its spool. Nothing is noted
        while another segment of the process waits, here or at another relay.

        Args:
            segment: nothing is left to read in it.
            until: wall clock before the read that found nothing (ns).
        """
        sink = self._sink
        if sink is None or segment.number or segment.meta.get("relay") != "external":
            return
        instance = str(segment.meta.get("instance"))
        last, offset = self._noted.get(instance), segment.cursors[sink.name]
        pause = _EVERY if last is None or last.offset != offset else last.pause
        if last is not None and monotonic() - last.at < pause:
            return
        if monotonic() >= self._survey.due:
            self._survey = self._look(sink.name, _directory_of(segment))
        if any(name != _name(segment) for name in self._survey.left.get(instance, ())):
            return
        if len(self._noted) > _MOST:
            self._noted.clear()
        self._noted[instance] = _Note(monotonic(), min(2 * pause, _IDLE), offset)
        with contextlib.suppress(SinkUnavailableError):  # the next note says the same
            sink.note_alive(segment.meta, min(until, self._survey.at))

    def _look(self, sink: str, directory: Path) -> _Survey:
        """Look which segments hold records that the sink lacks.

        Segments that are not open here are opened, so that many looks would cost much.
        """
        at, began = time.time_ns(), monotonic()
        left: dict[object, list[str]] = {}
        for other in self._others(directory):
            if sink not in other.delivered_to and _lacks(sink, other):
                left.setdefault(str(other.meta.get("instance")), []).append(_name(other))
        now = monotonic()
        return _Survey(at, now + max(_LOOK, _LOOK_REST * (now - began)), left)

    def _others(self, directory: Path) -> Iterator[Segment]:
        """Yield all segments of the spool; those that are not open here are open for one turn."""
        here = {_name(segment): segment for segment in tuple(self._adopted)}
        for path in segments_in(directory):
            if (segment := here.get(path.name)) is not None:
                yield segment
                continue
            with (
                contextlib.suppress(FileNotFoundError),
                contextlib.closing(Segment.inspect(path)) as inspected,
            ):
                yield inspected

    def note_end(self, segment: Segment, health: Health) -> bool:
        """Note the end of an orphaned segment's writer, if this was the last of its segments.

        The lock of an orphaned segment is free. A process has a segment that it holds as long as it
        lives. Where it holds no other segment, and the sink lacks none, the process has ended, and
        the sink has everything that the process wrote.

        Args:
            segment: all of its records were delivered.
            health: of the sink; it counts the ends that were noted.

        Returns:
            False where the sink does not answer: try again later.
        """
        sink = self._sink
        if sink is None or segment.number or segment.path is None or not segment.sealed:
            return True
        instance = segment.meta.get("instance")
        if instance is None or self._has_another(segment, instance, sink.name):
            return True
        try:
            sink.note_end(segment.meta)
        except SinkUnavailableError:
            return False
        health.ended += 1
        return True

    def _has_another(self, segment: Segment, instance: object, sink: str) -> bool:
        """Return whether a process has another segment that it holds, or that the sink lacks.

        Others stay for telemetry, perhaps for days. A segment and its copy have the same name, and
        the housekeeping may just have replaced one by the other.
        """
        here = tuple(self._adopted)
        for other in self._others(_directory_of(segment)):
            if _name(other) == _name(segment) or other.meta.get("instance") != instance:
                continue
            if sink in other.delivered_to:
                continue
            if other in here or other.has_writer or _lacks(sink, other):
                return True
        return False


def _name(segment: Segment) -> str:
    """Return the name of a segment's file, which its copy on the disk has as well."""
    return "" if segment.path is None else segment.path.name


def _lacks(sink: str, segment: Segment) -> bool:
    """Return whether a sink has not taken everything of a segment."""
    try:
        return segment.has_more(segment.cursors[sink])
    except OSError:
        return True


def _directory_of(segment: Segment) -> Path:
    """Return the directory of the spool; a hot segment lies elsewhere."""
    if isinstance(segment, HotSegment):
        return segment.spool
    assert segment.path is not None  # noqa: S101  # for the type checker
    return segment.path.parent
