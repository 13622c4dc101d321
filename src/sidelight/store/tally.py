"""Counters of events by organization, type and day, and the statement that adds to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Final, TypeAlias

from sidelight.store.keys import DAY, NO_ORGANIZATION, day_text
from sidelight.store.proved import put_all
from sidelight.store.rows import OCCURRED, ORGANIZATION, TYPE, Row
from sidelight.store.statements import BatchStatements
from sidelight.store.tables import EVENT_COUNTS

Tally: TypeAlias = Counter[tuple[str, str, str]]
"""What is added to the counters: a number of events by organization, type and day."""

_counted_by: Final = itemgetter(ORGANIZATION, TYPE)


def tally_rows(tally: Tally, rows: Sequence[Row]) -> None:
    """Count rows of `events`; they are in the order of time."""
    for day, together in _by_day(rows):
        text = day_text(day * DAY)
        for (organization, type_), number in Counter(map(_counted_by, together)).items():
            tally[organization or NO_ORGANIZATION, type_, text] += number


def _by_day(rows: Sequence[Row]) -> Iterable[tuple[int, Iterable[Row]]]:
    """Group rows in the order of time; those of one chunk mostly occurred on one day."""
    if rows and rows[0][OCCURRED] // DAY == (day := rows[-1][OCCURRED] // DAY):
        return [(day, rows)]
    return groupby(rows, lambda row: row[OCCURRED] // DAY)


def tally_move(tally: Tally, type_: str, occurred: int, organization: str) -> None:
    """Count an event without an organization as one of an organization."""
    day = day_text(occurred)
    tally[NO_ORGANIZATION, type_, day] -= 1
    tally[organization, type_, day] += 1


def add_to_counters(statements: BatchStatements, tally: Tally) -> None:
    """Add to the counters, in the order of their keys, because relays lock them in that order."""
    put_all(
        statements,
        EVENT_COUNTS,
        [(*key, number) for key, number in sorted(tally.items()) if number],
        "ON CONFLICT (organization_id, type, day) DO UPDATE SET"
        " count = event_counts.count + excluded.count",
    )
