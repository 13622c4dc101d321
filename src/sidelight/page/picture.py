"""Geometry of the pictures: places and lengths in thousandths of the width. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from math import log
from statistics import fmean
from typing import Final

from sidelight.store import Axis, Event, Latency, duration, stretches_of

WIDTH: Final = 1000
_SHORTEST: Final = 4
_MINUTE: Final = 60_000_000_000
_KINDS: Final = 6  # colours of types; more of them are "other"


@dataclass(frozen=True, slots=True)
class Bar:
    """One event of a timeline.

    Attributes:
        event: the event.
        after: the time since the first, in words.
        took: the length of the call, in words.
        left, width: the place of the call.
        is_open: the call's end is not known.
        depth: in how many calls of the same artifact the call lies.
        pause: the pause before it that the picture cuts short, in words; "" where there is none.
    """

    event: Event
    after: str
    took: str
    left: int
    width: int
    is_open: bool
    depth: int
    pause: str


def bars_of(events: Sequence[Event]) -> list[Bar]:
    """Place the events of one artifact, in their order."""
    if not events:
        return []
    stretches = stretches_of(events)
    axis = Axis(stretches, WIDTH)
    first = min(stretch.begin for stretch in stretches)
    bars = []
    for number, (event, stretch) in enumerate(zip(events, stretches, strict=True)):
        left = min(round(axis(stretch.begin)), WIDTH - _SHORTEST)
        right = max(round(axis(stretch.until)), left + _SHORTEST)
        around = sum(
            other.begin <= stretch.begin
            and stretch.until <= other.until
            and (other.until - other.begin) > (stretch.until - stretch.begin)
            for at, other in enumerate(stretches)
            if at != number
        )
        pause = axis.cut.pop(stretch.begin, None)
        is_open = stretch.until != event.occurred_ns
        bars.append(
            Bar(
                event=event,
                after=f"+{duration(event.occurred_ns - first)}",
                took=duration(stretch.until - stretch.begin if is_open else event.duration_ns),
                left=left,
                width=min(right, WIDTH) - left,
                is_open=is_open,
                depth=min(around, 3),
                pause="" if pause is None else duration(pause),
            )
        )
    return bars


@dataclass(frozen=True, slots=True)
class Rate:
    """Events per minute: one column a minute, one piece a type.

    Attributes:
        types: the most frequent types, then "other" where there are more.
        columns: for each minute its begin (UTC) and the number by type, in the order of ``types``.
        highest: the largest sum of a column; at least 1.
    """

    types: list[str]
    columns: list[tuple[datetime, list[int]]]
    highest: int


def rate_of(events: Sequence[Event], now_ns: int, minutes: int) -> Rate:
    """Count the events of the last minutes."""
    known = Counter(event.type for event in events)
    types = [type_ for type_, _ in known.most_common(_KINDS)]
    if len(known) > _KINDS:
        types[-1] = "other"
    last = now_ns // _MINUTE
    counted: dict[int, Counter[str]] = {
        minute: Counter() for minute in range(last - minutes + 1, last + 1)
    }
    for event in events:
        if (minute := counted.get(event.occurred_ns // _MINUTE)) is not None:
            minute[event.type if event.type in types else types[-1]] += 1
    columns = [
        (datetime.fromtimestamp(minute * 60, UTC), [number[type_] for type_ in types])
        for minute, number in counted.items()
    ]
    return Rate(types, columns, max([1, *(sum(pieces) for _, pieces in columns)]))


@dataclass(frozen=True, slots=True)
class Step:
    """The way from one type of event to the next of the same artifact.

    Attributes:
        start, end: the types.
        count: how often the one was followed by the other.
        median_ns: half of them took at most this long.
        upper, lower: rows of both types in the picture.
        is_back: whether the way leads to a type that stands above.
    """

    start: str
    end: str
    count: int
    median_ns: int
    upper: int
    lower: int
    is_back: bool


@dataclass(frozen=True, slots=True)
class Flow:
    """The way of many artifacts from type to type.

    Attributes:
        types: the types in the order in which they usually occur, with their numbers.
        steps: the most frequent first.
        points: the functions that emitted each type.
        instead: the other types that a call may emit in place of each type: of the same function
            and outcome. No artifact has both.
        artifacts: how many artifacts were examined.
    """

    types: dict[str, int]
    steps: list[Step]
    points: Mapping[str, list[str]]
    instead: Mapping[str, list[str]]
    artifacts: int


def flow_of(events: Sequence[Event]) -> Flow:
    """Find the flow in the events of several artifacts; an artifact's events in any order."""
    by_artifact: dict[str, list[Event]] = {}
    points: dict[str, set[str]] = {}
    for event in events:
        points.setdefault(event.type, set()).add(event.point)
        if event.artifact_id is not None:
            by_artifact.setdefault(event.artifact_id, []).append(event)
    places: dict[str, list[float]] = {}
    numbers = Counter(event.type for event in events if event.artifact_id is not None)
    took: dict[tuple[str, str], list[int]] = {}
    for found in by_artifact.values():
        found.sort(key=lambda event: (event.occurred_ns, event.event_id))
        for at, event in enumerate(found):
            place = places.setdefault(event.type, [])
            if len(found) > 1:  # one event alone has no place; the others may be older
                place.append(at / (len(found) - 1))
        for one, two in pairwise(found):
            took.setdefault((one.type, two.type), []).append(two.occurred_ns - one.occurred_ns)
    for found_places in places.values():
        found_places[:] = found_places or [0.5]
    order = sorted(places, key=lambda type_: (_median(places[type_]), fmean(places[type_]), type_))
    rows = {type_: row for row, type_ in enumerate(order)}
    steps = [
        Step(
            start=start,
            end=end,
            count=len(all_),
            median_ns=int(_median(all_)),
            upper=min(rows[start], rows[end]),
            lower=max(rows[start], rows[end]),
            is_back=rows[end] < rows[start],
        )
        for (start, end), all_ in took.items()
    ]
    steps.sort(key=lambda step: (-step.count, step.start, step.end))
    return Flow(
        types={type_: numbers[type_] for type_ in order},
        steps=steps,
        points={type_: sorted(all_) for type_, all_ in points.items()},
        instead=_instead(by_artifact.values()),
        artifacts=len(by_artifact),
    )


