"""How far each sink is with a spool directory, without reading all that waits."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

import msgspec

from sidelight.cli.spool.segments import end_of
from sidelight.page import Lag
from sidelight.record import SPAN, decode, occurred_at
from sidelight.spool import PAGE, Scanner, Segment, segments_in

_LOOKED_AT: Final = 100  # records of a segment


def lags_of(directory: Path) -> list[Lag]:
    """Sum up the segments of a spool directory by sink, from their cursors.

    Of each segment the first 100 records that wait are read.

    Raises:
        OSError: the directory or a segment cannot be read.
    """
    lags: dict[str, Lag] = {}
    for path in segments_in(directory):
        with (
            contextlib.suppress(FileNotFoundError),  # delivered and deleted meanwhile
            contextlib.closing(Segment.inspect(path)) as segment,
        ):
            for sink in segment.meta.get("sinks", ("store",)):
                found = _lag_in(segment, sink)
                lags[sink] = _together(lags[sink], found) if sink in lags else found
    return [lag for _, lag in sorted(lags.items())]


def _lag_in(segment: Segment, sink: str) -> Lag:
    """Return what waits for a sink in one segment."""
    cursor = segment.cursors.get(sink, PAGE)
    first = Scanner(segment, cursor).batch(_LOOKED_AT)
    if not (first.payloads or first.damaged):
        return Lag(sink, 0, None, is_wanted=False)
    oldest, is_wanted = None, bool(first.damaged) or len(first.payloads) == _LOOKED_AT
    for payload in first.payloads:
        try:
            static, moment = decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            is_wanted = True
            continue
        is_wanted |= bool(moment.flags & SPAN) if sink == "traces" else static.type is not None
        oldest = occurred_at(moment) if oldest is None else oldest
    return Lag(sink, max(end_of(segment) - cursor, 0), oldest, is_wanted=is_wanted)


def _together(one: Lag, other: Lag) -> Lag:
    times = [each.oldest_ns for each in (one, other) if each.oldest_ns is not None]
    return Lag(
        one.sink,
        one.waiting + other.waiting,
        min(times, default=None),
        is_wanted=one.is_wanted or other.is_wanted,
    )
