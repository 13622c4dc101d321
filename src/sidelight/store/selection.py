"""Find events in the order of time: which events are selected, and along which index."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import groupby, islice
from math import inf
from typing import Any, Final, Self, TypeAlias

from sqlalchemy import ColumnElement, Executable, Select, TextClause, func, literal, select, tuple_

from sidelight.host import monotonic
from sidelight.record import event_id
from sidelight.store.arguments import (
    Id,
    Types,
    checked_id,
    checked_names,
    checked_outcomes,
    checked_time_limit,
    checked_trace,
)
from sidelight.store.attributes import conditions_of
from sidelight.store.keys import NO_ORGANIZATION
from sidelight.store.schema import deliveries, events, processes
from sidelight.store.times import When, whole_ms, window_ns

Conditions: TypeAlias = list[ColumnElement[bool] | TextClause]
Row: TypeAlias = Any
"""A row of SQLAlchemy, with attributes named as the columns."""
Read: TypeAlias = Callable[[Executable], Sequence[Row]]
"""Runs one query in a transaction of its own."""

ORDER: Final = (events.c.occurred_at, events.c.event_id)
_PAGE: Final = 1000  # events per transaction
_FEW: Final = 1000  # events that one query finds by the index of attributes
_FIRST_WINDOW: Final = 1000  # events that one query examines; the windows double
_TIME_DIGITS: Final = len("01a2099d-ba88-72a0")  # the part of an event_id that is its time
_RANDOM_BITS: Final = 2**62 - 1


class Scan:
    """The time that a search may take, and what it left out when the time was over.

    Args:
        seconds: None for a search to the end. A search examines at least one window of events.

    Attributes:
        left_out: some events before this time (ns), or from this time on where the search began
            with the oldest, were not examined; None where all were. All others were.
    """

    def __init__(self, seconds: float | None = None) -> None:
        checked_time_limit(seconds)
        self._until = inf if seconds is None else monotonic() + seconds
        self.left_out: int | None = None

    def ends_at(self, time: int) -> bool:
        """Return whether the search must end here, with the rest left out."""
        if monotonic() < self._until:
            return False
        self.left_out = time
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Conditions that select events.

    Attributes:
        artifact_id, organization_id, types, trace_id: wanted values; None selects every value.
        filters: conditions on columns that no index has.
        times: conditions on the time of the event.
        keys: the same conditions on its id.
        is_indexed: an index of attributes knows some of the filters.
    """

    artifact_id: str | None
    organization_id: str | None
    types: frozenset[str] | None
    trace_id: str | None
    filters: Conditions
    times: Conditions
    keys: Conditions
    is_indexed: bool = False

    @classmethod
    def of(
        cls,
        dialect: str,
        *,
        has_index: bool = False,
        artifact_id: Id | None = None,
        organization_id: Id | None = None,
        type: Types | None = None,  # noqa: A002
        trace_id: str | None = None,
        where: str | Sequence[str] | None = None,
        outcome: Types | None = None,
        point: Types | None = None,
        service: Types | None = None,
        host: Types | None = None,
        since: When | None = None,
        until: When | None = None,
    ) -> Self:
        """Check the arguments (see `Filters`), for a database of this dialect.

        Raises:
            QueryError: an argument is invalid; the error names it.
        """
        filters: Conditions = []
        indexed: list[TextClause] = []
        if outcome is not None:
            filters.append(events.c.outcome.in_(checked_outcomes(outcome)))
        if point is not None:
            filters.append(events.c.point.in_(checked_names("point", point)))
        if service is not None:
            filters.append(_emitted(processes.c.service, checked_names("service", service)))
        if host is not None:
            filters.append(_emitted(processes.c.host, checked_names("host", host)))
        if where is not None:
            conditions = [*enumerate(conditions_of(where))]
            filters += [condition.sql(dialect, at) for at, condition in conditions]
            known = [condition.containment(at) for at, condition in conditions if has_index]
            indexed = [each for each in known if each is not None]
            filters += indexed
        times, keys = _between(*window_ns(since, until))
        return cls(
            artifact_id=None if artifact_id is None else checked_id("artifact_id", artifact_id),
            organization_id=None
            if organization_id is None
            else checked_id("organization_id", organization_id),
            types=None if type is None else checked_names("type", type),
            trace_id=None if trace_id is None else checked_trace(trace_id),
            filters=filters,
            times=times,
            keys=keys,
            is_indexed=bool(indexed),
        )

    def matches(self, row: Row) -> bool:
        """Return whether an event meets all conditions except the filters and those on its time."""
        return (
            (self.artifact_id is None or row.artifact_id == self.artifact_id)
            and (self.types is None or row.type in self.types)
            and (self.trace_id is None or row.trace_id == self.trace_id)
            and (
                self.organization_id is None
                or (row.organization_id or NO_ORGANIZATION) == self.organization_id
            )
        )

    def find(
        self, read: Read, scan: Scan, *, newest_first: bool, limit: int | None
    ) -> Iterator[Row]:
        """Yield the events in the order of (occurred_at, event_id), or in reverse."""
        if self.filters:
            few = self._few(read) if self.is_indexed else None
            if few is not None:
                return islice(_in_order(few, newest_first), limit)
            rows = self._through_windows(read, scan, newest_first=newest_first)
            return islice(rows, limit)
        page = _PAGE if limit is None else min(_PAGE, limit)
        if prefixes := self._index_prefixes():
            each = [
                self._along_index(read, prefix, page, newest_first=newest_first)
                for prefix in prefixes
            ]
            rows = each[0] if len(each) == 1 else merge(*each, key=_place, reverse=newest_first)
        else:
            rows = self._along_key(read, page, newest_first=newest_first)
        return islice(filter(self.matches, rows), limit)

    def _index_prefixes(self) -> list[Conditions]:
        """Conditions on the columns before the time in an index.

        An index yields the events of each prefix in the order of time; merged, they are all that
        is selected. Empty where every event is selected.
        """
        table = events.c
        if self.trace_id is not None:
            return [[table.trace_id == self.trace_id, *self._besides_index()]]
        if self.artifact_id is not None:
            return [[table.artifact_id == self.artifact_id, *self._besides_index()]]
        prefixes: list[Conditions] = [[]]
        if self.organization_id == NO_ORGANIZATION:
            none = (table.organization_id.is_(None), table.organization_id == NO_ORGANIZATION)
            prefixes = [[condition] for condition in none]
        elif self.organization_id is not None:
            prefixes = [[table.organization_id == self.organization_id]]
        if self.types is not None:
            types = sorted(self.types)
            prefixes = [[*prefix, table.type == type_] for prefix in prefixes for type_ in types]
        return [prefix for prefix in prefixes if prefix]

    def conditions(self) -> Conditions:
        """Return all conditions, for a query that uses none of the indexes on them."""
        equal = [] if self.trace_id is None else [events.c.trace_id == self.trace_id]
        return [*equal, *self._besides_index(), *self.filters, *self.times]

    def is_counted(self) -> bool:
        """Return whether the counters know all conditions."""
        return self.artifact_id is None and self.trace_id is None and not self.filters

    # -- windows: pieces of time in which a query examines few events -------------------------

    def windows(
        self,
        read: Read,
        scan: Scan,
        *,
        newest_first: bool = True,
        first: int = 1_000,
        largest: int = 32_000,
    ) -> Iterator[list[Conditions]]:
        """Cut the events into windows of time; yield the conditions of the queries of each window.

        A filter may select few events or none. A single query would then examine all of them; a
        query in a window examines a known number, and the search can end after it.

        Args:
            read: runs a query.
            scan: says when the search must end.
            newest_first: yield the latest window first.
            first: events of the first window.
            largest: events of a window; the windows double up to this.
        """
        at, size = None, min(first, _FIRST_WINDOW)
        prefixes = self._index_prefixes() or [[]]
        while True:
            start, end = (None, at) if newest_first else (at, None)
            found = [
                row.occurred_at
                for prefix in prefixes
                for row in read(self._bound(prefix, start, end, size, newest_first=newest_first))
            ]
            bounds = [bound for bound in found if type(bound) is int]
            if found and not bounds:  # of rows that no relay wrote: look behind them
                size *= 2
                continue
            bound = (max if newest_first else min)(bounds, default=None)
            if bound is not None and bound == start:  # more events than a window has, at one time
                bound += 1
            start, end = (bound, at) if newest_first else (at, bound)
            yield [
                [*prefix, *self.filters, *self._in_range(prefix, start, end)] for prefix in prefixes
            ]
            # What was left out lies before the time that an answer shows, or after it.
            if bound is None or scan.ends_at(whole_ms(bound) if newest_first else bound):
                return
            at, size = bound, min(size * 2, max(largest, _FIRST_WINDOW))

    def _besides_index(self) -> Conditions:
        """Return conditions on few events, in a form that keeps their own indexes out of the plan.

        Without statistics, a database would read all of a type, where an artifact has few events.
        """
        wanted = (
            (events.c.artifact_id, None if self.artifact_id is None else [self.artifact_id]),
            (events.c.type, self.types),
            (
                events.c.organization_id,
                None if self.organization_id is None else [self.organization_id],
            ),
        )
        return [
            func.coalesce(column, NO_ORGANIZATION).in_(values)
            for column, values in wanted
            if values is not None
        ]

    def _bound(
        self,
        prefix: Conditions,
        start: int | None,
        end: int | None,
        size: int,
        *,
        newest_first: bool,
    ) -> Select[Any]:
        """Return the time of the event with which the next window ends."""
        column = events.c.occurred_at if prefix else events.c.event_id
        query = select(events.c.occurred_at).where(*prefix, *self._in_range(prefix, start, end))
        return query.order_by(column.desc() if newest_first else column).offset(size).limit(1)

    def _in_range(self, prefix: Conditions, start: int | None, end: int | None) -> Conditions:
        times, keys = _between(start, end)
        return [*self.times, *times] if prefix else [*self.times, *self.keys, *times, *keys]

    def _few(self, read: Read) -> Sequence[Row] | None:
        """Return all that is selected, which the index of attributes finds.

        Return None where it is much.
        """
        rows = read(select(events).where(*self.conditions(), *self.keys).limit(_FEW + 1))
        return rows if len(rows) <= _FEW else None

    def _through_windows(self, read: Read, scan: Scan, *, newest_first: bool) -> Iterator[Row]:
        for queries in self.windows(read, scan, newest_first=newest_first):
            found = [row for each in queries for row in read(select(events).where(*each))]
            yield from _in_order(filter(self.matches, found), newest_first)

    # -- pages: along an index that selects what is wanted -------------------------------------

    def _along_index(
        self, read: Read, conditions: Conditions, page: int, *, newest_first: bool
    ) -> Iterator[Row]:
        query = select(events).where(*conditions, *self.times).limit(page)
        query = query.order_by(*(column.desc() for column in ORDER) if newest_first else ORDER)
        rows = read(query)
        while rows:
            yield from rows
            if len(rows) < page:
                return
            position = tuple_(*ORDER)
            last = tuple_(
                *(
                    literal(value, column.type)
                    for value, column in zip(_position(rows[-1]), ORDER, strict=True)
                )
            )
            rows = read(query.where(position < last if newest_first else position > last))

    def _along_key(self, read: Read, page: int, *, newest_first: bool) -> Iterator[Row]:
        """Read by primary key, which has the order of time except for its last digits.

        Sorts the few events that occurred within the same quarter of a microsecond.
        """
        rows = self._by_key(read, page, newest_first=newest_first)
        for _, close in groupby(rows, lambda row: str(row.event_id)[:_TIME_DIGITS]):
            yield from _in_order(close, newest_first)

    def _by_key(self, read: Read, page: int, *, newest_first: bool) -> Iterator[Row]:
        key = events.c.event_id
        query = select(events).where(*self.times, *self.keys).limit(page)
        query = query.order_by(key.desc() if newest_first else key)
        rows = read(query)
        while rows:
            yield from rows
            if len(rows) < page:
                return
            last = rows[-1].event_id
            rows = read(query.where(key < last if newest_first else key > last))


