"""The sink that writes the events store: rows and counters in one transaction, exactly once.

A record that comes twice (the relay delivers at least once) meets its own key and counts nothing.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import Table, bindparam, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DataError as SQLDataError
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SQLAlchemyError

from sidelight.exceptions import SinkRefusedError, SinkUnavailableError, StoreError
from sidelight.record import CUT, Moment, Static, event_id, occurred_at
from sidelight.schema import (
    NOBODY,
    WriteLock,
    artifacts,
    connect,
    costs,
    event_counts,
    events,
    has_wal_reset_bug,
    losses,
    parse_url,
)

_CHUNK: Final = 500  # rows of one statement
_DAY: Final = 86_400_000_000_000
_to_json: Final = msgspec.json.Encoder(enc_hook=repr).encode

Row = tuple[Any, ...]
#: Positions in a row of `events`.
_TYPE, _ARTIFACT, _ORGANIZATION, _OCCURRED, _RECORDED = 1, 2, 3, 4, 5


class StoreSink:
    """Writes batches of records into one store. Used by one thread at a time."""

    name: Final = "store"

    def __init__(self, url: str) -> None:
        """Nothing is opened yet: a store that is down must not keep the application from starting.

        Raises:
            ConfigurationError: the URL is none.
        """
        self.url = parse_url(url)
        self._connection: Connection | None = None
        self._lock: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        if self.url.get_backend_name() == "sqlite" and has_wal_reset_bug():
            self._lock = WriteLock(Path(f"{self.url.database}.lock"))

    def write(self, records: Sequence[tuple[Static, Moment]], writer: dict[str, Any]) -> None:
        """Store a batch, all of it or nothing.

        Args:
            records: events, spans and ledgers; spans alone have no row here.
            writer: the header of the segment they came from.

        Raises:
            SinkUnavailableError: the store does not answer, is locked, or lost the connection.
            SinkRefusedError: it took offence at a value.
        """
        try:
            with self._lock:
                self._write(records, writer)
        except TimeoutError as error:  # the lock of another relay
            raise SinkUnavailableError(sink=self.url, problem="its lock is held") from error
        except (StoreError, OSError) as error:  # no directory, no right, no room: not yet
            self.close()
            raise SinkUnavailableError(sink=self.url, problem=error) from error
        except (SQLDataError, IntegrityError) as error:
            raise SinkRefusedError(sink=self.url, problem=error.orig) from error
        except SQLAlchemyError as error:
            unavailable = isinstance(error, OperationalError) or (
                isinstance(error, DBAPIError) and error.connection_invalidated
            )
            self.close()
            kind = SinkUnavailableError if unavailable else SinkRefusedError
            raise kind(sink=self.url, problem=getattr(error, "orig", error)) from error

    def close(self) -> None:
        """Let go of the connection; the next write opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(SQLAlchemyError):
                connection.close()
            connection.engine.dispose()

    def _write(self, records: Sequence[tuple[Static, Moment]], writer: dict[str, Any]) -> None:
        if self._connection is None:
            self._connection = connect(self.url, create=True).connect()
        rows, ledgers = _rows(records)
        if not rows and not ledgers:
            return
        connection = self._connection
        with connection.begin():
            if rows:
                _Batch(connection, rows).store()
            for ledger, at in ledgers:
                _write_ledger(connection, ledger, str(writer.get("instance", "")), at)


def _rows(
    records: Iterable[tuple[Static, Moment]],
) -> tuple[list[Row], list[tuple[dict[str, Any], int]]]:
    """Rows of `events` for the events among the records, and the ledgers among them."""
    rows: list[Row] = []
    ledgers = []
    recorded_at = time.time_ns()
    for static, moment in records:
        if static.type is None:
            if static.outcome == "ledger":
                ledgers.append((moment.attributes or {}, moment.time))
            continue
        occurred = occurred_at(moment)
        trace = moment.trace
        rows.append(
            (
                event_id(occurred, moment.random),
                static.type,
                _id(moment.artifact_id),
                _id(moment.organization_id),
                occurred,
                recorded_at,
                static.point,
                static.mode,
                static.outcome,
                moment.duration,
                None if trace is None else trace.hex(),
                None if trace is None else f"{moment.span_id:016x}",
                _attributes(moment),
            )
        )
    return rows, ledgers


