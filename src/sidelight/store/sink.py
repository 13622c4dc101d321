"""The sink that writes the events store: rows and counters in one transaction, exactly once.

A record that comes twice (the relay delivers at least once) meets its own key and counts nothing.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from sidelight.exceptions import SinkRefusedError, SinkUnavailableError, StoreError
from sidelight.record import event_id, random_bits, to_json
from sidelight.store import ingest
from sidelight.store.batch_size import Pace
from sidelight.store.errors import lies_in_the_values
from sidelight.store.partitions import Months
from sidelight.store.rows import Ledger, Record, drafts_of
from sidelight.store.schema import connect, costs, losses, parse_url, shown
from sidelight.store.sqlite import make_durable, write_lock
from sidelight.store.statements import Bulk, bulk_of, insert_into, last_recorded
from sidelight.store.times import from_ns
from sidelight.store.validation import marked

_SQLITE_AIM: Final = 0.1
"""Seconds of one transaction, in which nobody else can write: they wait no longer than 0.25."""
_POSTGRES_AIM: Final = 0.3
_APART: Final = 20  # bits: a millisecond
_INTO_LOSSES: Final = insert_into(losses)
_INTO_COSTS: Final = insert_into(costs)


Claim: TypeAlias = Callable[[Connection], Collection[str]]


class StoreSink:
    """Writes batches of records into one store. Used by one thread at a time."""

    name: str = "store"

    def __init__(
        self, url: str, count: Callable[[str, str], None] = lambda _reason, _problem: None
    ) -> None:
        """Nothing is opened yet: a store that is down must not keep the application from starting.

        Args:
            url: ``sqlite:///…`` or ``postgresql://…``.
            count: told of the events that are not as the process's catalogue declares them.

        Raises:
            ConfigurationError: the URL is none.
        """
        self.url = parse_url(url)
        self._shown = shown(self.url)
        self._count = count
        self._connection: Connection | None = None
        self._file: Path | None = None
        self._lock: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        self._months: Months | None = None
        if self.url.get_backend_name() == "sqlite":
            self._file = Path(self.url.database or "")
            self._lock = write_lock(self._file)
        self._pace = Pace(_SQLITE_AIM if self._file else _POSTGRES_AIM)

    def write(self, records: Sequence[Record], writer: dict[str, Any]) -> None:
        """Store a batch, a piece at a time: each whole or not at all, and none holds others up.

        Args:
            records: events, spans and ledgers; spans alone have no row here.
            writer: the header of the segment they came from.

        Raises:
            SinkUnavailableError: the store does not answer, is locked, or lost the connection.
            SinkRefusedError: it took offence at a value.
        """
        records, undeclared = marked(records)
        for piece in self._pace.pieces(records):
            with self._pace:
                self._write_piece(piece, writer)
        self._tell(undeclared.values())

    def write_claimed(
        self, records: Sequence[Record], writer: dict[str, Any], claim: Claim
    ) -> Collection[str]:
        """Store what is claimed of a batch, in the transaction that claims it.

        Args:
            records: events.
            writer: the header of the spool of who moves them.
            claim: asked within the transaction for the ids of the events that are to be stored.

        Returns:
            What it has claimed.

        Raises:
            SinkUnavailableError: as in `write`.
            SinkRefusedError: as in `write`; then nothing is claimed either.
        """
        records, undeclared = marked(records)
        claimed: Collection[str] = ()

        def claim_once(connection: Connection) -> Collection[str]:
            nonlocal claimed
            claimed = claim(connection)
            return claimed

        self._write_piece(records, writer, claim_once)
        self._tell(problem for key, problem in undeclared.items() if key in claimed)
        return claimed

    def rehearse(self, records: Sequence[Record], writer: dict[str, Any]) -> None:
        """Store a batch in a transaction that is undone: it raises what `write` would."""
        self._write_piece(records, writer, undo=True)

    def _tell(self, undeclared: Iterable[str]) -> None:
        for problem in undeclared:
            self._count("event not as declared", problem)

    def _write_piece(
        self,
        records: Sequence[Record],
        writer: dict[str, Any],
        claim: Claim | None = None,
        *,
        undo: bool = False,
    ) -> None:
        try:
            with self._lock:
                self._write(records, writer, claim, undo=undo)
        except TimeoutError as error:  # the lock of another relay
            raise SinkUnavailableError(sink=self._shown, problem="its lock is held") from error
        except (StoreError, OSError) as error:  # no directory, no right, no room: not yet
            self.close()
            raise SinkUnavailableError(sink=self._shown, problem=error) from error
        except SQLAlchemyError as error:
            problem = " ".join(str(getattr(error, "orig", error)).split())
            if lies_in_the_values(error):
                raise SinkRefusedError(sink=self._shown, problem=problem) from error
            self.close()
            raise SinkUnavailableError(sink=self._shown, problem=problem) from error

    def sync(self) -> None:
        """Make what was committed survive a power loss. In PostgreSQL it does already.

        Raises:
            OSError: it would not.
        """
        if self._file is not None:
            make_durable(self._file)

    def close(self) -> None:
        """Let go of the connection; the next write opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(SQLAlchemyError):
                connection.close()
            connection.engine.dispose()

    def disown(self, *, busy: bool) -> bool:
        """In a forked child: a session is only forgotten, because closing it ends the parent's.

        An SQLite file is closed: this process's own tables say that it is locked, though the locks
        are the parent's, and a connection that is opened beside it takes none. When the parent
        closes the file, it deletes the log to which that one writes. In the middle of a transaction
        closing would undo it, the parent's; then this process must not open the file at all.
        """
        if self._file is None or self._connection is None:
            return True
        if not busy:
            self.close()
        return not busy

    def _write(
        self,
        records: Sequence[Record],
        writer: dict[str, Any],
        claim: Claim | None,
        *,
        undo: bool,
    ) -> None:
        if self._file is not None and not self._file.exists():
            self.close()  # deleted under us: what is written to it now would be lost with it
        if self._connection is None:
            self._connection = connect(self.url, create=not undo).connect()
            self._months = Months() if self._file is None else None
        drafts, ledgers = drafts_of(records)
        if self._months is not None and not undo:
            self._months.provide(self._connection, [draft[0] for draft in drafts])
        if not drafts and not ledgers:
            return
        process = str(writer.get("instance", ""))
        recorded_at = _time_after_all(self._connection)
        with self._connection.begin() as transaction:
            bulk = bulk_of(self._connection)
            if claim is not None:
                claimed = claim(self._connection)
                drafts = [draft for draft in drafts if event_id(*draft[:2]) in claimed]
            if drafts and (left_out := ingest.store(bulk, drafts, recorded_at)):
                latest = from_ns(drafts[left_out - 1][0]).isoformat(timespec="seconds")
                problem = f"the latest occurred at {latest}, which is pruned"
                _lost("older than the store keeps", left_out, problem, process, bulk)
            for ledger in ledgers:
                _write_ledger(bulk, ledger, process)
            if undo:
                bulk.check()
                transaction.rollback()


