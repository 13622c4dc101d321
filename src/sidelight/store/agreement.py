"""Compare the counters of a store with its events: rows that other programs delete stay counted.

The events of the latest days are counted, and of each earlier day one is looked for, so that a
store of any size is compared within seconds. Pruning and erasing leave the two in agreement.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Final, NamedTuple

from sqlalchemy import func, select

from sidelight.store.keys import first_key
from sidelight.store.queries import Store
from sidelight.store.schema import event_counts, events, retention
from sidelight.store.times import beginning_ns, end_ns, from_ns

_MOST: Final = 1_000_000  # events


class Agreement(NamedTuple):
    """What a comparison has found.

    Attributes:
        events: how many events were counted.
        since: the first day (UTC) whose events were counted; "" where all were.
        earlier: the days before it, of each of which one event was looked for.
        missing: how many events the counters name that are not there.
        uncounted: how many events are in no counter.
    """

    events: int
    since: str
    earlier: int
    missing: int
    uncounted: int


def compare_counters(store: Store, most: int = _MOST) -> Agreement:
    """Compare the counters with the events, except those of days that are pruned.

    Args:
        store: a store that is open.
        most: how many events may be counted.

    Raises:
        StoreError: the store does not answer.
    """
    days = [*_counted_days(store)]
    latest, total = 0, 0.0
    for _, number in days:
        total += number
        if latest and total > most:
            break
        latest += 1
    earlier = [day for day, _ in days[latest:]]
    since = days[latest - 1][0] if earlier else ""
    counted, stored = _numbers(store, since or _first_day(store))
    missing, uncounted = max(counted - stored, 0), max(stored - counted, 0)
    for day in earlier:
        if not _has_events(store, day):
            of_day, there = _numbers(store, day, day)  # at one moment
            missing += max(of_day - there, 0)
    return Agreement(stored, since, len(earlier), missing, uncounted)


def _first_day(store: Store) -> str:
    """Return the first day that is not pruned; "" where none is."""
    ((pruned_until,),) = store._read(select(retention.c.pruned_until))  # noqa: SLF001
    return from_ns(pruned_until).date().isoformat() if pruned_until else ""


def _counted_days(store: Store) -> Iterator[tuple[str, float]]:
    """Yield the days that have events by their counters, the latest first."""
    day, number = event_counts.c.day, func.sum(event_counts.c.count * 1.0)
    query = select(day, number).where(day >= _first_day(store)).group_by(day)
    for text, total in store._read(query.order_by(day.desc())):  # noqa: SLF001
        if total and _is_day(text):
            yield text, total


def _is_day(text: str) -> bool:
    """Return whether it is a day; a row that sidelight did not write may have anything."""
    try:
        return date.fromisoformat(text).isoformat() == text
    except (TypeError, ValueError):
        return False


def _numbers(store: Store, since: str, until: str = "") -> tuple[int, int]:
    """Return how many events of some days were counted, and how many are there, at one moment."""
    day, key = event_counts.c.day, events.c.event_id
    counted = select(func.coalesce(func.sum(event_counts.c.count * 1.0), 0)).where(day >= since)
    stored = select(func.count()).select_from(events)
    if since:
        stored = stored.where(key >= first_key(beginning_ns("day", since)))
    if until:
        counted = counted.where(day <= until)
        stored = stored.where(key < first_key(end_ns("day", until)))
    query = select(counted.scalar_subquery(), stored.scalar_subquery())
    ((of_counters, of_rows),) = store._read(query)  # noqa: SLF001
    return int(of_counters), int(of_rows)


def _has_events(store: Store, day: str) -> bool:
    key = events.c.event_id
    begin, end = first_key(beginning_ns("day", day)), first_key(end_ns("day", day))
    query = select(key).where(key >= begin, key < end).limit(1)
    return bool(store._read(query))  # noqa: SLF001
