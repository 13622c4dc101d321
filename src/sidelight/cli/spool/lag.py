"""How far each sink is with a spool directory, without reading what waits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from sidelight.record import decode, occurred_at
from sidelight.spool import PAGE, Scanner, Segment, segments_in

_CHUNK: Final = 65_536  # bytes


@dataclass(slots=True)
class SinkLag:
    """What waits for one sink.

    Attributes:
        waiting: bytes from the cursors to the last record of each segment.
        oldest_ns: when the oldest waiting record occurred; None where none waits.
    """

    waiting: int = 0
    oldest_ns: int | None = None


def lags_of(directory: Path) -> dict[str, SinkLag]:
    """Sum up the segments of a spool directory by sink, from their cursors.

    Raises:
        OSError: the directory or a segment cannot be read.
    """
    lags: dict[str, SinkLag] = {}
    for path in segments_in(directory):
        with (
            contextlib.suppress(FileNotFoundError),  # delivered and deleted meanwhile
            contextlib.closing(Segment.inspect(path)) as segment,
        ):
            sinks: Iterable[str] = segment.meta.get("sinks", ("store",))
            for sink in sinks:
                lag = lags.setdefault(sink, SinkLag())
                cursor = segment.cursors.get(sink, PAGE)
                oldest = _first(segment, cursor)
                if oldest is not None:
                    lag.waiting += max(_end_of(segment) - cursor, 0)
                    lag.oldest_ns = min(oldest, lag.oldest_ns or oldest)
    return lags


def _end_of(segment: Segment) -> int:
    """The offset behind the last written byte; segments are allocated in full."""
    end = segment.size
    while end > PAGE:
        begin = max(end - _CHUNK, PAGE)
        if written := segment.read(begin, end - begin).rstrip(b"\0"):
            return begin + len(written)
        end = begin
    return end


def _first(segment: Segment, cursor: int) -> int | None:
    for payload in Scanner(segment, cursor).batch(1).payloads:
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            return occurred_at(decode(payload)[1])
    return None
