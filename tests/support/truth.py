"""What a store of simulated artifacts must answer, by the definitions in docs/reference/store.md.

Every answer is worked out from the events of one artifact after the other, without a database.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime
from math import ceil
from typing import Any

from tests.support.simulated import Life, Told

from sidelight.store import Count, Latency, Step
from sidelight.store.times import from_ns

Chosen = Callable[[Life, Told], bool]
"""Whether an event meets a filter."""
Range = tuple[datetime | None, datetime | None]


def begins(
    lives: Sequence[Life], types: Collection[str], within: Range, chosen: Chosen
) -> Iterator[tuple[Life, Told]]:
    """The artifacts whose very first event of a type lies in a range of time, and that event."""
    since, until = within
    for life in lives:
        first = next((event for event in told(life) if event.type in types), None)
        if (
            first is not None
            and (since is None or from_ns(first.at) >= since)
            and (until is None or from_ns(first.at) < until)
            and chosen(life, first)
        ):
            yield life, first


def told(life: Life) -> list[Told]:
    """The events of an artifact in the order of the store."""
    return sorted(life.told, key=lambda event: (event.at, event.event_id))


def following(life: Life, before: Told, types: Collection[str], used: list[Told]) -> Told | None:
    """The first event of a type that is not earlier than another, and that was not used."""
    later = (
        event
        for event in told(life)
        if event.type in types and event.at >= before.at and event not in used
    )
    return next(later, None)


def share(ordered: Sequence[int], part: float) -> int | None:
    """The smallest that at least this part does not exceed."""
    return ordered[ceil(part * len(ordered)) - 1] if ordered else None


def latencies(
    lives: Sequence[Life],
    start: Collection[str],
    end: Collection[str],
    by: Sequence[str],
    within: Range,
    chosen: Chosen,
) -> list[Latency]:
    """The answer of `Store.latency`."""
    groups: dict[tuple[Any, ...], tuple[list[int], list[int]]] = {} if by else {(): ([], [])}
    for life, first in begins(lives, start, within, chosen):
        known = {"organization": life.organization, "day": first.day, "point": first.point}
        took, waiting = groups.setdefault(tuple(known[name] for name in by), ([], []))
        if (last := following(life, first, end, [first])) is None:
            waiting.append(first.at)
        else:
            took.append(last.at - first.at)
    names = [{"organization": "organization_id"}.get(name, name) for name in by]
    return [
        Latency(
            **dict(zip(names, key, strict=True)),
            arrived=len(took),
            waiting=len(waiting),
            waiting_since=from_ns(min(waiting)) if waiting else None,
            p50_ns=share(sorted(took), 0.5),
            p90_ns=share(sorted(took), 0.9),
            p99_ns=share(sorted(took), 0.99),
            max_ns=max(took, default=None),
        )
        for key, (took, waiting) in sorted(
            groups.items(), key=lambda item: [(part is not None, str(part)) for part in item[0]]
        )
    ]


def funnel(
    lives: Sequence[Life],
    steps: Sequence[Collection[str]],
    within: Range,
    chosen: Chosen,
    is_abandoned: Callable[[Life], bool],
) -> list[Step]:
    """The steps of the answer of `Store.funnel`."""
    reached: list[list[tuple[Told, int]]] = [[] for _ in steps]
    stayed: list[list[Life]] = [[] for _ in steps]
    for life, first in begins(lives, steps[0], within, chosen):
        used = [first]
        reached[0].append((first, 0))
        for number, types in enumerate(steps[1:], 1):
            found = following(life, used[-1], types, used)
            if found is None:
                stayed[number - 1].append(life)
                break
            reached[number].append((found, found.at - used[-1].at))
            used.append(found)
    return [
        Step(
            types=tuple(sorted(types)),
            reached=len(here),
            by_type=Counter(event.type for event, _ in here),
            p50_ns=share(sorted(took), 0.5),
            p90_ns=share(sorted(took), 0.9),
            max_ns=max(took, default=None),
            stayed=len(left),
            last_types=Counter(told(life)[-1].type for life in left),
            abandoned=sum(map(is_abandoned, left)),
        )
        for number, (types, here, left) in enumerate(zip(steps, reached, stayed, strict=True))
        for took in [[ns for _, ns in here] if number else []]
    ]


def counts(lives: Sequence[Life], chosen: Chosen) -> list[Count]:
    """The answer of `Store.counts`."""
    number = Counter(
        (life.organization, event.type, event.day)
        for life in lives
        for event in life.told
        if chosen(life, event)
    )
    return [
        Count(organization_id=owner, type=type_, day=day, count=count)
        for (owner, type_, day), count in sorted(
            number.items(), key=lambda item: (item[0][0] or "", *item[0][1:])
        )
    ]
