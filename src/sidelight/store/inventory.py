"""The questions of `Store` about artifacts, losses and costs, and about the store itself."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import date
from itertools import groupby
from typing import Any, Final

from sqlalchemy import ColumnElement, FromClause, Select, func, select, text, union_all

from sidelight.record import CostSummary, alike, event_id, read_snapshot
from sidelight.store.arguments import Id, NameFilter, checked_id, checked_limit
from sidelight.store.event import Artifact, Loss, Process, TypeUse
from sidelight.store.keys import NO_ORGANIZATION
from sidelight.store.reader import Reader, checked_text, checked_time
from sidelight.store.schema import (
    artifacts,
    costs,
    event_counts,
    events,
    losses,
    processes,
    retention,
)
from sidelight.store.selection import Row
from sidelight.store.times import When, beginning_ns, day_of, from_ns, window_ns

_MOST: Final = 2**31 - 1
_COMPARED: Final = 1_000  # names that a misspelled one is compared with
_NAMES: Final = {
    "type": events.c.type,
    "organization_id": event_counts.c.organization_id,
    "service": processes.c.service,
    "host": processes.c.host,
}
_TYPES: Final = text(
    "WITH RECURSIVE types(type) AS (SELECT min(type) FROM events UNION ALL"
    " SELECT (SELECT min(type) FROM events WHERE events.type > types.type) FROM types"
    " WHERE types.type IS NOT NULL)"
    " SELECT type, (SELECT max(occurred_at) FROM events WHERE events.type = types.type) AS last"
    " FROM types WHERE type IS NOT NULL LIMIT :limit"
)
"""Each type by one look into the index of types, and its last event by another."""


class Inventory(Reader):
    """Questions about artifacts, losses and costs, and about the store itself."""

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
            organization_id: only artifacts of this organization; "" for those without one. An
                artifact that several use is found by the one that an event named first.
            since: only artifacts whose last event is at or after this time.
            until: only artifacts whose last event is before this time.
            limit: at most this many.

        Raises:
            QueryError: an argument is invalid; the error names it.
        """
        table = artifacts.c
        owners: list[list[ColumnElement[bool]]] = [[]]
        if organization_id is not None:
            owner = checked_id("organization_id", organization_id)
            owners = [[table.organization_id == owner]]
            if owner == NO_ORGANIZATION:
                owners.append([table.organization_id.is_(None)])
        conditions: list[ColumnElement[bool]] = []
        begin, end = window_ns(since, until)
        if begin is not None:
            conditions.append(table.last_event_at >= begin)
        if end is not None:
            conditions.append(table.last_event_at < end)
        checked_limit(limit)
        queries = [_latest(artifacts, limit, *mine, *conditions) for mine in owners]
        query = queries[0]
        if len(queries) > 1:  # no index finds one value or another in the order of time
            each = (select(one.subquery()) for one in queries)
            query = _latest(union_all(*each).subquery(), limit)
        return self._readable(
            "artifacts",
            self._read(query),
            _artifact_from,
        )

    def shared_artifacts(self) -> list[str]:
        """Ids of all artifacts whose events name different organizations, the latest first.

        A relay notes this when it stores an event. What was stored before the store had version 4
        is compared with later events only by the organization that the artifact had first.
        """
        found = artifacts.c
        query = select(found.artifact_id).where(found.ambiguous == 1)
        last = found.last_event_at + 0  # along the index, SQLite would read every row by itself
        rows = self._read(query.order_by(last.desc(), found.artifact_id))
        return [str(row.artifact_id) for row in rows]

    def holds(self, event_ids: Collection[str]) -> set[str]:
        """Return which of some events, given by their ids, are in the store."""
        key = events.c.event_id
        query = select(key).where(key.in_([*event_ids]))
        return {str(found) for (found,) in self._read(query)}

    def losses(self, *, latest: int | None = None) -> list[Loss]:
        """Return what could not be recorded, sorted by reason.

        Within a reason, the latest is first.

        Args:
            latest: only the latest so many reports; each is of one process for one reason.

        Raises:
            QueryError: ``latest`` is no number of rows.
        """
        checked_limit(latest, "latest")
        source: FromClause = losses
        if latest is not None:
            source = select(losses).order_by(losses.c.last_at.desc()).limit(latest).subquery()
        table = source.c
        query = select(source, table.count.label("number"))
        query = query.order_by(table.reason, table.last_at.desc(), table.process)
        return self._readable(
            "losses",
            self._read(query),
            lambda row: Loss(
                process=row.process,
                reason=checked_text(row.reason),
                count=int(row.number),
                problem=checked_text(row.problem),
                last_at=from_ns(row.last_at),
            ),
        )

    def processes(self, *, limit: int | None = None, running: bool = False) -> list[Process]:
        """Return the processes that have emitted, by their last sign of life, the latest first.

        Args:
            limit: at most this many.
            running: only those whose end the store does not know.

        Raises:
            QueryError: ``limit`` is no number of rows.
        """
        checked_limit(limit)
        query = select(processes).order_by(processes.c.last_seen.desc()).limit(limit)
        if running:  # of the processes of a year, almost all have ended
            query = query.where(processes.c.ended.not_in(["exited", "died"]))
        return self._readable("processes", self._read(query), _process)

    def _running(self) -> list[Process] | None:
        """Return the processes that have not ended; None where no process is known."""
        running = self.processes(running=True)
        has_any = running or self._read(select(processes.c.process).limit(1))
        return running if has_any else None

    def costs(self, *, since: When | None = None, latest: int | None = None) -> list[CostSummary]:
        """Return the cost of emitting on the caller's path, per point, over all processes.

        Args:
            since: only processes that have reported at or after this time.
            latest: only the latest so many reports; each is that of one process on one point.

        Raises:
            QueryError: ``since`` is not a time, or ``latest`` no number of rows.
        """
        checked_limit(latest, "latest")
        query = select(costs.c.point, costs.c.histogram)
        if since is not None:
            query = query.where(costs.c.last_at >= beginning_ns("since", since))
        if latest is not None:
            query = query.order_by(costs.c.last_at.desc()).limit(latest)
        rows = sorted(self._read(query), key=lambda row: str(row.point))
        return [
            CostSummary.of(
                point, self._readable("costs", each, lambda row: read_snapshot(row.histogram))
            )
            for point, each in groupby(rows, lambda row: str(row.point))
        ]

    def types(self, *, since: When | None = None, limit: int | None = None) -> list[TypeUse]:
        """Return the event types of the store, by name: how many events, and the last one.

        Reads the index of types, and counters; not the events.

        Args:
            since: count only events of this day (UTC) and later ones; all types are listed.
            limit: at most this many types.

        Raises:
            QueryError: ``since`` is not a time, or ``limit`` no number of rows.
        """
        checked_limit(limit)
        rows = self._read(_TYPES.bindparams(limit=_MOST if limit is None else limit))
        table = event_counts.c
        total = func.sum(table.count * 1.0)  # crafted rows must not overflow an integer
        counted = select(table.type, total.label("number")).group_by(table.type)
        if since is not None:
            counted = counted.where(table.day >= day_of("since", since).isoformat())
        numbers = {row.type: int(row.number) for row in self._read(counted)}
        return self._readable(
            "events",
            rows,
            lambda row: TypeUse(
                type=checked_text(row.type),
                count=numbers.get(row.type, 0),
                last_event_at=from_ns(row.last) if type(row.last) is int else None,
            ),
        )

    def unknown_names(
        self,
        filter: NameFilter,  # noqa: A002
        names: Iterable[str],
        *,
        declared: Iterable[str] = (),
    ) -> dict[str, str]:
        """Return which of some names the store does not know, each with those that it looks like.

        Such a name may be misspelled, or not yet emitted. At most three known names are given, as
        in "a or b"; "" stands where none looks like it. Nothing is returned for a store without
        events.

        Args:
            filter: the filter whose values the names are.
            names: event types, ids of organizations, services or machines.
            declared: names that are known otherwise, as the types of a catalogue.
        """
        declared = {*declared}
        asked = sorted({*names} - declared - {NO_ORGANIZATION})
        column = _NAMES[filter]
        unknown = [
            name for name in asked if not self._read(select(column).where(column == name).limit(1))
        ]
        if not unknown:
            return {}
        each = select(column).distinct().limit(_COMPARED)
        listed = self._read(_TYPES.bindparams(limit=_COMPARED) if filter == "type" else each)
        known = [str(row[0]) for row in listed if row[0]]
        if not known:
            return {}
        known += declared
        return {name: alike(name, known) for name in unknown}

    def size(self) -> int:
        """Number of events in the store."""
        kept_since, pruned_until, _ = self._read(select(retention))[0]
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
        """Return the first day (UTC) whose events are kept; None if the store was never pruned."""
        ns = int(self._read(select(retention.c.kept_since))[0][0])
        return from_ns(ns).date() if ns else None

    def encoding(self) -> str:
        """Return the encoding of the database; another one than UTF8 cannot hold every text."""
        if self._engine.dialect.name == "sqlite":
            return "UTF8"
        return str(self._read(text("SHOW server_encoding"))[0][0])


def _latest(
    source: FromClause, limit: int | None, *conditions: ColumnElement[bool]
) -> Select[tuple[Any, ...]]:
    """Return the query of the latest artifacts."""
    last, key = source.c.last_event_at, source.c.artifact_id
    return select(source).where(*conditions).order_by(last.desc(), key).limit(limit)


def _artifact_from(row: Row) -> Artifact:
    is_shared = row.ambiguous == 1
    owner = None if is_shared else row.organization_id
    return Artifact(
        artifact_id=checked_text(row.artifact_id),
        organization_id=owner and checked_text(owner),
        is_shared=is_shared,
        first_event_at=from_ns(row.first_event_at),
        last_event_at=from_ns(row.last_event_at),
        events=int(row.events),
    )


def _process(row: Row) -> Process:
    service = row.service
    return Process(
        process=row.process,
        host=row.host,
        service=None if not service or service.startswith("unknown_service") else service,
        pid=int(row.pid),
        started_ns=checked_time(row.started_at),
        last_seen_ns=checked_time(row.last_seen),
        delivered_until_ns=checked_time(row.delivered_until),
        ended=row.ended if row.ended in {"exited", "died"} else "",
    )
