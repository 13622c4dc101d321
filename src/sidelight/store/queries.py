"""`Store`: questions to an events store, and typed answers.

Each question runs in short transactions, so that a slow reader blocks no relay. An answer that is
read in several pieces is therefore no snapshot: it may or may not contain an event that is stored
meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from itertools import groupby
from typing import TYPE_CHECKING, Final, Self, TypeVar

import msgspec
from sqlalchemy import Executable, func, select, text
from sqlalchemy.exc import SQLAlchemyError

from sidelight.exceptions import StoreError
from sidelight.record import CostSummary, event_id, read_snapshot
from sidelight.settings import public_url, settle
from sidelight.store.event import Artifact, Count, Event, Loss, event_from
from sidelight.store.schema import (
    NO_ORGANIZATION,
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

_T = TypeVar("_T")
_logger: Final = logging.getLogger("sidelight")
_TRANSACTIONS: Final = 20  # relay transactions whose events one query of `follow` reads


class Store:
    """An events store, opened for questions. It writes nothing and takes no lock.

    ``with Store("sqlite:///events.db") as store: …``; several threads may use one.

    Args:
        url: ``sqlite:///events.db`` or ``postgresql://host/database``; by default
            ``SIDELIGHT_STORE``, else the file in the user's state directory.

    Raises:
        ConfigurationError: the URL names no supported store.
        StoreMissingError: the store does not exist.
        StoreVersionError: a newer sidelight made the store.
        StoreError: the store cannot be reached. Every question raises it as well.
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
        """Close the connections."""
        self._engine.dispose()

    def events(
        self,
        *,
        artifact_id: Id | None = None,
        organization_id: Id | None = None,
        type: Types | None = None,  # noqa: A002  # the public word for it
        since: When | None = None,
        until: When | None = None,
        trace_id: str | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> Iterator[Event]:
        """Yield events in the order in which they occurred, reading one page at a time.

        Args:
            artifact_id: only events of this artifact.
            organization_id: only events of this organization; "" for those without one.
            type: only events of this type, or of one of these types.
            since: only events at or after this time, or since the beginning of this day. Takes
                text and ages as well (see `When`).
            until: only events before this time, or until the end of this day.
            trace_id: only events of this trace; 32 hexadecimal digits.
            limit: at most this many.
            newest_first: yield the latest first.

        Raises:
            QueryError: an argument is invalid; the error names it.
        """
        checked_limit(limit)
        selection = Selection.of(
            artifact_id=artifact_id,
            organization_id=organization_id,
            types=type,
            trace_id=trace_id,
            since=since,
            until=until,
        )
        return map(event_from, selection.find(self._read, newest_first=newest_first, limit=limit))

    def timeline(self, artifact_id: Id) -> list[Event]:
        """All events of an artifact, in the order of time; empty for an unknown artifact."""
        return list(self.events(artifact_id=artifact_id))

    def counts(
        self,
        *,
        organization_id: Id | None = None,
        type: Types | None = None,  # noqa: A002
        since: When | None = None,
        until: When | None = None,
    ) -> list[Count]:
        """Number of events, sorted by organization, type and day.

        Args:
            organization_id: only events of this organization; "" for those without one.
            type: only events of this type, or of one of these types.
            since: the first day (UTC), or a time in it.
            until: the last day (UTC), or a time in it.

        Raises:
            QueryError: an argument is invalid; the error names it.
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
        rows = self._read(query.order_by(table.organization_id, table.type, table.day))
        return _readable(
            "event_counts",
            rows,
            lambda row: Count(
                organization_id=None
                if row.organization_id == NO_ORGANIZATION
                else row.organization_id,
                type=row.type,
                day=date.fromisoformat(row.day),
                count=int(row.number),  # `row.count` is a method
            ),
        )

    def artifacts(
        self,
        *,
        organization_id: Id | None = None,
        since: When | None = None,
        until: When | None = None,
        limit: int | None = None,
    ) -> list[Artifact]:
        """Artifacts, sorted by their last event, the latest first.

        Args:
            organization_id: only artifacts of this organization; "" for those without one.
            since: only artifacts whose last event is at or after this time.
            until: only artifacts whose last event is before this time.
            limit: at most this many.

        Raises:
            QueryError: an argument is invalid; the error names it.
        """
        table = artifacts.c
        conditions = []
        if organization_id is not None:
            owner = checked_id("organization_id", organization_id)
            conditions.append(func.coalesce(table.organization_id, NO_ORGANIZATION) == owner)
        if since is not None:
            conditions.append(table.last_event_at >= beginning_ns("since", since))
        if until is not None:
            conditions.append(table.last_event_at < end_ns("until", until))
        checked_limit(limit)
        query = select(artifacts).where(*conditions)
        query = query.order_by(table.last_event_at.desc(), table.artifact_id).limit(limit)
        return _readable(
            "artifacts",
            self._read(query),
            lambda row: Artifact(
                artifact_id=row.artifact_id,
                organization_id=row.organization_id,
                first_event_at=from_ns(row.first_event_at),
                last_event_at=from_ns(row.last_event_at),
                events=int(row.events),
            ),
        )

    def shared_artifacts(self, limit: int = 1000) -> list[str]:
        """Ids among the latest artifacts whose events name different organizations.

        Artifacts with more than 10,000 events are left out, because the answer would take long.

        Args:
            limit: how many artifacts are examined.
        """
        latest = (
            select(artifacts.c.artifact_id)
            .where(artifacts.c.events.between(2, 10_000))
            .order_by(artifacts.c.last_event_at.desc())
            .limit(limit)
            .subquery()
        )
        owner = events.c.organization_id
        query = (
            select(events.c.artifact_id)
            .join(latest, latest.c.artifact_id == events.c.artifact_id)
            .group_by(events.c.artifact_id)
            .having(func.min(owner) != func.max(owner))
            .order_by(events.c.artifact_id)
        )
        return [str(row.artifact_id) for row in self._read(query)]

    def losses(self) -> list[Loss]:
        """What could not be recorded, sorted by reason; within a reason, the latest first."""
        table = losses.c
        query = select(losses, table.count.label("number"))
        query = query.order_by(table.reason, table.last_at.desc(), table.process)
        return _readable(
            "losses",
            self._read(query),
            lambda row: Loss(
                process=row.process,
                reason=row.reason,
                count=int(row.number),
                problem=row.problem,
                last_at=from_ns(row.last_at),
            ),
        )

    def costs(self, *, since: When | None = None) -> list[CostSummary]:
        """The cost of emitting on the caller's path, per point, over all processes.

        Args:
            since: only processes that have reported at or after this time.

        Raises:
            QueryError: ``since`` is not a time.
        """
        query = select(costs.c.point, costs.c.histogram).order_by(costs.c.point)
        if since is not None:
            query = query.where(costs.c.last_at >= beginning_ns("since", since))
        return [
            CostSummary.of(
                point, _readable("costs", rows, lambda row: read_snapshot(row.histogram))
            )
            for point, rows in groupby(self._read(query), lambda row: str(row.point))
        ]

    def size(self) -> int:
        """Number of events in the store."""
        kept_since, pruned_until = self._read(select(retention))[0]
        counted = select(func.coalesce(func.sum(event_counts.c.count), 0))
        if pruned_until:
            day = from_ns(pruned_until).date().isoformat()
            counted = counted.where(event_counts.c.day >= day)
        size = int(self._read(counted)[0][0])
        if kept_since < pruned_until:  # the mark was taken back: few events are older
            key = events.c.event_id
            between = (key >= event_id(kept_since, 0), key < event_id(pruned_until, 0))
            size += self._read(select(func.count()).where(*between))[0][0]
        return size

    def kept_since(self) -> date | None:
        """The first day (UTC) whose events are kept; None if the store was never pruned."""
        ns = int(self._read(select(retention.c.kept_since))[0][0])
        return from_ns(ns).date() if ns else None

    def encoding(self) -> str:
        """The encoding of the database; another one than UTF8 cannot hold every text."""
        if self._engine.dialect.name == "sqlite":
            return "UTF8"
        return str(self._read(text("SHOW server_encoding"))[0][0])

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
        """Yield each event that is stored from now on; endless.

        Finds events by when they were stored, not by when they occurred. It therefore misses no
        event that a relay stores late, that relays commit in another order than they began (up to
        30 s apart), or that is stored after a clock was set back.

        Args:
            artifact_id: only events of this artifact.
            organization_id: only events of this organization; "" for those without one.
            type: only events of this type, or of one of these types.
            trace_id: only events of this trace.
            last: begin with this many of the latest stored events.
            pause: seconds between two queries.

        Raises:
            QueryError: an argument is invalid; the error names it.
        """
        selection = Selection.of(
            artifact_id=artifact_id,
            organization_id=organization_id,
            types=type,
            trace_id=trace_id,
        )
        arrivals = Arrivals()
        arrivals.new(self._read)
        latest: list[Row] = []
        if last > 0:
            found = selection.find(self._read, newest_first=True, limit=last)
            latest = [row for row in found if arrivals.includes(row.recorded_at)]
        return self._follow(selection, arrivals, latest[::-1], pause)

    def _follow(
        self, selection: Selection, arrivals: Arrivals, latest: Sequence[Row], pause: float
    ) -> Iterator[Event]:
        yield from map(event_from, latest)
        while True:
            new = arrivals.new(self._read)
            for start in range(0, len(new), _TRANSACTIONS):
                chosen = events.c.recorded_at.in_(new[start : start + _TRANSACTIONS])
                rows = self._read(select(events).where(chosen).order_by(*ORDER))
                yield from map(event_from, filter(selection.matches, rows))
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


def _readable(table: str, rows: Iterable[Row], make: Callable[[Row], _T]) -> list[_T]:
    """Convert rows; warn of those that do not have the form that a relay writes, and go on."""
    made = []
    for row in rows:
        try:
            made.append(make(row))
        except (ValueError, TypeError, RecursionError, msgspec.DecodeError) as error:
            _logger.warning("sidelight: a row of the table %s cannot be read: %s", table, error)
    return made
