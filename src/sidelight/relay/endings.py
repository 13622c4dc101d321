"""Tell the store or the stream of other processes: that one lives, or that one has ended."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Final, NamedTuple

from sidelight.exceptions import SinkUnavailableError
from sidelight.host import monotonic
from sidelight.spool import Health, HotSegment, NotesProcesses, Segment, Sink, segments_in

_EVERY: Final = 5.0  # seconds between two notes of a process …
_IDLE: Final = 20.0  # … of one that emits nothing: the pause doubles up to this
_MOST: Final = 1000  # processes whose last notes are remembered


class _Note(NamedTuple):
    """The last note of a process: when, the pause after it, and how far its segment was read."""

    at: float
    pause: float
    offset: int


class Endings:
    """What one sink is told of other processes.

    Args:
        sink: the store or the stream; other sinks note nothing.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink if isinstance(sink, NotesProcesses) else None
        self._noted: dict[str, _Note] = {}  # by instance

    def note_alive(self, segment: Segment) -> None:
        """Note that a living process, which leaves delivery to this relay, has nothing left.

        Such a process has no thread that could write signs of life into its spool.

        Args:
            segment: nothing is left to read in it.
        """
        sink = self._sink
        if sink is None or segment.number or segment.meta.get("relay") != "external":
            return
        instance = str(segment.meta.get("instance"))
        last, offset = self._noted.get(instance), segment.cursors[sink.name]
        pause = _EVERY if last is None or last.offset != offset else last.pause
        if last is not None and monotonic() - last.at < pause:
            return
        if len(self._noted) > _MOST:
            self._noted.clear()
        self._noted[instance] = _Note(monotonic(), min(2 * pause, _IDLE), offset)
        with contextlib.suppress(SinkUnavailableError):  # the next note says the same
            sink.note_alive(segment.meta, time.time_ns())

    def note_end(self, segment: Segment, health: Health) -> bool:
        """Note the end of an orphaned segment's writer, if this was the last of its segments.

        The lock of an orphaned segment is free. A process has a segment that it holds as long as it
        lives: where the spool has no other segment of the process, the process has ended, and
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
        if instance is None or _has_another(segment, instance):
            return True
        try:
            sink.note_end(segment.meta)
        except SinkUnavailableError:
            return False
        health.ended += 1
        return True


def _has_another(segment: Segment, instance: object) -> bool:
    """Return whether the spool has another segment of a process, on the disk or on a tmpfs.

    A segment and its copy have the same name, and the housekeeping may just have replaced one by
    the other.
    """
    assert segment.path is not None  # noqa: S101  # for the type checker
    for path in segments_in(_directory_of(segment)):
        if path.name == segment.path.name:
            continue
        with (
            contextlib.suppress(FileNotFoundError),
            contextlib.closing(Segment.inspect(path)) as other,
        ):
            if other.meta.get("instance") == instance:
                return True
    return False


def _directory_of(segment: Segment) -> Path:
    """Return the directory of the spool; a hot segment lies elsewhere."""
    if isinstance(segment, HotSegment):
        return segment.spool
    assert segment.path is not None  # noqa: S101  # for the type checker
    return segment.path.parent
