"""How far each sink is with a spool directory, without reading all that waits."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from sidelight.cli.spool.segments import end_of
from sidelight.page import Lag
from sidelight.record import decode, occurred_at
from sidelight.spool import PAGE, Batch, Scanner, Segment, segments_in


def lags_of(directory: Path) -> list[Lag]:
    """Sum up the segments of a spool directory by sink, from their cursors.

    Raises:
        OSError: the directory or a segment cannot be read.
    """
    waiting: dict[str, int] = {}
    oldest: dict[str, int] = {}
    for path in segments_in(directory):
        with (
            contextlib.suppress(FileNotFoundError),  # delivered and deleted meanwhile
            contextlib.closing(Segment.inspect(path)) as segment,
        ):
            for sink in segment.meta.get("sinks", ("store",)):
                cursor = segment.cursors.get(sink, PAGE)
                first = Scanner(segment, cursor).batch(1)
                has_more = bool(first.payloads or first.damaged)
                size = max(end_of(segment) - cursor, 0) if has_more else 0
                waiting[sink] = waiting.get(sink, 0) + size
                if (occurred := _occurred(first)) is not None:
                    oldest[sink] = min(occurred, oldest.get(sink, occurred))
    return [Lag(sink, size, oldest.get(sink)) for sink, size in sorted(waiting.items())]


def _occurred(batch: Batch) -> int | None:
    """Return when the record of a batch occurred; None where it has none that can be read."""
    for payload in batch.payloads:
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            return occurred_at(decode(payload)[1])
    return None