def _time_after_all(connection: Connection) -> int:
    """A time for a transaction (ns): now, and behind all that are there, whatever the clock says.

    Who follows the store looks for what is newer than what he has seen, and a clock may be set
    back, or be behind that of another relay. Two that begin at once are told apart by chance.
    """
    newest, now = last_recorded(connection), time.time_ns()
    return now if now > newest else newest + 1 + random_bits(_APART)


def _lost(reason: str, count: int, problem: str, process: str, bulk: Bulk) -> None:
    """Add to what could not be stored, whichever process it came from."""
    bulk.run(
        *_INTO_LOSSES,
        [(process, reason, count, problem, time.time_ns())],
        "ON CONFLICT (process, reason) DO UPDATE SET count = losses.count + excluded.count,"
        " problem = excluded.problem, last_at = excluded.last_at",
    )


def _write_ledger(bulk: Bulk, ledger: Ledger, process: str) -> None:
    """Costs and losses of a process: cumulative, so that a later state replaces an earlier one."""
    told, at = ledger
    problems = told.get("problems", {})
    bulk.run(
        *_INTO_LOSSES,
        [
            (process, reason, count, str(problems.get(reason, "")).replace("\0", "␀"), at)
            for reason, count in sorted(told.get("losses", {}).items())
        ],
        _replace("losses", "reason", "problem"),
    )
    bulk.run(
        *_INTO_COSTS,
        [
            (process, point, snapshot["count"], to_json(snapshot), at)
            for point, snapshot in sorted(told.get("costs", {}).items())
        ],
        _replace("costs", "point", "histogram"),
    )


def _replace(table: str, key: str, value: str) -> str:
    return (
        f"ON CONFLICT (process, {key}) DO UPDATE SET count = excluded.count,"
        f" {value} = excluded.{value}, last_at = excluded.last_at"
        f" WHERE excluded.count > {table}.count"
    )
