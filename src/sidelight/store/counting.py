"""Count events: from the counters, or by examining the events where no counter knows a filter."""

from __future__ import annotations

from collections import Counter
from datetime import date
from typing import Final

from sqlalchemy import BigInteger, Executable, func, literal_column, select

from sidelight.store.event import Count, Counts
from sidelight.store.keys import NO_ORGANIZATION
from sidelight.store.reader import checked_text
from sidelight.store.schema import event_counts, events
from sidelight.store.selection import Read, Row, Scan, Selection
from sidelight.store.times import from_ns

_DAY: Final = 86_400_000_000_000


def counters(selection: Selection, first: date | None, last: date | None) -> Executable:
    """Query the counters of a selection that they know, for the days from first to last."""
    table = event_counts.c
    conditions = [table.count > 0]
    if selection.organization_id is not None:
        conditions.append(table.organization_id == selection.organization_id)
    if selection.types is not None:
        conditions.append(table.type.in_(selection.types))
    if first is not None:
        conditions.append(table.day >= first.isoformat())
    if last is not None:
        conditions.append(table.day <= last.isoformat())
    query = select(table.organization_id, table.type, table.day, table.count.label("number"))
    return query.where(*conditions).order_by(table.organization_id, table.type, table.day)


def count_from(row: Row) -> Count:
    """Make a count of a counter."""
    return Count(
        organization_id=None if row.organization_id == NO_ORGANIZATION else row.organization_id,
        type=checked_text(row.type),
        day=date.fromisoformat(row.day),
        count=int(row.number),  # `row.count` is a method
    )


def count_events(selection: Selection, read: Read, scan: Scan) -> Counts:
    """Count the selected events, window by window, the latest first."""
    owner = func.coalesce(events.c.organization_id, NO_ORGANIZATION)
    day = literal_column(f"occurred_at / {_DAY}", BigInteger)  # a quotient of integers is one
    columns = (owner.label("owner"), events.c.type, day.label("day"), func.count().label("number"))
    totals: Counter[tuple[str, str, int]] = Counter()
    for queries in selection.windows(read, scan):
        for conditions in queries:
            grouped = select(*columns).where(*conditions)
            for row in read(grouped.group_by("owner", events.c.type, "day")):
                if type(row.day) is int:  # else a row that no relay wrote
                    totals[row.owner, row.type, row.day] += row.number
    return Counts(
        [
            Count(
                organization_id=None if owner_ == NO_ORGANIZATION else owner_,
                type=type_,
                day=from_ns(day_ * _DAY).date(),
                count=number,
            )
            for (owner_, type_, day_), number in sorted(totals.items(), key=_order)
        ],
        scan.left_out,
    )


def _order(total: tuple[tuple[str, str, int], int]) -> tuple[str, str, int]:
    (owner, type_, day), _ = total
    return str(owner), str(type_), day  # bytes, in a row that no relay wrote