def _id(value: Any) -> str | None:
    if value is None or type(value) is str:
        return value
    return str(value) if isinstance(value, int | float) else _to_json(value).decode()


def _attributes(moment: Moment) -> str:
    attributes = moment.attributes
    error = moment.details.get("error") if moment.details else None
    if error is not None:
        attributes = {**(attributes or {}), "error.type": error[0], "error.message": error[1]}
    if moment.flags & CUT:
        attributes = {**(attributes or {}), "sidelight.truncated": True}
    return _to_json(attributes).decode() if attributes else "{}"


class _Batch:
    """One batch on its way into the tables."""

    def __init__(self, connection: Connection, rows: list[Row]) -> None:
        self.connection = connection
        # Sorted: relays that insert the same keys in different orders would deadlock.
        self.rows = sorted({row[0]: row for row in rows}.values())

    def store(self) -> None:
        """Events, then what follows from those that are new."""
        known = self._give_organizations()
        new = self._insert_events()
        if new:
            named = self._count_artifacts(new)
            moved = self._late_organizations(named, known)
            self._count_types(new, moved)

    def _give_organizations(self) -> dict[str, str]:
        """An event without an organization takes its artifact's."""
        named: dict[str, str] = {}
        for row in self.rows:
            if row[_ARTIFACT] is not None and row[_ORGANIZATION] is not None:
                named.setdefault(row[_ARTIFACT], row[_ORGANIZATION])
        nameless = {r[_ARTIFACT] for r in self.rows if r[_ARTIFACT] and r[_ORGANIZATION] is None}
        known: dict[str, str] = {}
        for ids in _chunks(sorted(nameless)):
            known.update(
                _select(
                    self.connection,
                    "SELECT artifact_id, organization_id FROM artifacts"
                    " WHERE organization_id IS NOT NULL AND artifact_id IN",
                    ids,
                )
            )
        everything = {**named, **known}
        if everything:
            self.rows = [
                (*row[:_ORGANIZATION], everything.get(row[_ARTIFACT]), *row[_OCCURRED:])
                if row[_ORGANIZATION] is None
                else row
                for row in self.rows
            ]
        return known

    def _insert_events(self) -> list[Row]:
        """Insert what is not there yet, and say which rows that were."""
        new: list[Row] = []
        for chunk in _chunks(self.rows):
            inserted = _values(self.connection, events, chunk, "ON CONFLICT DO NOTHING")
            if inserted.rowcount == len(chunk):
                new.extend(chunk)
                continue
            # Some came twice. Those of this batch are known by the moment at which it was recorded.
            fresh = {
                key
                for key, recorded_at in _select(
                    self.connection,
                    "SELECT event_id, recorded_at FROM events WHERE event_id IN",
                    [row[0] for row in chunk],
                )
                if recorded_at == chunk[0][_RECORDED]
            }
            new.extend(row for row in chunk if row[0] in fresh)
        return new

    def _count_artifacts(self, new: list[Row]) -> dict[str, tuple[str, bool]]:
        """Add up the artifacts; answers those with an organization: (it, were there before)."""
        sums: dict[str, list[Any]] = {}
        for row in new:
            artifact, organization, occurred = row[_ARTIFACT], row[_ORGANIZATION], row[_OCCURRED]
            if artifact is None:
                continue
            total = sums.get(artifact)
            if total is None:
                sums[artifact] = [organization, occurred, occurred, 1]
                continue
            total[0] = total[0] if total[0] is not None else organization
            total[1] = min(total[1], occurred)
            total[2] = max(total[2], occurred)
            total[3] += 1
        least, most = _extremes(self.connection)
        found: dict[str, tuple[str, bool]] = {}
        for chunk in _chunks([(artifact, *total) for artifact, total in sorted(sums.items())]):
            merged = _values(
                self.connection,
                artifacts,
                chunk,
                "ON CONFLICT (artifact_id) DO UPDATE SET"
                " organization_id = coalesce(artifacts.organization_id, excluded.organization_id),"
                f" first_event_at = {least}(artifacts.first_event_at, excluded.first_event_at),"
                f" last_event_at = {most}(artifacts.last_event_at, excluded.last_event_at),"
                " events = artifacts.events + excluded.events"
                " RETURNING artifact_id, organization_id, events",
            )
            for artifact, organization, count in merged:
                if organization is not None:
                    found[artifact] = (organization, count > sums[artifact][3])
        return found

    def _late_organizations(
        self, named: dict[str, tuple[str, bool]], known: dict[str, str]
    ) -> Counter[tuple[str, str, str]]:
        """Give earlier events of an artifact the organization that has just become known."""
        candidates = sorted(
            artifact for artifact, (_, before) in named.items() if before and artifact not in known
        )
        moved: Counter[tuple[str, str, str]] = Counter()
        for ids in _chunks(candidates):
            nameless = events.c.artifact_id.in_(ids) & events.c.organization_id.is_(None)
            columns = (events.c.artifact_id, events.c.type, events.c.occurred_at)
            orphans = self.connection.execute(select(*columns).where(nameless)).all()
            for artifact, type_, occurred in orphans:
                moved[NOBODY, type_, day_of(occurred)] -= 1
                moved[named[artifact][0], type_, day_of(occurred)] += 1
            if orphans:
                given = update(events).values(organization_id=bindparam("o"))
                theirs = events.c.artifact_id == bindparam("a")
                self.connection.execute(
                    given.where(theirs, events.c.organization_id.is_(None)),
                    [{"a": a, "o": named[a][0]} for a in sorted({row[0] for row in orphans})],
                )
        return moved

    def _count_types(self, new: list[Row], moved: Counter[tuple[str, str, str]]) -> None:
        for row in new:
            moved[row[_ORGANIZATION] or NOBODY, row[_TYPE], day_of(row[_OCCURRED])] += 1
        rows = [(*key, count) for key, count in sorted(moved.items()) if count]
        for chunk in _chunks(rows):
            _values(
                self.connection,
                event_counts,
                chunk,
                "ON CONFLICT (organization_id, type, day) DO UPDATE SET"
                " count = event_counts.count + excluded.count",
            )