def _emitted(column: ColumnElement[str], values: Collection[str]) -> ColumnElement[bool]:
    """Return whether a process with one of these values has emitted the event.

    "IS TRUE" keeps PostgreSQL from a join, which would read all processes again for each event.
    """
    mine = deliveries.c.recorded_at == events.c.recorded_at
    process = select(deliveries.c.process).where(mine).correlate(events).scalar_subquery()
    return process.in_(select(processes.c.number).where(column.in_(values))).is_(True)


def _between(start: int | None, end: int | None) -> tuple[Conditions, Conditions]:
    """Conditions on the time of an event (ns), and the same on its id."""
    times: Conditions = []
    keys: Conditions = []
    if start is not None:
        times.append(events.c.occurred_at >= start)
        keys.append(events.c.event_id >= event_id(start, 0))
    if end is not None:
        times.append(events.c.occurred_at < end)
        keys.append(events.c.event_id <= event_id(end, _RANDOM_BITS))
    return times, keys


def _position(row: Row) -> tuple[int, str]:
    return row.occurred_at, row.event_id


def _place(row: Row) -> list[tuple[int, Any]]:
    """Return the position in SQLite's order: numbers, texts, bytes; also of a crafted row.

    See https://sqlite.org/datatype3.html#sort_order.
    """
    return [(_RANKS[type(each)], 0 if each is None else each) for each in _position(row)]


def _in_order(rows: Iterable[Row], newest_first: bool) -> list[Row]:
    listed = list(rows)
    try:
        return sorted(listed, key=_position, reverse=newest_first)
    except TypeError:
        return sorted(listed, key=_place, reverse=newest_first)


_RANKS: Final[dict[type, int]] = {type(None): 0, int: 1, float: 1, str: 2, bytes: 3}
