"""The sink that writes the events store: rows and counters in one transaction, exactly once.

The relay delivers at least once. A record that arrives again finds its own key and counts nothing.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from sidelight.exceptions import (
    SinkRefusedError,
    SinkUnavailableError,
    StoreError,
    StoreMissingError,
)
from sidelight.record import occurred_at, random_bits
from sidelight.spool import Record
from sidelight.store.address import parse_url
from sidelight.store.batch_size import BatchSizer
from sidelight.store.database import Connection, DatabaseError
from sidelight.store.deliveries import (
    Part,
    Writer,
    by_process,
    contents_of,
    deliveries_of,
    drafts_in_order,
    recordings_of,
)
from sidelight.store.errors import is_record_refused
from sidelight.store.ingest import attribute_step, store_events
from sidelight.store.ledgers import store_ledgers
from sidelight.store.opening import open_store
from sidelight.store.partitions import MonthlyPartitions
from sidelight.store.processes import abandon_calls, store_death, store_life, store_process
from sidelight.store.proved import check_kept
from sidelight.store.rows import KEY, Draft, Row, mark_undeclared
from sidelight.store.sqlite import SqliteConnection, sync_wal
from sidelight.store.statements import batch_statements, last_recorded
from sidelight.store.times import from_ns
from sidelight.store.witness import Witness
from sidelight.store.write_lock import write_lock

_SQLITE_TARGET: Final = 0.1
"""Seconds that one transaction should take. Other writers wait for it, up to 0.25 s."""
_POSTGRES_TARGET: Final = 0.3
_SPREAD_BITS: Final = 20  # up to a millisecond

_T = TypeVar("_T")
Claim: TypeAlias = Callable[[Connection], Collection[str]]
"""Takes events out of an outbox within the sink's transaction; returns their ids."""