def _write_ledger(connection: Connection, ledger: dict[str, Any], process: str, at: int) -> None:
    """Costs and losses of a process: cumulative, so that a later state replaces an earlier one."""
    problems = ledger.get("problems", {})
    lost = [
        (process, reason, count, str(problems.get(reason, "")), at)
        for reason, count in sorted(ledger.get("losses", {}).items())
    ]
    spent = [
        (process, point, snapshot["count"], _to_json(snapshot).decode(), at)
        for point, snapshot in sorted(ledger.get("costs", {}).items())
    ]
    if lost:
        _values(connection, losses, lost, _replace("losses", "reason", "problem"))
    if spent:
        _values(connection, costs, spent, _replace("costs", "point", "histogram"))


def _replace(table: str, key: str, value: str) -> str:
    return (
        f"ON CONFLICT (process, {key}) DO UPDATE SET count = excluded.count,"
        f" {value} = excluded.{value}, last_at = excluded.last_at"
        f" WHERE excluded.count > {table}.count"
    )


def _values(connection: Connection, table: Table, rows: Sequence[Row], conflict: str) -> Any:
    """One INSERT of many rows. An executemany would give the GIL away at each row."""
    statement = _insert(table, len(rows), _mark(connection), conflict)
    return connection.exec_driver_sql(statement, tuple(chain.from_iterable(rows)))


def _select(connection: Connection, query: str, keys: Sequence[str]) -> list[tuple[Any, Any]]:
    """Pairs found by a query that ends in IN: as text, because building it costs more than it."""
    marks = ", ".join([_mark(connection)] * len(keys))
    return [(a, b) for a, b in connection.exec_driver_sql(f"{query} ({marks})", tuple(keys))]


def _mark(connection: Connection) -> str:
    return "?" if connection.dialect.paramstyle == "qmark" else "%s"


@functools.cache
def _insert(table: Table, count: int, mark: str, conflict: str) -> str:
    columns = [column.name for column in table.columns]
    row = f"({', '.join([mark] * len(columns))})"
    return (
        f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES "  # noqa: S608  # names are ours
        f"{', '.join([row] * count)} {conflict}"
    )


def _extremes(connection: Connection) -> tuple[str, str]:
    return ("min", "max") if connection.dialect.name == "sqlite" else ("least", "greatest")


def _chunks(items: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))


@functools.lru_cache(maxsize=64)
def _day_text(day: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(day * 86_400))


def day_of(occurred_ns: int) -> str:
    """The day (UTC) that an event is counted under."""
    return _day_text(occurred_ns // _DAY)
