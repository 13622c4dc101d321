"""How long artifacts take from one event to another, and how many still wait."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from math import ceil
from typing import Final, Literal, TypeAlias, get_args

from sidelight.exceptions import QueryError
from sidelight.store.journeys import Journey, Journeys
from sidelight.store.selection import Scan
from sidelight.store.times import from_ns

Grouping: TypeAlias = Literal["organization", "day", "point"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """How long artifacts took from one event to another; durations in nanoseconds.

    Attributes:
        organization_id, day, point: of the first event; None where the answer is not grouped by it.
            ``organization_id`` is also None for events without one.
        arrived: how many artifacts have the second event.
        waiting: how many do not have it. A percentile knows nothing of them.
        waiting_since: when the first event of the oldest of them occurred (UTC).
        p50_ns, p90_ns, p99_ns: half of those that arrived took at most this long; 90 %; 99 %. None
            where none arrived.
        max_ns: the longest.
    """

    organization_id: str | None = None
    day: date | None = None
    point: str | None = None
    arrived: int
    waiting: int
    waiting_since: datetime | None
    p50_ns: int | None
    p90_ns: int | None
    p99_ns: int | None
    max_ns: int | None


class Latencies(list[Latency]):
    """Latencies, sorted by organization, day and point.

    Attributes:
        left_out: artifacts that began before this time were not examined, because the time limit
            ended the search; None if all were.
        large: how many artifacts were left out because they have more than 10,000 events.
    """

    left_out: datetime | None = None
    large: int = 0


class _Sample:
    def __init__(self) -> None:
        self.durations = array("q")
        self.waiting = 0
        self.oldest: int | None = None


_KEYS: Final = {"organization": "organization_id", "day": "day", "point": "point"}


def checked_grouping(by: Sequence[Grouping]) -> Sequence[Grouping]:
    """Check what an answer is grouped by.

    Raises:
        QueryError: it cannot be grouped by that.
    """
    for each in [by] if isinstance(by, str) else by:
        if each not in _KEYS:
            raise QueryError(
                argument="by",
                problem=f"{each!r} is unknown",
                remedy=f"give some of {', '.join(get_args(Grouping))}",
            )
    return [name for name in get_args(Grouping) if name in by]


def latencies(
    journeys: Journeys, ends: frozenset[str], by: Sequence[Grouping], scan: Scan
) -> Latencies:
    """Measure the journeys until their first event of one of the types ``ends``."""
    samples: dict[tuple[str | int | None, ...], _Sample] = {}
    if not by:
        samples[()] = _Sample()
    for journey in journeys:
        key = tuple(_part(journey, name) for name in by)
        sample = samples.setdefault(key, _Sample())
        began = journey.start.occurred_at
        if (end := journey.next_step(journey.at, ends)) is not None:
            sample.durations.append(journey.took(journey.at, end))
        else:
            sample.waiting += 1
            sample.oldest = min(began, sample.oldest or began)
    answer = Latencies(
        _latency(dict(zip(by, key, strict=True)), sample)
        for key, sample in sorted(samples.items(), key=lambda item: [*map(_order, item[0])])
    )
    answer.left_out = None if scan.left_out is None else from_ns(scan.left_out)
    answer.large = journeys.large
    return answer


def percentile(ordered: Sequence[int], share: float) -> int | None:
    """Return the smallest of the values that at least this share of them does not exceed."""
    return ordered[max(ceil(len(ordered) * share) - 1, 0)] if ordered else None


def _part(journey: Journey, name: Grouping) -> str | int | None:
    if name == "day":
        return int(journey.start.occurred_at) // _DAY
    value: str | None = getattr(journey.start, _KEYS[name])
    return value or None


_DAY: Final = 86_400_000_000_000


def _order(part: str | int | None) -> tuple[bool, str | int]:
    return (part is not None, part or 0)


def _latency(key: dict[str, str | int | None], sample: _Sample) -> Latency:
    ordered = sorted(sample.durations)
    day, organization, point = key.get("day"), key.get("organization"), key.get("point")
    return Latency(
        organization_id=None if organization is None else str(organization),
        day=None if day is None else from_ns(int(day) * _DAY).date(),
        point=None if point is None else str(point),
        arrived=len(ordered),
        waiting=sample.waiting,
        waiting_since=None if sample.oldest is None else from_ns(sample.oldest),
        p50_ns=percentile(ordered, 0.50),
        p90_ns=percentile(ordered, 0.90),
        p99_ns=percentile(ordered, 0.99),
        max_ns=ordered[-1] if ordered else None,
    )