class StoreSink:
    """Writes batches of records into one store. One thread at a time uses it.

    Attributes:
        has_deferred_work: a `write`, also of an empty batch, has more to do: to move earlier events
            to the organization of their artifact, which became known late.
        erased: the random bits of events that were dropped because they were erased; the relay
            takes them.
    """

    name: str = "store"

    def __init__(
        self,
        url: str,
        count: Callable[[str, str], None] = lambda _reason, _problem: None,
        observe: Callable[[Sequence[Row]], None] = lambda _rows: None,
    ) -> None:
        """Open nothing yet, so that the application starts while its store is down.

        Args:
            url: ``sqlite:///…`` or ``postgresql://…``.
            count: called with reason and problem for each event that breaks its declaration, and
                for each that is dropped because it was erased.
            observe: called after a commit with the rows of `events` that are new.

        Raises:
            ConfigurationError: the URL names no supported store.
        """
        self.address = parse_url(url)
        self._display_url = self.address.shown
        self._count = count
        self._observe = observe
        self._witness = Witness(count, self._display_url)
        self.has_deferred_work = False
        self.erased: list[int] = []
        self._connection: Connection | None = None
        self._file: Path | None = None
        self._lock: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        self._partitions: MonthlyPartitions | None = None
        if self.address.backend == "sqlite":
            self._file = self.address.path
            self._lock = write_lock(self._file)
        self._sizer = BatchSizer(_SQLITE_TARGET if self._file else _POSTGRES_TARGET)

    def write(self, records: Sequence[Record], writer: dict[str, Any]) -> None:
        """Store a batch in pieces; each piece is one short transaction.

        Args:
            records: events, spans and ledgers; a span alone has no row in the store.
            writer: the header of the segment that holds the records.

        Raises:
            SinkUnavailableError: the store does not answer, is locked, or lost the connection.
            SinkRefusedError: the store refuses a record because of its values, and has taken no
                record of that piece; or it has taken all except those in ``facts["records"]``,
                which are older than the store keeps.
        """
        records, undeclared = mark_undeclared(records)
        self._write_pieces([(piece, writer)] for piece in self._sizer.split(records))
        self._report_undeclared(undeclared.values())

    def write_of_many(self, records: Sequence[tuple[Record, Writer]]) -> None:
        """Store a batch of several processes, in pieces as `write` does.

        Args:
            records: each with the header of its writer; those of one process have the same one.
                The end of a call may come before its start.

        Raises:
            SinkUnavailableError, SinkRefusedError: as in `write`.
        """
        self._write_pieces(map(by_process, self._sizer.split(records)), in_order=False)

    def _write_pieces(self, pieces: Iterable[Sequence[Part]], *, in_order: bool = True) -> None:
        too_old: list[Record] = []
        for parts in pieces:
            with self._sizer:
                too_old += self._write_piece(parts, in_order=in_order)
        if self.has_deferred_work:
            self._attempt(self._attribute_step)
        if too_old:
            raise self._too_old(too_old)

    def write_claimed(
        self, records: Sequence[Record], writer: dict[str, Any], claim: Claim
    ) -> Collection[str]:
        """Store those events of a batch that ``claim`` takes, in the same transaction.

        Args:
            records: events.
            writer: the header of the spool of the relay that moves them.
            claim: called within the transaction; returns the ids of the events to store.

        Returns:
            The ids that ``claim`` returned.

        Raises:
            SinkUnavailableError: as in `write`.
            SinkRefusedError: as in `write`; the claim is rolled back as well.
        """
        records, undeclared = mark_undeclared(records)
        claimed: Collection[str] = ()

        def claim_once(connection: Connection) -> Collection[str]:
            nonlocal claimed
            claimed = claim(connection)
            return claimed

        self._write_piece([(records, writer)], claim_once)
        self._report_undeclared(problem for key, problem in undeclared.items() if key in claimed)
        return claimed

    def rehearse(self, records: Sequence[Record], writer: dict[str, Any]) -> None:
        """Store a batch and roll it back; raises what `write` would raise."""
        if too_old := self._write_piece([(records, writer)], undo=True):
            raise self._too_old(too_old)

    def _too_old(self, records: Sequence[Record]) -> SinkRefusedError:
        """Return an error that names the records, which go to the quarantine.

        Nobody knows whether the store had them before it was pruned, or whether a clock was wrong.
        """
        latest = from_ns(max(occurred_at(moment) for _, moment in records))
        return SinkRefusedError(
            sink=self._display_url,
            problem=f"the latest occurred at {latest:%Y-%m-%dT%H:%M:%S+00:00}, which is pruned",
            records=records,
            reason="older than the store keeps",
        )

    def _report_undeclared(self, problems: Iterable[str]) -> None:
        for problem in problems:
            self._count("event not as declared", problem)

    def _write_piece(
        self,
        parts: Sequence[Part],
        claim: Claim | None = None,
        *,
        undo: bool = False,
        in_order: bool = True,
    ) -> Sequence[Record]:
        """Store a piece; return the records that are older than the store keeps."""
        return self._attempt(
            lambda: self._write(parts, claim, undo=undo, in_order=in_order), of_records=True
        )

    def _attribute_step(self) -> None:
        if self._connection is not None:
            with self._connection.transaction():
                self.has_deferred_work = attribute_step(
                    self._connection, batch_statements(self._connection)
                )

    def _attempt(self, transaction: Callable[[], _T], *, of_records: bool = False) -> _T:
        """Run a transaction, and translate the errors of the database.

        Args:
            transaction: what to run.
            of_records: it stores records, which the database may refuse.
        """
        try:
            with self._lock:
                return transaction()
        except TimeoutError as error:  # another process holds the write lock
            raise SinkUnavailableError(
                sink=self._display_url, problem="its lock is held"
            ) from error
        except (StoreError, OSError) as error:  # no directory, no right or no space, for now
            self.close()
            raise SinkUnavailableError(sink=self._display_url, problem=error) from error
        except DatabaseError as error:
            if of_records and is_record_refused(error):
                raise SinkRefusedError(sink=self._display_url, problem=str(error)) from error
            self.close()
            raise SinkUnavailableError(sink=self._display_url, problem=str(error)) from error

    def note_alive(self, writer: dict[str, Any], until: int) -> None:
        """Note that the store has everything that a living process wrote until a time (ns).

        Args:
            writer: the header of its segments.
            until: before the spool was found read to its end.

        Raises:
            SinkUnavailableError: as in `write`.
        """
        self._attempt(lambda: self._note_alive(writer, until))

    def _note_alive(self, writer: dict[str, Any], until: int) -> None:
        connection = self._opened(create=True)
        with connection.transaction():
            store_life(batch_statements(connection), writer, time.time_ns(), until)

    def note_end(self, writer: dict[str, Any]) -> None:
        """Note that a process has ended, and that it has no records left in the spool.

        Args:
            writer: the header of its segments.

        Raises:
            SinkUnavailableError: as in `write`.
        """
        self._attempt(lambda: self._note_end(writer))

    def _note_end(self, writer: dict[str, Any]) -> None:
        connection = self._opened(create=True)
        with connection.transaction():
            statements = batch_statements(connection)
            store_death(statements, writer, time.time_ns())
            abandon_calls(connection, statements, str(writer.get("instance", "")))

    def upgrade(self) -> None:
        """Upgrade the tables of a store that exists.

        Raises:
            SinkUnavailableError: as in `write`.
        """

        def open_once() -> None:
            with contextlib.suppress(StoreMissingError):
                open_store(self.address, create=False, upgrade=True).close()

        if self._file is None or self._file.exists():
            self._attempt(open_once)

    def _opened(self, *, create: bool) -> Connection:
        if self._connection is not None and self._connection.has_ended():
            self.close()
        if self._connection is None:
            self._connection = open_store(self.address, create=create)
            self.has_deferred_work = create  # of another relay, perhaps
            self._partitions = MonthlyPartitions() if self._file is None else None
        return self._connection

    def sync(self) -> None:
        """Make every commit survive a power loss. PostgreSQL does so at the commit.

        Raises:
            OSError: the flush failed.
        """
        if self._file is None:
            return
        sync_wal(self._file)
        if self._connection is not None:
            try:
                _check_file(self._connection)  # a log that was removed has taken commits with it
            except DatabaseError as error:
                raise OSError(str(error)) from error

    def close(self) -> None:
        """Close the connection; the next write opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def disown(self, *, busy: bool) -> bool:
        """Let go of the connection in a forked child (see `Sink.disown`).

        A PostgreSQL session is only forgotten, because closing it ends the parent's session.

        A SQLite file is closed. SQLite's table of locks in this process says that the file is
        locked, although the parent holds the locks; a second connection here would take none, and
        the parent would delete the log into which it writes. Within a transaction of the parent,
        closing would roll that transaction back, so that the child must not open the file at all.
        """
        if self._file is None or self._connection is None:
            return True
        if not busy:
            self.close()
        return not busy

    def _write(
        self, parts: Sequence[Part], claim: Claim | None, *, undo: bool, in_order: bool
    ) -> Sequence[Record]:
        connection = self._opened(create=not undo)
        _check_file(connection)
        contents = [contents_of(*part, in_order=in_order) for part in parts]
        drafts = drafts_in_order(contents)
        if self._partitions is not None and not undo:
            self._partitions.ensure(connection, [draft[0] for draft in drafts])
        if not any(contents):
            return ()
        recorded_at, was_there = _next_recorded_at(connection, self._witness.latest)
        # With a claim, the records are those of several processes.
        deliveries = deliveries_of(contents, recorded_at) if claim is None else ()
        recordings = recordings_of(contents, recorded_at) if len(contents) > 1 else None
        with connection.transaction(undo=undo):
            statements = batch_statements(connection)
            if claim is not None:
                claimed = claim(connection)
                drafts = [draft for draft in drafts if draft[1] in claimed]
            stored = store_events(statements, drafts, recorded_at, deliveries, recordings)
            too_old = [(static, moment) for *_, static, moment in drafts[: stored.left_out]]
            if too_old and claim is not None:
                raise self._too_old(too_old)  # they go to the quarantine through the spool
            store_ledgers(statements, contents)
            if claim is None:
                new = {row[KEY] for row in stored.new} if any(c.starts for c in contents) else ()
                for each in contents:
                    store_process(connection, statements, each, new, recorded_at)
            if undo:
                statements.check_constraints()
            check_kept(statements, stored.new, range(recorded_at, recorded_at + len(contents)))
        _check_file(connection)
        self.has_deferred_work |= stored.has_noted_work
        if not undo:
            self._report_erased(stored.erased)
            self._observe(stored.new)
            self._witness.committed(connection, deliveries, len(stored.new), was_there=was_there)
        return too_old

    def _report_erased(self, drafts: Iterable[Draft]) -> None:
        """Count events that came after they were erased; the id must not be told."""
        for *_, static, moment in drafts:
            self._count("erased", f"{static.point}: {static.type}")
            self.erased.append(moment.random)


def _check_file(connection: Connection) -> None:
    """See `SqliteConnection.check_file`."""
    if isinstance(connection, SqliteConnection):
        connection.check_file()


def _next_recorded_at(connection: Connection, own: int) -> tuple[int, bool]:
    """Return a time for a transaction (ns), and whether the store has the commit ``own``.

    The time is now, or after the newest one if the clock is behind it. A follower of the store asks
    for what is newer than the newest that it has seen, and a clock may be set back or be behind
    another relay's. Random bits separate two transactions that begin at once.
    """
    (newest, has_own), now = last_recorded(connection, own), time.time_ns()
    return now if now > newest else newest + 1 + random_bits(_SPREAD_BITS), has_own
