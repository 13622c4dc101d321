"""Retention: delete the events before a day, in small steps beside relays, and keep them out.

The store remembers since when it keeps events. The pruner first moves that mark, between two
transactions of relays; from then on relays leave out older events, so that an event that is
delivered again after it was deleted does not come back: it goes to the quarantine, and the mark can
be taken back. Then the pruner deletes rows in short transactions that wait for no lock of a relay.
After a stop in the middle nothing is lost: the next run deletes the rest.

Deleting cannot be undone, so one wrong clock must not decide about it. Ages count from now only as
long as the newest event agrees with the clocks of this machine and of the server.

`artifacts` and `event_counts` keep history. An artifact keeps its first event and its number of
events until all of them are deleted. A pruned day keeps its counts, unless they are pruned as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from typing import TYPE_CHECKING, Final, Self

from sqlalchemy import ColumnElement, Table, and_, delete, func, select, tuple_, update
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from sidelight.exceptions import QueryError, StoreBusyError
from sidelight.settings import public_url, settle, sqlite_path
from sidelight.store.database import RowsSkippedError
from sidelight.store.engine import connect
from sidelight.store.keys import first_key
from sidelight.store.partitions import lock_layout, lock_retention, partitions_of
from sidelight.store.schema import (
    artifacts,
    costs,
    deliveries,
    event_counts,
    events,
    processes,
    retention,
)
from sidelight.store.steps import ShortTransactions
from sidelight.store.times import When, beginning_ns, from_ns, is_age
from sidelight.store.write_lock import write_lock

if TYPE_CHECKING:
    from types import TracebackType

_DAY: Final = 86_400 * 10**9  # ns
_FREE_SHARE: Final = 0.1  # of a SQLite file: the pruner returns free pages above this share
_INCREMENTAL: Final = 2  # value of SQLite's auto_vacuum


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a pruning deletes.

    Attributes:
        kept_since: the first day (UTC) that is kept.
        events, artifacts: how many of each are deleted.
        partitions: partitions of PostgreSQL that are dropped whole.
        counted_from: the time of the newest event (UTC), from which the age counts because the
            clock is too far ahead of it; None where the age counts from now.
    """

    kept_since: date
    events: int
    artifacts: int
    partitions: tuple[str, ...] = ()
    counted_from: datetime | None = None


