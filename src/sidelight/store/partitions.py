"""How PostgreSQL stores `events`: one partition for each month (UTC), and a default partition.

The indexes of one month stay in memory, and a month is dropped in milliseconds without leaving
rows to vacuum. An event's id begins with its time, so partitions are ranges of ids. An event
outside every month (of a clock that is years off) goes to the default partition, and moves out of
it when its month is created after all.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from sidelight.host import monotonic
from sidelight.store.database import Connection, DatabaseError
from sidelight.store.keys import first_key
from sidelight.store.tables import DEFAULT_PARTITION

TimeRange: TypeAlias = tuple[int, int]
"""Nanoseconds since 1970: first, and first after the end."""
Run: TypeAlias = Callable[[str], Any]
"""Executes a statement within the current transaction and returns its rows: the `execute` of a
relay's connection, or SQLAlchemy's `exec_driver_sql`."""

LOCK_TIMEOUT: Final = 0.1
"""Seconds to wait for a lock that makes relays wait meanwhile."""
RETENTION_LOCK: Final = 0x51DE_1168
"""Advisory lock: relays share it while they write; a pruner takes it to move the retention."""
_LAYOUT_LOCK: Final = 0x51DE_1169
_AHEAD: Final = 15 * 86_400 * 10**9  # ns: a month is created half a month before it begins
_OLDEST: Final = 20 * 366 * 86_400 * 10**9  # ns: a clock further behind is wrong
_RETRY: Final = 10.0  # seconds until the next attempt after a lock was not available
_FOREVER: Final = 2**63 - 1
_BOUND: Final = re.compile(r"FROM \((.+?)\) TO \((.+?)\)")
_MOVE: Final = (
    "WITH moved AS (DELETE FROM {} WHERE {} RETURNING *) INSERT INTO {} SELECT * FROM moved"
)
#: SQLSTATE: lock not available in time, missing right, statement timeout.
_TRY_LATER: Final = frozenset({"55P03", "42501", "57014"})


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition; the default partition has no span."""

    name: str
    span: TimeRange | None


def partitions_of(run: Run) -> list[Partition]:
    """List the partitions in the order of time, the default partition last."""
    found = run(
        "SELECT relname, pg_get_expr(relpartbound, pg_class.oid) FROM pg_inherits"
        " JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = 'events'::regclass"
    )
    partitions = [Partition(name, _span(bound)) for name, bound in found]
    return sorted(partitions, key=lambda each: each.span or (_FOREVER, _FOREVER))


def month_of(ns: int) -> TimeRange:
    """Return the month (UTC) that contains a time."""
    begin = datetime.fromtimestamp(ns // 10**9, UTC).replace(day=1, hour=0, minute=0, second=0)
    end = begin.replace(year=begin.year + begin.month // 12, month=begin.month % 12 + 1)
    return int(begin.timestamp()) * 10**9, int(end.timestamp()) * 10**9


def _span(bound: str) -> TimeRange | None:
    """Parse a bound as `pg_get_expr` writes it."""
    match = _BOUND.search(bound)
    return None if match is None else (_time_of(match[1], 0), _time_of(match[2], _FOREVER))


def _time_of(key: str, unbounded: int) -> int:
    digits = key.strip("'").replace("-", "")[:12]
    return unbounded if "VALUE" in key else int(digits, 16) * 10**6


class MonthlyPartitions:
    """Creates partitions before a relay needs them; remembers which exist. One per connection."""

    def __init__(self) -> None:
        self._covered: list[TimeRange] = []
        self._retry_at = 0.0

    def ensure(self, connection: Connection, times: Sequence[int]) -> None:
        """Create the months of events at these times (in order), and the next month when near.

        Months that are pruned are not created. Where the tables are locked or the right is missing,
        the default partition takes the events, and a later call tries again.

        Raises:
            DatabaseError: the database does not answer.
        """
        now = time.time_ns()
        soon = (now, now + _AHEAD)
        if self._covers(soon) and (not times or self._covers((times[0], times[-1]))):
            return
        wanted = self._missing({*_months_of(soon), *_months_of(times)}, now)
        if not wanted or monotonic() < self._retry_at:
            return
        try:
            with connection.transaction():
                self._covered = _create(connection.execute, wanted)
        except DatabaseError as error:
            if getattr(error.original, "sqlstate", None) not in _TRY_LATER:
                raise
        if self._missing(wanted, now):
            self._retry_at = monotonic() + _RETRY

    def _missing(self, months: Iterable[TimeRange], now: int) -> list[TimeRange]:
        sane = (m for m in sorted(months) if now - _OLDEST < m[0] <= now + _AHEAD)
        return [month for month in sane if not self._covers((month[0], month[1] - 1))]

    def _covers(self, times: TimeRange) -> bool:
        return any(begin <= times[0] and times[1] < end for begin, end in self._covered)


def _months_of(times: Iterable[int]) -> Iterator[TimeRange]:
    end = -_FOREVER
    for at in times:
        if at >= end:
            month = month_of(at)
            end = month[1]
            yield month


def _create(run: Run, months: Iterable[TimeRange]) -> list[TimeRange]:
    """Create the partitions that are missing; return what partitions cover then.

    Relays and readers that need the default partition wait meanwhile, so the lock is short.
    """
    lock_layout(run)
    ((kept_since,),) = run("SELECT kept_since FROM retention")
    covered = [each.span for each in partitions_of(run) if each.span is not None]
    missing = [
        month
        for month in months
        if kept_since < month[1] and not any(_overlap(month, span) for span in covered)
    ]
    if missing:
        run(f"LOCK TABLE {DEFAULT_PARTITION} IN ACCESS EXCLUSIVE MODE")
    for begin, end in missing:
        name = f"events_{datetime.fromtimestamp(begin // 10**9, UTC):%Y_%m}"
        first, last = first_key(begin), first_key(end)
        run(f"CREATE TABLE {name} (LIKE events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
        run(_MOVE.format(DEFAULT_PARTITION, f"event_id >= '{first}' AND event_id < '{last}'", name))
        span = f"FROM ('{first}') TO ('{last}')"
        run(f"ALTER TABLE events ATTACH PARTITION {name} FOR VALUES {span}")
    return _merged([*covered, *missing])


def lock_layout(run: Run) -> None:
    """Keep other processes from creating or dropping partitions until this transaction ends.

    Raises:
        Exception: another process holds the lock for longer than `LOCK_TIMEOUT` (55P03).
    """
    _lock(run, _LAYOUT_LOCK)


def lock_retention(run: Run) -> None:
    """Keep relays from storing events until this transaction ends.

    Raises:
        Exception: relays hold the lock for longer than `LOCK_TIMEOUT` (SQLSTATE 55P03).
    """
    _lock(run, RETENTION_LOCK)


def _lock(run: Run, number: int) -> None:
    run(
        f"SET LOCAL lock_timeout = {int(LOCK_TIMEOUT * 1000)};"
        f" SELECT pg_advisory_xact_lock({number})"
    )


def _overlap(one: TimeRange, other: TimeRange) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def _merged(spans: list[TimeRange]) -> list[TimeRange]:
    merged: list[TimeRange] = []
    for begin, end in sorted(spans):
        if merged and merged[-1][1] == begin:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((begin, end))
    return merged
