"""Tell the store of a process that has ended, when all that it wrote has been delivered."""

from __future__ import annotations

import contextlib
from typing import Any

from sidelight.exceptions import SinkUnavailableError
from sidelight.spool import Segment, Sink, segments_in


def note_end(sink: Sink, segment: Segment) -> bool:
    """Note the end of an orphaned segment's writer, if this was the last of its segments.

    The lock of an orphaned segment is free. A process has a segment that it holds as long as it
    lives: where the directory has no other segment of the process, the process has ended, and the
    sink has everything that the process wrote.

    Args:
        sink: the store; other sinks do not note the end of a process.
        segment: all of its records were delivered.

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