class Pruner:
    """Prunes one store. A context manager.

    Args:
        url: as for `Store`.
        dry: only plan: write nothing, and upgrade nothing.

    Raises:
        ConfigurationError: the URL names no supported store.
        StoreMissingError: the store does not exist.
        StoreError: the store cannot be used or does not answer. Every method raises it as well.
    """

    def __init__(self, url: str | None = None, *, dry: bool = False) -> None:
        settled = settle(url).require_store()
        path = sqlite_path(settled)
        self.url: Final = public_url(settled)
        self._is_postgres = path is None
        lock: AbstractContextManager[None] = write_lock(path) if path else nullcontext()
        self._writer = connect(settled, create=False, upgrade=not dry, read_only=dry)
        self._reader = connect(settled, create=False, read_only=True)
        self._steps = ShortTransactions(self.url, lock, self._writer.begin)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._writer.dispose()
        self._reader.dispose()

    def plan(self, older_than: When, *, trust_clock: bool = False) -> Plan:
        """Plan a pruning; change nothing.

        An age counts from the newest event where the clock is ahead of that by more than a day and
        a tenth of the age: the clock may be wrong, or the store may be idle.

        Args:
            older_than: a time, a day, or an age. The plan contains the events of the days (UTC)
                before that day, and what an earlier run left to delete.
            trust_clock: the clock of this machine is right, whatever the newest event says.

        Raises:
            QueryError: ``older_than`` is not a time, or is less than a day ago, from when relays
                may still deliver events; or it is a day after which the store has no event.
        """
        moment = beginning_ns("older than", older_than)
        now = time.time_ns()  # later, so that an age of one day is not less than a day
        if moment > now - _DAY:
            raise _too_young(older_than, None)
        counted_from = None
        try:
            with self._reader.begin() as connection:
                newest = now if trust_clock else _newest_event(connection, now)
                if now - newest > max(_DAY, (now - moment) // 10):
                    counted_from = from_ns(newest)
                    moment -= (now - newest) if is_age(older_than) else 0
                    if newest and moment > newest - _DAY:
                        raise _too_young(older_than, counted_from)
                return self._plan(connection, max(0, moment) // _DAY * _DAY, counted_from)
        except SQLAlchemyError as error:
            raise self._steps.failure(error) from error

    def take_back(self, kept_since: When) -> date:
        """Make relays store older events again, from the day (UTC) of ``kept_since`` on.

        Deleted events do not come back. Events that the store refused meanwhile are in the
        quarantine of their spool, and can be replayed. The mark never moves ahead here.

        Returns:
            The first day that is kept now.

        Raises:
            QueryError: ``kept_since`` is not a time.
        """
        wanted = beginning_ns("keep since", kept_since) // _DAY * _DAY

        def step(connection: Connection) -> int:
            if self._is_postgres:
                lock_retention(connection.exec_driver_sql)
            before = connection.execute(select(retention.c.kept_since)).scalar_one()
            _update_marks(connection, kept_since=min(before, wanted))
            return min(int(before), wanted)

        return from_ns(self._steps.run(step)).date()

    def run(self, plan: Plan, *, counts: bool = False) -> Iterator[int]:
        """Execute a plan; yield after each transaction how many events and artifacts it deleted.

        Args:
            plan: the result of `plan`.
            counts: delete the counters of the pruned days as well.
        """
        kept_since = beginning_ns("kept since", plan.kept_since)
        before = self._steps.run(lambda connection: self._move_mark(connection, kept_since))
        yield from self._drop_partitions(plan.partitions, before)
        yield from self._delete_events(first_key(kept_since))
        yield from self._delete_rows(artifacts, artifacts.c.last_event_at < kept_since)
        yield from (0 for _ in self._delete_rows(costs, costs.c.last_at < kept_since))
        yield from (0 for _ in self._delete_rows(deliveries, _is_empty_since(kept_since)))
        yield from (0 for _ in self._delete_rows(processes, _has_ended_before(kept_since)))
        if counts:
            pruned = event_counts.c.day < plan.kept_since.isoformat()
            yield from (0 for _ in self._delete_rows(event_counts, pruned))
        if not self._is_postgres:
            yield from (0 for _ in self._shrink_file())

    def unused_bytes(self) -> int:
        """Free bytes of a SQLite file that only a VACUUM returns; new events reuse them.

        0 for a file that this version made, because `run` shortens it, and for PostgreSQL.
        """
        if self._is_postgres:
            return 0
        with self._reader.begin() as connection:
            pragma = _pragma_reader(connection)
            if pragma("auto_vacuum") == _INCREMENTAL:
                return 0
            return pragma("freelist_count") * pragma("page_size")

    def _plan(self, connection: Connection, kept_since: int, counted_from: datetime | None) -> Plan:
        before, pruned, _ = connection.execute(select(retention)).one()
        kept_since = max(kept_since, before)
        left = select(func.count()).where(events.c.event_id < first_key(min(pruned, kept_since)))
        ended = select(func.count()).where(artifacts.c.last_event_at < kept_since)
        partitions = partitions_of(connection.exec_driver_sql) if self._is_postgres else ()
        return Plan(
            kept_since=from_ns(kept_since).date(),
            events=_counted(connection, pruned, kept_since) + connection.execute(left).scalar_one(),
            artifacts=connection.execute(ended).scalar_one(),
            partitions=tuple(
                each.name for each in partitions if each.span and each.span[1] <= kept_since
            ),
            counted_from=counted_from,
        )

    def _move_mark(self, connection: Connection, kept_since: int) -> int:
        """Make relays leave out older events from now on; return the mark before (ns)."""
        if self._is_postgres:
            lock_retention(connection.exec_driver_sql)
        before, pruned, _ = connection.execute(select(retention)).one()
        _update_marks(
            connection,
            kept_since=max(before, kept_since),
            pruned_until=max(pruned, kept_since),
        )
        return int(pruned)

    def _drop_partitions(self, names: Iterable[str], kept_since: int) -> Iterator[int]:
        """Drop partitions; stop at one that is always in use: `_delete_events` empties the rest."""
        for name in names:
            try:
                yield self._steps.run(partial(_drop_partition, name=name, kept_since=kept_since))
            except StoreBusyError:
                return

    def _delete_events(self, end: str) -> Iterator[int]:
        key = events.c.event_id
        begin = first_key(0)

        def step(connection: Connection) -> tuple[str, int]:
            """Delete from where the last step ended, to scan no dead rows again."""
            left = select(key).where(key >= begin, key < end)
            after = left.order_by(key).offset(self._steps.rows).limit(1)
            up_to = connection.execute(after).scalar() or end
            return up_to, connection.execute(
                delete(events).where(key >= begin, key < up_to)
            ).rowcount

        def check(connection: Connection) -> None:
            left = select(func.count()).where(key >= first_key(0), key < end)
            if count := connection.execute(left).scalar_one():
                raise RowsSkippedError(str(delete(events)), events.name, count)

        while begin < end:
            begin, count = self._steps.run(step)
            yield count
        self._steps.run(check)

    def _delete_rows(self, table: Table, condition: ColumnElement[bool]) -> Iterator[int]:
        """Delete rows, skipping those that a relay has locked."""
        key = tuple_(*table.primary_key.columns)

        def step(connection: Connection) -> int:
            ended = select(*table.primary_key.columns).where(condition).limit(self._steps.rows)
            if self._is_postgres:
                ended = ended.with_for_update(skip_locked=True)
            left: Sequence[object] = ()
            for _ in range(2):  # the second time the rows are locked
                if count := connection.execute(delete(table).where(key.in_(ended))).rowcount:
                    return count
                if not (left := connection.execute(ended).all()):
                    return 0
            raise RowsSkippedError(str(delete(table)), table.name, len(left))

        while count := self._steps.run(step):
            yield count

    def _shrink_file(self) -> Iterator[int]:
        """Shorten a SQLite file until a tenth of it is free, for new events."""

        def step(connection: Connection) -> int:
            pragma = _pragma_reader(connection)
            if pragma("auto_vacuum") != _INCREMENTAL:
                return 0
            keep = pragma("page_count") * _FREE_SHARE
            excess = min(int(pragma("freelist_count") - keep), self._steps.rows)
            if excess > 0:  # the statement returns one row per page, and works as they are fetched
                cursor = connection.connection.cursor()
                cursor.execute(f"PRAGMA incremental_vacuum({excess})").fetchall()
            return excess

        while (count := self._steps.run(step)) > 0:
            yield count


def _update_marks(connection: Connection, **marks: int) -> None:
    if connection.execute(update(retention).values(marks)).rowcount != 1:
        raise RowsSkippedError(str(update(retention)), retention.name, 1)


def _newest_event(connection: Connection, now: int) -> int:
    """Return when the newest event occurred (ns), up to now; 0 in a store without events.

    In PostgreSQL the server's clock bounds it as well. An event of a clock that is ahead does not
    count.
    """
    if connection.dialect.name == "postgresql":
        clock = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000000)::bigint"
        now = min(now, int(connection.exec_driver_sql(clock).scalar_one()))
    key = events.c.event_id
    newest = select(events.c.occurred_at).where(key <= first_key(now)).order_by(key.desc()).limit(1)
    return int(connection.execute(newest).scalar() or 0)


def _too_young(older_than: When, counted_from: datetime | None) -> QueryError:
    if counted_from is None:
        return QueryError(
            argument="older than",
            problem=f"{older_than} is less than a day ago",
            remedy="give 1d or more, because relays may still deliver younger events",
        )
    return QueryError(
        argument="older than",
        problem=f"{older_than} is less than a day before the newest event, which occurred at"
        f" {counted_from:%Y-%m-%d %H:%M} UTC",
        remedy="check the clock; with a clock that is right, add --trust-clock",
    )


def _is_empty_since(kept_since: int) -> ColumnElement[bool]:
    """Deliveries before a time (ns) whose events have all been deleted."""
    left = select(events.c.event_id).where(events.c.recorded_at == deliveries.c.recorded_at)
    return and_(deliveries.c.recorded_at < kept_since, ~left.correlate(deliveries).exists())


def _has_ended_before(kept_since: int) -> ColumnElement[bool]:
    """Processes that ended before a time (ns), of which the store has no delivery.

    The end of a process is noted when the store has everything that it wrote. A process that has
    not told its end is kept, because the spool of its machine may still hold events.
    """
    row = processes.c
    has_events = row.number.in_(select(deliveries.c.process))
    return and_(row.ended != "", row.last_seen < kept_since, ~has_events)


def _drop_partition(connection: Connection, name: str, kept_since: int) -> int:
    """Drop a partition, unless another process has; return how many events it held."""
    lock_layout(connection.exec_driver_sql)
    spans = {each.name: each.span for each in partitions_of(connection.exec_driver_sql)}
    if (span := spans.get(name)) is None:
        return 0
    connection.exec_driver_sql(f"DROP TABLE {name}")
    return _counted(connection, max(span[0], kept_since), span[1])


def _counted(connection: Connection, begin: int, end: int) -> int:
    """Number of events on the days from ``begin`` to before ``end`` (ns)."""
    day = event_counts.c.day
    days = (from_ns(at).date().isoformat() for at in (begin, end))
    counted = select(func.coalesce(func.sum(event_counts.c.count), 0))
    return int(connection.execute(counted.where(day >= next(days), day < next(days))).scalar_one())


def _pragma_reader(connection: Connection) -> Callable[[str], int]:
    """Make a function that reads a numeric pragma of SQLite."""
    return lambda name: int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())
