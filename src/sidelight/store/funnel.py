"""How many artifacts reach each of several steps, in what time, and where the others stand."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sidelight.store.journeys import Journey, Journeys
from sidelight.store.latency import percentile
from sidelight.store.selection import Scan
from sidelight.store.times import from_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a funnel; durations in nanoseconds, since the step before.

    Attributes:
        types: an event of one of these types reaches the step.
        reached: how many artifacts reached it.
        by_type: how many by each type.
        p50_ns, p90_ns, max_ns: how long they took; None for the first step, and where none reached
            the step.
        stayed: how many reached this step, but not the next; 0 for the last step.
        last_types: the types of the last events of those that stayed, with their numbers.
        abandoned: of how many of those the last event is the start of a call that was abandoned.
    """

    types: tuple[str, ...]
    reached: int
    by_type: dict[str, int]
    p50_ns: int | None
    p90_ns: int | None
    max_ns: int | None
    stayed: int
    last_types: dict[str, int]
    abandoned: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Funnel:
    """How far artifacts got.

    Attributes:
        steps: in their order.
        left_out: artifacts that began before this time were not examined, because the time limit
            ended the search; None if all were.
        large: how many artifacts were left out because they have more than 10,000 events.
    """

    steps: list[Step]
    left_out: datetime | None
    large: int


@dataclass(slots=True)
class _Tally:
    durations: array[int] = field(default_factory=lambda: array("q"))
    by_type: Counter[str] = field(default_factory=Counter)
    last_types: Counter[str] = field(default_factory=Counter)
    abandoned: int = 0


def funnel_of(journeys: Journeys, steps: Sequence[frozenset[str]], scan: Scan) -> Funnel:
    """Follow each journey through the steps, as far as it gets."""
    tallies = [_Tally() for _ in steps]
    for journey in journeys:
        _follow(journey, steps, tallies)
    return Funnel(
        steps=[_step(types, tally) for types, tally in zip(steps, tallies, strict=True)],
        left_out=None if scan.left_out is None else from_ns(scan.left_out),
        large=journeys.large,
    )


def _follow(journey: Journey, steps: Sequence[frozenset[str]], tallies: Sequence[_Tally]) -> None:
    at, used = journey.at, {journey.at}
    tallies[0].by_type[journey.events[at].type] += 1
    for number in range(1, len(steps)):
        found = journey.next_step(at, steps[number], used)
        if found is None:
            stayed, last = tallies[number - 1], journey.events[-1]
            stayed.last_types[last.type] += 1
            stayed.abandoned += last.outcome == "abandoned"
            return
        tallies[number].durations.append(journey.took(at, found))
        tallies[number].by_type[journey.events[found].type] += 1
        at = found
        used.add(found)


def _step(types: frozenset[str], tally: _Tally) -> Step:
    ordered = sorted(tally.durations)
    return Step(
        types=tuple(sorted(types)),
        reached=tally.by_type.total(),
        by_type=dict(sorted(tally.by_type.items(), key=lambda item: str(item[0]))),
        p50_ns=percentile(ordered, 0.50),
        p90_ns=percentile(ordered, 0.90),
        max_ns=ordered[-1] if ordered else None,
        stayed=tally.last_types.total(),
        last_types=dict(tally.last_types.most_common()),
        abandoned=tally.abandoned,
    )
