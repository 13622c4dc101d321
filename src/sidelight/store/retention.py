"""Retention: what occurred before a day is deleted, in small steps beside relays, and stays away.

The store remembers from when on it keeps events. That is moved first, in between the transactions
of relays, and from then on they leave out what is older: an event that is delivered again after it
was deleted does not come back. Then the rows go, in short transactions that wait for no lock that a
relay may hold. Whoever is stopped in the middle has lost nothing: the next one finds what is left.

`artifacts` and `event_counts` tell history: an artifact keeps its first event and its number of
events until the last of them is gone, and days that are pruned keep their counts, unless these are
to go as well.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Final, Self, TypeVar

from sqlalchemy import ColumnElement, Table, delete, func, select, tuple_, update
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from sidelight.exceptions import QueryError, StoreBusyError, StoreError
from sidelight.settings import public_url, settle, sqlite_path
from sidelight.store.partitions import first_key, lock_layout, lock_retention, partitions_of
from sidelight.store.schema import (
    artifacts,
    connect,
    costs,
    event_counts,
    events,
    losses,
    retention,
)
from sidelight.store.sqlite import write_lock
from sidelight.store.times import When, beginning_ns, from_ns

if TYPE_CHECKING:
    from types import TracebackType

_DAY: Final = 86_400 * 10**9  # ns
_AIM: Final = 0.05
"""Seconds that one transaction should take: for so long a relay may have to wait."""
_ROWS: Final = (100, 20_000)  # of one transaction, at least and at most
_PATIENCE: Final = 60.0  # seconds for a lock that others hold
_FREE: Final = 0.1  # of an SQLite file: what is more is given back
_INCREMENTAL: Final = 2  # SQLite's auto_vacuum
_LOCKED: Final = frozenset({"55P03", "40P01", "40001"})  # SQLSTATE: no lock, deadlock, conflict
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to go.

    Attributes:
        kept_since: the first day (UTC) that is kept.
        events, artifacts: how many of them go.
        partitions: those of PostgreSQL's that are dropped as they are.
    """

    kept_since: date
    events: int
    artifacts: int
    partitions: tuple[str, ...] = ()


