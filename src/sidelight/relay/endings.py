"""Tell the store or the stream of other processes: that one lives, or that one has ended."""

from __future__ import annotations

import contextlib
import time
from typing import Any, Final, NamedTuple

from sidelight.exceptions import SinkUnavailableError
from sidelight.host import monotonic
from sidelight.spool import Health, Segment, Sink, segments_in

_EVERY: Final = 5.0  # seconds between two notes of a process …
_IDLE: Final = 20.0  # … of one that emits nothing: the pause doubles up to this


class _Note(NamedTuple):
    """The last note of a process: when, the pause after it, and how far its segment was read."""

    at: float
    pause: float
    offset: int


_noted: Final[dict[tuple[str, str], _Note]] = {}


def note_alive(sink: Sink, segment: Segment) -> None:
    """Note that a living process, which leaves delivery to this relay, has nothing left to deliver.

    Such a process has no thread that could write signs of life into its spool.

    Args:
        sink: the store or the stream; other sinks note nothing.
        segment: nothing is left to read in it.
    """
    note: Any = getattr(sink, "note_alive", None)
    if note is None or segment.number or segment.meta.get("relay") != "external":
        return
    key = sink.name, str(segment.meta.get("instance"))
    last, offset = _noted.get(key), segment.cursors[sink.name]
    pause = _EVERY if last is None or last.offset != offset else last.pause
    if last is not None and monotonic() - last.at < pause:
        return
    if len(_noted) > 1000:
        _noted.clear()
    _noted[key] = _Note(monotonic(), min(2 * pause, _IDLE), offset)
    with contextlib.suppress(SinkUnavailableError):  # the next note says the same
        note(segment.meta, time.time_ns())


def note_end(sink: Sink, segment: Segment, health: Health) -> bool:
    """Note the end of an orphaned segment's writer, if this was the last of its segments.

    The lock of an orphaned segment is free. A process has a segment that it holds as long as it
    lives: where the directory has no other segment of the process, the process has ended, and the
    sink has everything that the process wrote.

    Args:
        sink: the store or the stream; other sinks do not note the end of a process.
        segment: all of its records were delivered.
        health: of the sink; it counts the ends that were noted.

    Returns:
        False where the sink does not answer: try again later.
    """
    note: Any = getattr(sink, "note_end", None)
    if note is None or segment.number or segment.path is None or not segment.sealed:
        return True
    instance = segment.meta.get("instance")
    if instance is None or _has_another(segment, instance):
        return True
    try:
        note(segment.meta)
    except SinkUnavailableError:
        return False
    health.ended += 1
    return True


def _has_another(segment: Segment, instance: object) -> bool:
    assert segment.path is not None  # noqa: S101  # for the type checker
    for path in segments_in(segment.path.parent):
        if path == segment.path:
            continue
        with (
            contextlib.suppress(FileNotFoundError),
            contextlib.closing(Segment.inspect(path)) as other,
        ):
            if other.meta.get("instance") == instance:
                return True
    return False
