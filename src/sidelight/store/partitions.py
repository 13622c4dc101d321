"""How PostgreSQL holds `events`: a partition for each month (UTC), and one for all the rest.

A month is small enough for its indexes to stay in memory, and is dropped in milliseconds, leaving
nothing to vacuum. Partitions are by key: an event's id begins with its time. What lies in no month
that was made (clocks that are years off) goes to the partition for the rest, and is moved out of it
when its month is made after all.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeAlias

from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from sidelight.record import event_id

Span: TypeAlias = tuple[int, int]
"""Nanoseconds since 1970: from, and before."""

REST: Final = "events_rest"
LOCK_WITHIN: Final = 0.1
"""Seconds that we may wait for a lock behind which relays would have to wait."""
RETENTION_LOCK: Final = 0x51DE_1168
"""Advisory: relays share it while they write, who prunes has it to say what is kept."""
_LAYOUT_LOCK: Final = 0x51DE_1169
_AHEAD: Final = 15 * 86_400 * 10**9  # ns: a month is made half a month before it begins
_BACK: Final = 20 * 366 * 86_400 * 10**9  # ns: a clock that says more is wrong
_AGAIN: Final = 10.0  # seconds until the next try, where the locks could not be had
_FOREVER: Final = 2**63 - 1
_BOUND: Final = re.compile(r"FROM \((.+?)\) TO \((.+?)\)")
_MOVE: Final = (
    "WITH moved AS (DELETE FROM {} WHERE {} RETURNING *) INSERT INTO {} SELECT * FROM moved"
)
#: SQLSTATE of a lock that could not be had in time, and of a right that one does not have.
_NOT_NOW: Final = frozenset({"55P03", "42501", "57014"})


@dataclass(frozen=True, slots=True)
class Partition:
    """One of them. Without a span it is the one for the rest."""

    name: str
    span: Span | None


def complete(connection: Connection) -> None:
    """Give new tables what only PostgreSQL has."""
    connection.exec_driver_sql(f"CREATE TABLE {REST} PARTITION OF events DEFAULT")
    # Room for the next state of each counter beside it: then no index has to know of it.
    connection.exec_driver_sql("ALTER TABLE event_counts SET (fillfactor = 50)")


def partitions_of(connection: Connection) -> list[Partition]:
    """Those that there are, in the order of time, the one for the rest last."""
    found = connection.exec_driver_sql(
        "SELECT relname, pg_get_expr(relpartbound, pg_class.oid) FROM pg_inherits"
        " JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = 'events'::regclass"
    )
    partitions = [Partition(name, _span(bound)) for name, bound in found]
    return sorted(partitions, key=lambda each: each.span or (_FOREVER, _FOREVER))


def month_of(ns: int) -> Span:
    """The month (UTC) in which a moment lies."""
    begin = datetime.fromtimestamp(ns // 10**9, UTC).replace(day=1, hour=0, minute=0, second=0)
    end = begin.replace(year=begin.year + begin.month // 12, month=begin.month % 12 + 1)
    return int(begin.timestamp()) * 10**9, int(end.timestamp()) * 10**9


def first_key(ns: int) -> str:
    """The smallest id that an event can have which occurs then."""
    return event_id(ns, 0)


def _span(bound: str) -> Span | None:
    """What `pg_get_expr` says of a partition."""
    match = _BOUND.search(bound)
    return None if match is None else (_time_of(match[1], 0), _time_of(match[2], _FOREVER))


def _time_of(key: str, unbounded: int) -> int:
    digits = key.strip("'").replace("-", "")[:12]
    return unbounded if "VALUE" in key else int(digits, 16) * 10**6


class Months:
    """Sees to it that there is a partition before somebody needs it. For one relay's connection."""

    def __init__(self) -> None:
        self._covered: list[Span] = []
        self._again = 0.0

    def provide(self, connection: Connection, times: Sequence[int]) -> None:
        """Make the months of events at these times (in order), and the next one where it is near.

        Not those that are pruned. Where it cannot be done now (somebody reads for long, or
        we have not the right) the rest takes the events, and it is tried again.

        Raises:
            SQLAlchemyError: the database does not answer.
        """
        now = time.time_ns()
        soon = (now, now + _AHEAD)
        if self._covers(soon) and (not times or self._covers((times[0], times[-1]))):
            return
        wanted = self._missing({*_months_of(soon), *_months_of(times)}, now)
        if not wanted or time.monotonic() < self._again:
            return
        try:
            with connection.begin():
                self._covered = _make(connection, wanted)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in _NOT_NOW:
                raise
        if self._missing(wanted, now):
            self._again = time.monotonic() + _AGAIN

    def _missing(self, months: Iterable[Span], now: int) -> list[Span]:
        sane = (m for m in sorted(months) if now - _BACK < m[0] <= now + _AHEAD)
        return [month for month in sane if not self._covers((month[0], month[1] - 1))]

    def _covers(self, times: Span) -> bool:
        return any(begin <= times[0] and times[1] < end for begin, end in self._covered)


def _months_of(times: Iterable[int]) -> Iterator[Span]:
    behind = -_FOREVER
    for at in times:
        if at >= behind:
            month = month_of(at)
            behind = month[1]
            yield month


def _make(connection: Connection, months: Iterable[Span]) -> list[Span]:
    """Make the partitions that are not there yet; answers what is covered then.

    Relays and readers go on meanwhile, but for those who need the rest: hence the haste.
    """
    run = connection.exec_driver_sql
    lock_layout(connection)
    kept_since = run("SELECT kept_since FROM retention").scalar_one()
    covered = [each.span for each in partitions_of(connection) if each.span is not None]
    missing = [
        month
        for month in months
        if kept_since < month[1] and not any(_overlap(month, span) for span in covered)
    ]
    if missing:
        run(f"LOCK TABLE {REST} IN ACCESS EXCLUSIVE MODE")
    for begin, end in missing:
        name = f"events_{datetime.fromtimestamp(begin // 10**9, UTC):%Y_%m}"
        first, behind = first_key(begin), first_key(end)
        run(f"CREATE TABLE {name} (LIKE events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
        run(_MOVE.format(REST, f"event_id >= '{first}' AND event_id < '{behind}'", name))
        span = f"FROM ('{first}') TO ('{behind}')"
        run(f"ALTER TABLE events ATTACH PARTITION {name} FOR VALUES {span}")
    return _joined([*covered, *missing])


def lock_layout(connection: Connection) -> None:
    """Let nobody else make or drop partitions in this transaction; wait for no lock for long.

    Raises:
        DBAPIError: somebody is about it (SQLSTATE 55P03).
    """
    _lock(connection, _LAYOUT_LOCK)


def lock_retention(connection: Connection) -> None:
    """Let no relay store anything in this transaction; wait for no lock for long.

    Raises:
        DBAPIError: they are storing something all the time (SQLSTATE 55P03).
    """
    _lock(connection, RETENTION_LOCK)


def _lock(connection: Connection, number: int) -> None:
    connection.exec_driver_sql(
        f"SET LOCAL lock_timeout = {int(LOCK_WITHIN * 1000)};"
        f" SELECT pg_advisory_xact_lock({number})"
    )


def _overlap(one: Span, other: Span) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def _joined(spans: list[Span]) -> list[Span]:
    joined: list[Span] = []
    for begin, end in sorted(spans):
        if joined and joined[-1][1] == begin:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((begin, end))
    return joined
