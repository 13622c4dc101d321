"""`Store`: questions to an events store, and typed answers.

Everything is read in short transactions of its own, so that a slow reader holds nothing up. What is
read in several pieces is hence no snapshot: an event that is stored meanwhile may or may not be
among the answers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Final, Self

import msgspec
from sqlalchemy import Executable, func, select
from sqlalchemy.exc import SQLAlchemyError

from sidelight.exceptions import StoreError
from sidelight.record import CostSummary
from sidelight.settings import public_url, settle
from sidelight.store.event import Event
from sidelight.store.schema import (
    NOBODY,
    artifacts,
    connect,
    costs,
    event_counts,
    events,
    losses,
    retention,
)
from sidelight.store.selection import (
    ORDER,
    Arrivals,
    Conditions,
    Id,
    Row,
    Selection,
    Types,
    checked_id,
    checked_limit,
    checked_types,
)
from sidelight.store.times import When, beginning_ns, day_of, end_ns, from_ns

if TYPE_CHECKING:
    from types import TracebackType

_BATCHES: Final = 20  # transactions whose events are read at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How many events of one type one organization had on one day (UTC).

    Attributes:
        organization_id: None for events that belong to none.
    """

    organization_id: str | None
    type: str
    day: date
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """What the store knows of an artifact. Times are UTC."""

    artifact_id: str
    organization_id: str | None
    first_event_at: datetime
    last_event_at: datetime
    events: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What one process could not record, or not whole, for one reason.

    Attributes:
        process: the instance id of the process, as in its spans' resource.
        count: how many times, since the process began.
        problem: the latest of them in words.
        last_at: when this was reported last (UTC).
    """

    process: str
    reason: str
    count: int
    problem: str
    last_at: datetime


class Store:
    """An events store, opened for questions: nothing is ever written or locked.

    ``with Store("sqlite:///events.db") as store: …``; several threads may ask at once.

    Args:
        url: ``sqlite:///events.db`` or ``postgresql://host/database``; else ``SIDELIGHT_STORE``,
            else the file in the user's state directory.

    Raises:
        ConfigurationError: the URL is none.
        StoreMissingError: there is no store.
        StoreVersionError: it was made by a newer sidelight.
        StoreError: it cannot be reached. So does every question, when it cannot be any more.
    """

    def __init__(self, url: str | None = None) -> None:
        settled = settle(url).store
        self.url: Final = public_url(settled)
        self._engine = connect(settled, create=False, read_only=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._engine.dispose()

    def events(
        self,
        *,
        artifact_id: Id | None = None,
        organization_id: Id | None = None,
        type: Types | None = None,  # noqa: A002  # the word for it
        since: When | None = None,
        until: When | None = None,
        trace_id: str | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> Iterator[Event]:
        """Events in the order in which they occurred, read piece by piece as they are taken.

        Args:
            artifact_id: only those about this artifact.
            organization_id: only this organization's; "" for those that belong to none.
            type: only those of this type, or of one of these.
            since: not before this time; of a day, its beginning. Text and how long ago will do.
            until: before this time; of a day, its end.
            trace_id: only those of this trace, 32 hexadecimal digits.
            limit: no more than so many.
            newest_first: in the opposite order.

        Raises:
            QueryError: names the argument that cannot be understood.
        """
        checked_limit(limit)
        asked = Selection.of(
            artifact_id=artifact_id,
            organization_id=organization_id,
            types=type,
            trace_id=trace_id,
            since=since,
            until=until,
        )
        return map(_event, asked.find(self._read, newest_first=newest_first, limit=limit))

    def timeline(self, artifact_id: Id) -> list[Event]:
        """All that happened to an artifact, in order; empty where nothing is known of it."""
        return list(self.events(artifact_id=artifact_id))

    def counts(
        self,
        *,
        organization_id: Id | None = None,
        type: Types | None = None,  # noqa: A002
        since: When | None = None,
        until: When | None = None,
    ) -> list[Count]:
        """How many events there were, by organization, type and day, in this order.

        Args:
            organization_id: only this organization's; "" for those that belong to none.
            type: only those of this type, or of one of these.
            since: the first day (UTC), or a time in it.
            until: the last day (UTC), or a time in it.

        Raises:
            QueryError: names the argument that cannot be understood.
        """
        table = event_counts.c
        conditions: Conditions = [table.count > 0]
        if organization_id is not None:
            conditions.append(
                table.organization_id == checked_id("organization_id", organization_id)
            )
        if type is not None:
            conditions.append(table.type.in_(checked_types(type)))
        if since is not None:
            conditions.append(table.day >= day_of("since", since).isoformat())
        if until is not None:
            conditions.append(table.day <= day_of("until", until).isoformat())
        query = select(
            table.organization_id, table.type, table.day, table.count.label("number")
        ).where(*conditions)
        return [
            Count(
                organization_id=None if row.organization_id == NOBODY else row.organization_id,
                type=row.type,
                day=date.fromisoformat(row.day),
                count=row.number,  # a row's `count` is its method
            )
            for row in self._read(query.order_by(table.organization_id, table.type, table.day))
        ]

    def artifacts(
        self,
        *,
        organization_id: Id | None = None,
        since: When | None = None,
        until: When | None = None,
        limit: int | None = None,
    ) -> list[Artifact]:
        """Artifacts, those first to which something happened last.

        Args:
            organization_id: only this organization's; "" for those that belong to none.
            since: something happened to them at or after this time.
            until: the last thing that happened to them was before this time.
            limit: no more than so many.

        Raises:
            QueryError: names the argument that cannot be understood.
        """
        table = artifacts.c
        conditions = []
        if organization_id is not None:
            owner = checked_id("organization_id", organization_id)
            conditions.append(func.coalesce(table.organization_id, NOBODY) == owner)
        if since is not None:
            conditions.append(table.last_event_at >= beginning_ns("since", since))
        if until is not None:
            conditions.append(table.last_event_at < end_ns("until", until))
        checked_limit(limit)
        query = select(artifacts).where(*conditions)
        query = query.order_by(table.last_event_at.desc(), table.artifact_id).limit(limit)
        return [
            Artifact(
                artifact_id=row.artifact_id,
                organization_id=row.organization_id,
                first_event_at=from_ns(row.first_event_at),
                last_event_at=from_ns(row.last_event_at),
                events=row.events,
            )
            for row in self._read(query)
        ]

    def losses(self) -> list[Loss]:
        """What could not be recorded, by reason; within a reason, the latest first."""
        table = losses.c
        query = select(losses, table.count.label("number"))
        query = query.order_by(table.reason, table.last_at.desc(), table.process)
        return [
            Loss(
                process=row.process,
                reason=row.reason,
                count=row.number,
                problem=row.problem,
                last_at=from_ns(row.last_at),
            )
            for row in self._read(query)
        ]

    def costs(self, *, since: When | None = None) -> list[CostSummary]:
        """What emitting has cost each point's callers, all processes together, by point.

        Args:
            since: only of processes that have reported since then.

        Raises:
            QueryError: the time cannot be understood.
        """
        query = select(costs.c.point, costs.c.histogram).order_by(costs.c.point)
        if since is not None:
            query = query.where(costs.c.last_at >= beginning_ns("since", since))
        return [
            CostSummary.of(point, [msgspec.json.decode(row.histogram) for row in rows])
            for point, rows in groupby(self._read(query), lambda row: str(row.point))
        ]

    def size(self) -> int:
        """How many events the store holds."""
        query = select(func.coalesce(func.sum(event_counts.c.count), 0))
        if (kept_since := self.kept_since()) is not None:
            query = query.where(event_counts.c.day >= kept_since.isoformat())
        return int(self._read(query)[0][0])

    def kept_since(self) -> date | None:
        """The first day (UTC) of which events are kept; None where nothing was pruned yet."""
        ns = int(self._read(select(retention.c.kept_since))[0][0])
        return from_ns(ns).date() if ns else None

    def follow(
        self,
        *,
        artifact_id: Id | None = None,
        organization_id: Id | None = None,
        type: Types | None = None,  # noqa: A002
        trace_id: str | None = None,
        last: int = 0,
        pause: float = 0.2,
    ) -> Iterator[Event]:
        """Each event that is stored from now on, as it is stored; endless, for the caller to leave.

        What is stored late is not missed: events are found by when they came into the store, which
        may be long after they occurred, and by relays that finish in another order than they began
        in (up to half a minute apart). Nor is what is stored after a clock was set back.

        Args:
            artifact_id: only those about this artifact.
            organization_id: only this organization's; "" for those that belong to none.
            type: only those of this type, or of one of these.
            trace_id: only those of this trace.
            last: begin with so many of the latest that are there already.
            pause: seconds between two looks.

        Raises:
            QueryError: names the argument that cannot be understood.
        """
        asked = Selection.of(
            artifact_id=artifact_id,
            organization_id=organization_id,
            types=type,
            trace_id=trace_id,
        )
        arrivals = Arrivals()
        arrivals.new(self._read)
        latest: list[Row] = []
        if last > 0:
            found = asked.find(self._read, newest_first=True, limit=last)
            latest = [row for row in found if arrivals.includes(row.recorded_at)]
        return self._follow(asked, arrivals, latest[::-1], pause)

    def _follow(
        self, asked: Selection, arrivals: Arrivals, latest: Sequence[Row], pause: float
    ) -> Iterator[Event]:
        yield from map(_event, latest)
        while True:
            new = arrivals.new(self._read)
            for start in range(0, len(new), _BATCHES):
                batches = events.c.recorded_at.in_(new[start : start + _BATCHES])
                rows = self._read(select(events).where(batches).order_by(*ORDER))
                yield from map(_event, filter(asked.matches, rows))
            time.sleep(pause)

    def _read(self, query: Executable) -> Sequence[Row]:
        try:
            with self._engine.connect() as connection:
                return connection.execute(query).all()
        except SQLAlchemyError as error:
            raise StoreError(
                url=self.url,
                problem=getattr(error, "orig", None) or error,
                remedy="see `sidelight doctor`",
            ) from error


def _event(row: Row) -> Event:
    return Event(
        event_id=row.event_id,
        type=row.type,
        artifact_id=row.artifact_id,
        organization_id=row.organization_id,
        occurred_ns=row.occurred_at,
        recorded_ns=row.recorded_at,
        point=row.point,
        mode=row.mode,
        outcome=row.outcome,
        duration_ns=row.duration,
        trace_id=row.trace_id,
        span_id=row.span_id,
        attributes=msgspec.json.decode(row.attributes),
    )