def _instead(artifacts: Iterable[Sequence[Event]]) -> dict[str, list[str]]:
    """Return the types that calls emit in place of each other; see `Flow`."""
    of_call: dict[tuple[str, str], set[str]] = {}
    together: dict[str, set[str]] = {}
    for found in artifacts:
        types = {event.type for event in found}
        for event in found:
            together.setdefault(event.type, set()).update(types)
            if event.outcome != "emitted":  # by `emit`, whose events have one point
                of_call.setdefault((event.point, event.outcome), set()).add(event.type)
    instead: dict[str, set[str]] = {type_: set() for type_ in together}
    for types in of_call.values():
        for type_ in types:
            instead[type_] |= types - together[type_]
    return {type_: sorted(others) for type_, others in instead.items()}


def main_way(flow: Flow, longest: int = 8) -> list[list[str]]:
    """Return the usual path: from each type the most frequent step to the next.

    With a type go those that a call may emit in its place.
    """
    if not flow.types:
        return []
    first = max([*flow.types][:2], key=lambda type_: flow.types[type_])
    way, on_it = [[first, *flow.instead[first]]], {first, *flow.instead[first]}
    while len(way) < longest:
        following = next(
            (s.end for s in flow.steps if s.start in way[-1] and s.end not in on_it), None
        )
        if following is None:
            break
        way.append([following, *(each for each in flow.instead[following] if each not in on_it)])
        on_it.update(way[-1])
    return way


def spread_of(latencies: Sequence[Latency]) -> list[tuple[int, int, int, int] | None]:
    """Return where p50, p90, p99 and the longest lie on one logarithmic axis.

    Return None where no artifact arrived.
    """
    arrived = [each for each in latencies if each.arrived]
    lowest = min((each.p50_ns or 1 for each in arrived), default=1)
    highest = max((each.max_ns or 1 for each in arrived), default=1)
    scale = (WIDTH - _SHORTEST) / max(log(highest / max(lowest, 1)), 1)

    def place(ns: int | None) -> int:
        return round(scale * log(max(ns or 1, 1) / max(lowest, 1)))

    return [
        (place(each.p50_ns), place(each.p90_ns), place(each.p99_ns), place(each.max_ns))
        if each.arrived
        else None
        for each in latencies
    ]


def _median(values: Sequence[float]) -> float:
    return sorted(values)[(len(values) - 1) // 2]
