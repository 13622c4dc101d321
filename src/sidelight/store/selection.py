"""How events are found: which are asked for, and the ways to them in the order of time."""

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
from sidelight.store.schema import NOBODY, events, fitted
from sidelight.store.times import When, beginning_ns, end_ns

Id: TypeAlias = str | int | UUID
Types: TypeAlias = str | Collection[str]
Conditions: TypeAlias = list[ColumnElement[bool]]
Row: TypeAlias = Any
"""One of SQLAlchemy's, with attributes named as the columns."""
Read: TypeAlias = Callable[[Select[Any]], Sequence[Row]]
"""Asks the store, in a transaction of its own."""

ORDER: Final = (events.c.occurred_at, events.c.event_id)
_PAGE: Final = 1000  # events of one transaction
_TIME_DIGITS: Final = len("01a2099d-ba88-72a0")  # of an event_id: what its time decides
_RANDOM_BITS: Final = 2**62 - 1
_OVERLAP: Final = 30_000_000_000  # ns that a relay's transaction may take, clocks' differences too


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which events are asked for.

    Attributes:
        artifact_id, organization_id, types, trace_id: what they are to have; None for whatever.
        times: when they are to have occurred.
        keys: the same as a range of keys.
    """

    artifact_id: str | None
    organization_id: str | None
    types: frozenset[str] | None
    trace_id: str | None
    times: Conditions
    keys: Conditions

    @classmethod
    def of(  # one for each thing that can be asked
        cls,
        *,
        artifact_id: Id | None,
        organization_id: Id | None,
        types: Types | None,
        trace_id: str | None,
        since: When | None = None,
        until: When | None = None,
    ) -> Self:
        """Check what was asked (see `Store.events`).

        Raises:
            QueryError: names the argument that cannot be understood.
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
        """Whether an event has what it is to have, but for its time."""
        return (
            (self.artifact_id is None or row.artifact_id == self.artifact_id)
            and (self.types is None or row.type in self.types)
            and (self.trace_id is None or row.trace_id == self.trace_id)
            and (
                self.organization_id is None
                or (row.organization_id or NOBODY) == self.organization_id
            )
        )

    def find(self, read: Read, *, newest_first: bool, limit: int | None) -> Iterator[Row]:
        """The events in the order of (occurred_at, event_id), or in the opposite one."""
        page = _PAGE if limit is None else min(_PAGE, limit)
        ways = self._ways()
        if ways:
            each = [self._along_index(read, way, page, newest_first=newest_first) for way in ways]
            rows = each[0] if len(each) == 1 else merge(*each, key=_place, reverse=newest_first)
        else:
            rows = self._along_key(read, page, newest_first=newest_first)
        return islice(filter(self.matches, rows), limit)

    def _ways(self) -> list[Conditions]:
        """Conditions for each of which an index has the order of time; merged they are all.

        None where every event is wanted.
        """
        table = events.c
        if self.trace_id is not None:  # the few of a trace; `matches` sorts out the rest
            return [[table.trace_id == self.trace_id]]
        ways: list[Conditions] = [[]]
        if self.artifact_id is not None:
            ways = [[table.artifact_id == self.artifact_id]]
        if self.organization_id == NOBODY:
            nobody = (table.organization_id.is_(None), table.organization_id == NOBODY)
            ways = [[*way, condition] for way in ways for condition in nobody]
        elif self.organization_id is not None:
            ways = [[*way, table.organization_id == self.organization_id] for way in ways]
        if self.types is not None:
            ways = [[*way, table.type == type_] for way in ways for type_ in sorted(self.types)]
        return [way for way in ways if way]

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
            place = tuple_(*ORDER)
            last = tuple_(
                *(
                    literal(at, column.type)
                    for at, column in zip(_place(rows[-1]), ORDER, strict=True)
                )
            )
            rows = read(query.where(place < last if newest_first else place > last))

    def _along_key(self, read: Read, page: int, *, newest_first: bool) -> Iterator[Row]:
        """The primary key has the order of time but for its last digits.

        The few events of the same quarter of a microsecond are put in order here.
        """
        rows = self._by_key(read, page, newest_first=newest_first)
        for _, close in groupby(rows, lambda row: row.event_id[:_TIME_DIGITS]):
            yield from sorted(close, key=_place, reverse=newest_first)

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
    """Notices what comes into the store, by transaction: its rows have one ``recorded_at``.

    That is read before the transaction ends, so that a later one may be seen before an earlier one;
    hence each look goes back by what a transaction may take, and what was seen is remembered.
    """

    def __init__(self) -> None:
        self._newest: int | None = None
        self._seen: set[int] = set()

    def new(self, read: Read) -> list[int]:
        """The transactions that were not there at the last look, in their order."""
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
        """Whether this transaction was there at the last look."""
        return recorded_at in self._seen or self._is_past(recorded_at)

    def _is_past(self, recorded_at: int) -> bool:
        return recorded_at < (self._newest or 0) - _OVERLAP


def checked_id(argument: str, value: object) -> str:
    """An id as the store has it.

    Raises:
        QueryError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | UUID):
        raise QueryError(
            argument=argument, problem=f"{value!r} is not an id", remedy="give text, int or UUID"
        )
    return fitted(str(value))


def checked_types(types: object) -> frozenset[str]:
    """Names of event types.

    Raises:
        QueryError: it is neither one nor several.
    """
    names = [types] if isinstance(types, str) else types
    if isinstance(names, Collection) and names and all(isinstance(name, str) for name in names):
        return frozenset(map(fitted, names))
    raise QueryError(
        argument="type",
        problem=f"{types!r} is not a type",
        remedy="give its name, or a list of names",
    )


def checked_limit(limit: object) -> None:
    """Refuse what is no count.

    Raises:
        QueryError: it is none.
    """
    if limit is not None and (type(limit) is not int or limit < 1):
        raise QueryError(
            argument="limit", problem=f"{limit!r} is no count", remedy="give 1 or more, or None"
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


def _place(row: Row) -> tuple[int, str]:
    return row.occurred_at, row.event_id
