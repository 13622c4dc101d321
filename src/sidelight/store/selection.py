"""Find events in the order of time: which events are selected, and along which index."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import groupby, islice
from typing import Any, Final, Self, TypeAlias
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, literal, select, tuple_

from sidelight.exceptions import QueryError
from sidelight.record import event_id
from sidelight.store.schema import NO_ORGANIZATION, events, fit_to_index
from sidelight.store.times import When, beginning_ns, end_ns

Id: TypeAlias = str | int | UUID
Types: TypeAlias = str | Collection[str]
Conditions: TypeAlias = list[ColumnElement[bool]]
Row: TypeAlias = Any
"""A row of SQLAlchemy, with attributes named as the columns."""
Read: TypeAlias = Callable[[Select[Any]], Sequence[Row]]
"""Runs one query in a transaction of its own."""

ORDER: Final = (events.c.occurred_at, events.c.event_id)
_PAGE: Final = 1000  # events per transaction
_TIME_DIGITS: Final = len("01a2099d-ba88-72a0")  # the part of an event_id that is its time
_RANDOM_BITS: Final = 2**62 - 1
_OVERLAP: Final = 30_000_000_000  # ns: longest transaction of a relay, and difference of clocks


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Conditions that select events.

    Attributes:
        artifact_id, organization_id, types, trace_id: wanted values; None selects every value.
        times: conditions on the time of the event.
        keys: the same conditions on its id.
    """

    artifact_id: str | None
    organization_id: str | None
    types: frozenset[str] | None
    trace_id: str | None
    times: Conditions
    keys: Conditions

    @classmethod
    def of(
        cls,
        *,
        artifact_id: Id | None,
        organization_id: Id | None,
        types: Types | None,
        trace_id: str | None,
        since: When | None = None,
        until: When | None = None,
    ) -> Self:
        """Check the arguments (see `Store.events`).

        Raises:
            QueryError: an argument is invalid; the error names it.
        """
        times: Conditions = []
        keys: Conditions = []
        if since is not None:
            first = beginning_ns("since", since)
            times.append(events.c.occurred_at >= first)
            keys.append(events.c.event_id >= event_id(first, 0))
        if until is not None:
            end = end_ns("until", until)
            times.append(events.c.occurred_at < end)
            keys.append(events.c.event_id <= event_id(end, _RANDOM_BITS))
        return cls(
            artifact_id=None if artifact_id is None else checked_id("artifact_id", artifact_id),
            organization_id=None
            if organization_id is None
            else checked_id("organization_id", organization_id),
            types=None if types is None else checked_types(types),
            trace_id=None if trace_id is None else _checked_trace(trace_id),
            times=times,
            keys=keys,
        )

    def matches(self, row: Row) -> bool:
        """Whether an event meets all conditions except those on its time."""
        return (
            (self.artifact_id is None or row.artifact_id == self.artifact_id)
            and (self.types is None or row.type in self.types)
            and (self.trace_id is None or row.trace_id == self.trace_id)
            and (
                self.organization_id is None
                or (row.organization_id or NO_ORGANIZATION) == self.organization_id
            )
        )

    def find(self, read: Read, *, newest_first: bool, limit: int | None) -> Iterator[Row]:
        """Yield the events in the order of (occurred_at, event_id), or in reverse."""
        page = _PAGE if limit is None else min(_PAGE, limit)
        if prefixes := self._index_prefixes():
            each = [
                self._along_index(read, prefix, page, newest_first=newest_first)
                for prefix in prefixes
            ]
            rows = each[0] if len(each) == 1 else merge(*each, key=_position, reverse=newest_first)
        else:
            rows = self._along_key(read, page, newest_first=newest_first)
        return islice(filter(self.matches, rows), limit)

    def _index_prefixes(self) -> list[Conditions]:
        """Conditions on the columns before the time in an index.

        An index yields the events of each prefix in the order of time; merged, they are all that
        is selected. Empty where every event is selected.
        """
        table = events.c
        if self.trace_id is not None:  # a trace has few events, which `matches` filters
            return [[table.trace_id == self.trace_id]]
        prefixes: list[Conditions] = [[]]
        if self.artifact_id is not None:
            prefixes = [[table.artifact_id == self.artifact_id]]
        if self.organization_id == NO_ORGANIZATION:
            none = (table.organization_id.is_(None), table.organization_id == NO_ORGANIZATION)
            prefixes = [[*prefix, condition] for prefix in prefixes for condition in none]
        elif self.organization_id is not None:
            prefixes = [[*each, table.organization_id == self.organization_id] for each in prefixes]
        if self.types is not None:
            types = sorted(self.types)
            prefixes = [[*prefix, table.type == type_] for prefix in prefixes for type_ in types]
        return [prefix for prefix in prefixes if prefix]

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
        for _, close in groupby(rows, lambda row: row.event_id[:_TIME_DIGITS]):
            yield from sorted(close, key=_position, reverse=newest_first)

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


class Arrivals:
    """Finds new transactions of relays; the rows of one transaction have the same ``recorded_at``.

    A relay chooses ``recorded_at`` before it commits, so that a later one may become visible before
    an earlier one. Each query therefore goes back by the longest duration of a transaction, and
    `Arrivals` remembers the transactions that it has returned.
    """

    def __init__(self) -> None:
        self._newest: int | None = None
        self._seen: set[int] = set()

    def new(self, read: Read) -> list[int]:
        """Return the transactions that are new since the last call, in their order."""
        column = events.c.recorded_at
        if self._newest is None:
            horizon: Any = select(func.max(column) - _OVERLAP).scalar_subquery()
        else:
            horizon = self._newest - _OVERLAP
        rows = read(select(column).where(column >= horizon).distinct())
        new = sorted({row.recorded_at for row in rows} - self._seen)
        if new or self._newest is None:
            self._newest = max(self._newest or 0, *new[-1:], 0)
            self._seen = {at for at in (*self._seen, *new) if not self._is_past(at)}
        return new

    def includes(self, recorded_at: int) -> bool:
        """Whether the last call, or one before it, has seen this transaction."""
        return recorded_at in self._seen or self._is_past(recorded_at)

    def _is_past(self, recorded_at: int) -> bool:
        return recorded_at < (self._newest or 0) - _OVERLAP


def checked_id(argument: str, value: object) -> str:
    """Make an id as the store has it.

    Raises:
        QueryError: the value is not an id.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | UUID):
        raise QueryError(
            argument=argument, problem=f"{value!r} is not an id", remedy="give text, int or UUID"
        )
    return fit_to_index(str(value))


def checked_types(types: object) -> frozenset[str]:
    """Make a set of the names of event types.

    Raises:
        QueryError: the value is neither a name nor a collection of names.
    """
    names = [types] if isinstance(types, str) else types
    if isinstance(names, Collection) and names and all(isinstance(name, str) for name in names):
        return frozenset(map(fit_to_index, names))
    raise QueryError(
        argument="type",
        problem=f"{types!r} is not a type",
        remedy="give its name, or a list of names",
    )


def checked_limit(limit: object) -> None:
    """Check a limit.

    Raises:
        QueryError: the limit is neither None nor a positive integer.
    """
    if limit is not None and (type(limit) is not int or limit < 1):
        raise QueryError(
            argument="limit", problem=f"{limit!r} is not a count", remedy="give 1 or more, or None"
        )


def _checked_trace(trace_id: object) -> str:
    if (
        isinstance(trace_id, str)
        and len(trace_id) == 32
        and set(trace_id.lower()) <= set("0123456789abcdef")
    ):
        return trace_id.lower()
    raise QueryError(
        argument="trace_id",
        problem=f"{trace_id!r} is not a trace's id",
        remedy="give 32 hexadecimal digits",
    )


def _position(row: Row) -> tuple[int, str]:
    return row.occurred_at, row.event_id