class Pruner:
    """Prunes one store. A context manager.

    Args:
        url: as for `Store`.
        dry: only to plan: nothing is written, nor upgraded.

    Raises:
        ConfigurationError: the URL is none.
        StoreMissingError: there is no store.
        StoreError: it cannot be used, or does not answer; so does everything else here.
    """

    def __init__(self, url: str | None = None, *, dry: bool = False) -> None:
        settled = settle(url).store
        path = sqlite_path(settled)
        self.url: Final = public_url(settled)
        self._is_postgres = path is None
        self._lock: AbstractContextManager[None] = write_lock(path) if path else nullcontext()
        self._writer = connect(settled, create=False, upgrade=not dry, read_only=dry)
        self._reader = connect(settled, create=False, read_only=True)
        self._rows = _ROWS[0]

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

    def plan(self, older_than: When) -> Plan:
        """See what is to go; nothing is changed.

        Args:
            older_than: a time, a day, or an age. What occurred on days (UTC) before that one goes,
                and whatever an earlier pruning was to delete.

        Raises:
            QueryError: it is no time, or less than a day ago: relays may still be bringing what
                occurred since.
        """
        moment = beginning_ns("older than", older_than)
        if moment > time.time_ns() - _DAY:
            raise QueryError(
                argument="older than",
                problem=f"{older_than} is less than a day ago",
                remedy="give 1d or more: what relays are about to bring would be left out",
            )
        try:
            with self._reader.begin() as connection:
                return self._plan(connection, moment // _DAY * _DAY)
        except SQLAlchemyError as error:
            raise self._failure(error) from error

    def run(self, plan: Plan, *, counts: bool = False) -> Iterator[int]:
        """Carry out a plan; yields after each transaction how many events and artifacts it took.

        Args:
            plan: what `plan` has answered.
            counts: delete the counters of the days that go, too.
        """
        kept_since = beginning_ns("kept since", plan.kept_since)
        already = self._in_turn(lambda connection: self._move(connection, kept_since))
        yield from self._drop(plan.partitions, already)
        yield from self._delete_events(first_key(kept_since))
        yield from self._trim(artifacts, artifacts.c.last_event_at < kept_since)
        for table in (losses, costs):
            yield from (0 for _ in self._trim(table, table.c.last_at < kept_since))
        if counts:
            ended = event_counts.c.day < plan.kept_since.isoformat()
            yield from (0 for _ in self._trim(event_counts, ended))
        if not self._is_postgres:
            yield from (0 for _ in self._give_back())

    def unused(self) -> int:
        """Bytes of an SQLite file that wait for new events, and that only a VACUUM would give back.

        None where it was made by this version: `run` has shortened it.
        """
        if self._is_postgres:
            return 0
        with self._reader.begin() as connection:
            ask = _pragmas(connection)
            if ask("auto_vacuum") == _INCREMENTAL:
                return 0
            return ask("freelist_count") * ask("page_size")

    def _plan(self, connection: Connection, kept_since: int) -> Plan:
        already = connection.execute(select(retention.c.kept_since)).scalar_one()
        kept_since = max(kept_since, already)
        left = select(func.count()).where(events.c.event_id < first_key(already))
        ended = select(func.count()).where(artifacts.c.last_event_at < kept_since)
        partitions = partitions_of(connection) if self._is_postgres else ()
        return Plan(
            kept_since=from_ns(kept_since).date(),
            events=_counted(connection, already, kept_since)
            + connection.execute(left).scalar_one(),
            artifacts=connection.execute(ended).scalar_one(),
            partitions=tuple(
                each.name for each in partitions if each.span and each.span[1] <= kept_since
            ),
        )

    def _move(self, connection: Connection, kept_since: int) -> int:
        """Let no relay store from now on what is older; answers what it was before."""
        if self._is_postgres:
            lock_retention(connection)
        before = connection.execute(select(retention.c.kept_since)).scalar_one()
        if before < kept_since:
            connection.execute(update(retention).values(kept_since=kept_since))
        return int(before)

    def _drop(self, names: Iterable[str], already: int) -> Iterator[int]:
        """Drop partitions; where others use them all the time, their rows are deleted instead."""
        for name in names:
            try:
                yield self._in_turn(partial(_drop, name=name, already=already))
            except StoreBusyError:
                return

    def _delete_events(self, end: str) -> Iterator[int]:
        key = events.c.event_id
        begin = first_key(0)

        def step(connection: Connection) -> tuple[str, int]:
            """From where the last one ended: to begin anew is to pass over all that is dead."""
            going = (key >= begin, key < end)
            place = select(key).where(*going).order_by(key).offset(self._rows).limit(1)
            up_to = connection.execute(place).scalar() or end
            return up_to, connection.execute(
                delete(events).where(key >= begin, key < up_to)
            ).rowcount

        while begin < end:
            begin, count = self._in_turn(step)
            yield count

    def _trim(self, table: Table, condition: ColumnElement[bool]) -> Iterator[int]:
        """Delete rows that relays may be updating: those are passed over, and wait for no one."""
        key = tuple_(*table.primary_key.columns)

        def step(connection: Connection) -> int:
            ended = select(*table.primary_key.columns).where(condition).limit(self._rows)
            if self._is_postgres:
                ended = ended.with_for_update(skip_locked=True)
            return connection.execute(delete(table).where(key.in_(ended))).rowcount

        while count := self._in_turn(step):
            yield count

    def _give_back(self) -> Iterator[int]:
        """Shorten an SQLite file; what is free up to a tenth of it stays for what comes."""

        def step(connection: Connection) -> int:
            ask = _pragmas(connection)
            if ask("auto_vacuum") != _INCREMENTAL:
                return 0
            excess = min(int(ask("freelist_count") - ask("page_count") * _FREE), self._rows)
            if excess > 0:  # it answers a row for each page
                cursor = connection.connection.cursor()
                cursor.execute(f"PRAGMA incremental_vacuum({excess})").fetchall()
            return excess

        while (count := self._in_turn(step)) > 0:
            yield count

    # -- transactions ------------------------------------------------------------------------

    def _in_turn(self, step: Callable[[Connection], _T]) -> _T:
        """Run one transaction, then leave the store to the relays for as long as it took.

        Raises:
            StoreBusyError: others hold what it needs, all the time.
        """
        until = time.monotonic() + _PATIENCE
        while True:
            begun = time.monotonic()
            try:
                with self._lock, self._writer.begin() as connection:
                    answer = step(connection)
            except (TimeoutError, SQLAlchemyError) as error:
                if not _is_locked(error):
                    raise self._failure(error) from error
                if time.monotonic() > until:
                    raise StoreBusyError(
                        url=self.url,
                        problem=_words(error),
                        remedy="find who keeps it so; then run this again: it goes on where it was",
                    ) from error
                time.sleep(random.uniform(0.02, 0.2))  # noqa: S311  # no secret
            else:
                spent = time.monotonic() - begun
                self._adapt(spent)
                time.sleep(max(_AIM / 10, spent))
                return answer

    def _adapt(self, spent: float) -> None:
        """So many rows that a transaction takes about what it should."""
        least, most = _ROWS
        if spent > _AIM:
            self._rows = max(least, self._rows // 2)
        elif spent < _AIM / 2:
            self._rows = min(most, self._rows * 2)

    def _failure(self, error: Exception) -> StoreError:
        return StoreError(
            url=self.url,
            problem=_words(error),
            remedy="run this again when it is well: it goes on where it was",
        )


def _drop(connection: Connection, name: str, already: int) -> int:
    """Drop one, unless somebody else has; answers how many events were in it."""
    lock_layout(connection)
    spans = {each.name: each.span for each in partitions_of(connection)}
    if (span := spans.get(name)) is None:
        return 0
    connection.exec_driver_sql(f"DROP TABLE {name}")
    return _counted(connection, max(span[0], already), span[1])


def _counted(connection: Connection, begin: int, end: int) -> int:
    """How many events occurred on these days, from one's beginning up to another's."""
    day = event_counts.c.day
    days = (from_ns(at).date().isoformat() for at in (begin, end))
    counted = select(func.coalesce(func.sum(event_counts.c.count), 0))
    return int(connection.execute(counted.where(day >= next(days), day < next(days))).scalar_one())


def _pragmas(connection: Connection) -> Callable[[str], int]:
    """Asks SQLite for its figures."""
    return lambda name: int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())


def _is_locked(error: Exception) -> bool:
    original = getattr(error, "orig", error)
    code = getattr(original, "sqlite_errorcode", 0) & 0xFF
    return (
        isinstance(error, TimeoutError)  # the lock of SQLite's writers
        or code == sqlite3.SQLITE_BUSY
        or getattr(original, "sqlstate", None) in _LOCKED
    )


def _words(error: Exception) -> str:
    return " ".join(str(getattr(error, "orig", error)).split()) or "its lock is held"
