"""The place of each event of an artifact in time, for a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sidelight.store.event import Event

_CUT: Final = 0.1  # a pause longer than the busy time is drawn as long as this share of it
_LEAST_BUSY: Final = 100_000_000  # ns; else short calls would fill the picture of a long life


@dataclass(frozen=True, slots=True)
class Stretch:
    """The place of an event in time, in nanoseconds since 1970.

    Attributes:
        begin, end: of the call.
        until: equals ``end``, except for a call whose start alone was recorded: where its end was
            recorded, or else where the next event begins.
    """

    begin: int
    end: int
    until: int


def stretches_of(events: Sequence[Event]) -> list[Stretch]:
    """Return the place of each event of a timeline."""
    ends: dict[tuple[str | None, str | None], int] = {
        (event.trace_id, event.span_id): event.occurred_ns
        for event in events
        if event.span_id is not None and event.duration_ns is not None
    }
    stretches = []
    for index, event in enumerate(events):
        until = event.occurred_ns
        if event.outcome == "started":
            following = events[index + 1].started_ns if index + 1 < len(events) else until
            until = max(until, ends.get((event.trace_id, event.span_id), following))
        stretches.append(Stretch(event.started_ns, event.occurred_ns, until))
    return stretches


class Axis:
    """Map nanoseconds to columns of the terminal, and cut long pauses short.

    Attributes:
        cut: the length (ns) of each pause that was cut, by the time at which it ends.
    """

    def __init__(self, stretches: Sequence[Stretch], columns: int) -> None:
        busy = _merged(stretches)
        total = sum(end - begin for begin, end in busy)
        self.cut: dict[int, int] = {}
        self._knots: list[tuple[int, int]] = []  # (time, place)
        longest = max(total, _LEAST_BUSY)
        place, before = 0, None
        for begin, end in busy:
            if before is not None:
                pause = begin - before
                if pause > longest and total > 0:
                    self.cut[begin] = pause
                    pause = int(longest * _CUT)
                place += pause
            self._knots.append((begin, place))
            place += end - begin
            self._knots.append((end, place))
            before = end
        self._scale = columns / place if place else 0.0

    def __call__(self, ns: int) -> float:
        """Return the place of a time that lies within a stretch, in columns from the left."""
        time, place = max((k for k in self._knots if k[0] <= ns), default=self._knots[0])
        return (place + ns - time) * self._scale


def _merged(stretches: Sequence[Stretch]) -> list[tuple[int, int]]:
    """Merge the stretches that touch or overlap."""
    merged: list[tuple[int, int]] = []
    for begin, end in sorted((s.begin, s.until) for s in stretches):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged
