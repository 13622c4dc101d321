"""One sink's worker: reads the spool from its own cursor and delivers in batches, at least once.

What the sink refuses goes to the quarantine, record by record. What the sink cannot take now stays
in the spool. No other sink is affected by either.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from sidelight.emission import IDLE, Watermark
from sidelight.exceptions import SinkInDoubtError, SinkRefusedError, SinkUnavailableError
from sidelight.host import Loop, log_failure, log_warning, monotonic, set_context, suppressed
from sidelight.record import encode, random_bits
from sidelight.relay.endings import Endings
from sidelight.relay.reading import STRETCH, Reading, SharedReadings
from sidelight.relay.refusals import (
    Delivered,
    InDoubt,
    Outcome,
    PoisonDetector,
    RefusedRecords,
    Unavailable,
    newest_records,
    note_erased,
    quarantine,
)
from sidelight.relay.sources import Sources
from sidelight.spool import (
    DefersWork,
    DropsErased,
    Health,
    Record,
    Segment,
    Sink,
    Spool,
    os_error_text,
)

_BATCH: Final = STRETCH  # records of one delivery
_STORE_BATCH: Final = 10_000  # … to the store, which splits it: larger pieces cost less per record
_GATHER: Final = 0.2  # seconds between small batches to a sink that acknowledges no event
_FAILURE_PAUSE: Final = 1.0  # seconds
_FIRST_BACK_OFF: Final = 0.05  # seconds; doubles with each failure …
_LONGEST_BACK_OFF: Final = 2.0  # … up to this
_JITTER: Final = 0.1  # seconds


class Stopped(Exception):  # noqa: N818  # a signal, not an error
    """The worker was told to stop while its sink was unavailable."""


class Worker(msgspec.Struct, eq=False, dict=True):
    """Drains the spool into one sink.

    Attributes:
        sink: the destination.
        spool: the source.
        count: counts a loss by reason.
        watermark: how far the store is, for receipts that wait; None for the other sinks.
        health: how the sink is doing.
        store: the worker of the store, for the other sinks; None where there is no store.
        ending: the worker will not start again; it closes the sink when it ends.
        busy: the worker is inside the sink's library.
        refused: how many records of this process the sink has refused.
        shared: what the other sinks have read.
        loop: the worker's thread.
    """

    sink: Sink
    spool: Spool
    count: Callable[[str, str], None]
    watermark: Watermark | None = None
    health: Health = msgspec.field(default_factory=Health)
    store: Worker | None = None
    ending: bool = False
    busy: bool = False
    refused: int = 0
    shared: SharedReadings = msgspec.field(default_factory=lambda: SharedReadings(tuple))
    _poison: PoisonDetector = msgspec.field(default_factory=PoisonDetector)
    _woken_at: float = 0.0
    _pause_for: float = IDLE
    _most_read: int = 0  # records of the largest batch of the last step

    def __post_init__(self) -> None:
        # Asked once what the sink can besides, because each time would take microseconds.
        self._deferring = self.sink if isinstance(self.sink, DefersWork) else None
        self._dropping = self.sink if isinstance(self.sink, DropsErased) else None
        self._endings = Endings(self.sink)
        self.loop = Loop(f"sidelight-{self.sink.name}", self.run)
        self._sources = Sources(self.spool, self.sink.name, self.count, self.shared)
        self._quarantine = partial(quarantine, self.spool, self.sink.name, self.count)

    @property
    def is_store(self) -> bool:
        """Whether the sink acknowledges events: the store, or a stream without a store."""
        return self.watermark is not None

    @property
    def failing(self) -> bool:
        """Whether the sink failed to take the last batch."""
        return self.health.failing_since is not None

    # -- the thread --------------------------------------------------------------------------

    def run(self) -> None:
        """Drain until told to stop."""
        set_context(suppressed())  # no instrumentation makes spans of the exports
        if self.is_store:  # now, so that no receipt waits for the store to open
            self.open()
        with contextlib.suppress(Stopped):
            while not self.loop.halting:
                self._run_once()
        if self.ending:
            self.sink.close()

    def open(self) -> None:
        """Open the sink by an empty batch, if the sink is available."""
        with contextlib.suppress(Stopped):
            self._attempt((), {})

    def continue_deferred_work(self) -> bool:
        """Let the store do a step of the work that it has noted; return whether it had any."""
        if self._deferring is None or not self._deferring.has_deferred_work:
            return False
        self.open()
        if self.failing:
            self._pause(_FAILURE_PAUSE)
        return True

    def _run_once(self) -> None:
        try:
            self._most_read = 0
            if not self.step() and not self.continue_deferred_work():
                self._sleep()
            elif not self.is_store and 0 < self._most_read < _BATCH:
                self.loop.pause(_GATHER)  # a request costs the same for few records as for many
        except Stopped:
            raise
        except SinkInDoubtError:  # read the batch again later, together with newer records
            self._pause(_FAILURE_PAUSE)
        except Exception as error:  # noqa: BLE001  # a defect in sidelight or in a sink's library
            self._note_failure(error)
            if self.spool.failures.count("relay failed", f"{self.sink.name}: {error!r}"):
                log_failure("sidelight: the %s relay failed, and tries again", self.sink.name)
            self._pause(_FAILURE_PAUSE)

    def wake(self) -> None:
        """Wake the worker, because a receipt or a flush waits."""
        if not self._woken_at:
            self._woken_at = monotonic()
        self.loop.wake()

    def _sleep(self) -> None:
        """Sleep until woken; the store's worker then looks whether the GIL is contended."""
        self._woken_at, due = 0.0, monotonic() + self._pause_for
        self.loop.pause(self._pause_for)
        if self.watermark is not None:
            late = monotonic() - (self._woken_at or due)
            self._pause_for = self.watermark.contention.look(int(late * 1e9))

    def _pause(self, seconds: float) -> None:
        until = monotonic() + seconds
        while not self.loop.halting and (left := until - monotonic()) > 0:
            self.loop.pause(left)

    # -- reading the spool -------------------------------------------------------------------

    def step(self, retries: int | None = None) -> bool:
        """Deliver one batch of each source; return False when there was nothing to deliver.

        Args:
            retries: retries in a row before `SinkUnavailableError` is raised; None never raises.
        """
        delivered = False
        for segment in self._sources:
            is_final = segment.sealed  # asked first: no frame comes after the last read of it
            if self._waits_for_store(segment):
                continue
            limit = _STORE_BATCH if self.is_store else _BATCH
            reading = self._sources.read(segment, limit, self._is_contended)
            if reading is None:
                continue
            self._most_read = max(self._most_read, len(reading))
            try:
                delivered |= self._process(segment, reading, retries, is_final=is_final)
            except BaseException:
                self._sources.forget(segment)
                raise
        return delivered

    def _waits_for_store(self, segment: Segment) -> bool:
        """Return whether the store is to take first what only this process's memory holds.

        A kill loses such a segment. A Collector must not have what the store can never have.
        """
        if self.store is None or self.store.failing or segment.path is not None:
            return False
        name = self.store.sink.name
        return name not in segment.delivered_to and segment.may_have_more_for(name)

    def _process(
        self, segment: Segment, reading: Reading, retries: int | None, *, is_final: bool
    ) -> bool:
        """Deliver what was read, and move the cursor; return False when nothing was read."""
        if not segment.is_unreadable:  # else the whole file goes to the quarantine
            for at, stretch in reading.damaged:
                self._quarantine(
                    segment, "damaged stretch of the spool", f"at {at}", stretch, offset=at
                )
        for payload, problem in reading.unreadable:
            self._quarantine(segment, "unreadable record", problem, payload)
        if len(reading):
            self._deliver(segment, reading, retries)
        elif is_final and self._endings.note_end(segment, self.health):
            self._finish(segment)
        elif reading.damaged:
            self._advance(segment, reading.end)
        else:
            self._endings.note_alive(segment)
            return False
        return True

    def _is_contended(self) -> bool:
        return self.watermark is not None and self.watermark.contention.is_high

    # -- delivering --------------------------------------------------------------------------

    def _deliver(self, segment: Segment, reading: Reading, retries: int | None) -> None:
        """Deliver a batch, then move the cursor behind it.

        Each piece of the batch has one of three outcomes:

        - delivered: the sink took the piece.
        - unavailable: the sink took none of it. The piece is tried again after a back-off.
        - refused: the piece holds a poison record. The piece is halved until the poison record
          stands alone; then that record goes to the quarantine.

        Before a batch is halved, it is judged whether the store rejects everything. Such a store
        is in doubt: `SinkInDoubtError` leaves the batch in the spool.
        """
        records = reading.records
        pieces, failures, is_judged = [records], 0, self.sink.name != "store"
        while pieces:
            piece = pieces.pop()
            outcome = self._attempt(piece, segment.meta)
            if isinstance(outcome, RefusedRecords) and outcome.poison is None and not is_judged:
                outcome = self._judge(piece, outcome, segment)
                is_judged = isinstance(outcome, RefusedRecords)

            match outcome:
                case Delivered():
                    failures = 0
                case Unavailable(problem):
                    if failures == retries:
                        raise SinkUnavailableError(sink=self.sink.name, problem=problem)
                    pieces.append(piece)
                    self._back_off(failures)
                    failures += 1
                case InDoubt(problem):
                    raise SinkInDoubtError(sink=self.sink.name, problem=problem)
                case RefusedRecords(problem, poison, reason) if (
                    poison is not None or len(piece) == 1
                ):
                    self._refuse(segment, poison or piece, problem, reason)
                case RefusedRecords():
                    middle = len(piece) // 2
                    pieces += piece[middle:], piece[:middle]
        self.health.delivered += len(records)
        self.health.events += sum(static.type is not None for static, _ in records)
        self._advance(segment, reading.end)

    def _attempt(self, records: Sequence[Record], writer: dict[str, Any]) -> Outcome:
        """Hand records to the sink once, and note whether the sink is available."""
        self.busy = True
        try:
            self.sink.write(records, writer)
        except SinkUnavailableError as error:
            return self._unavailable(error)
        except SinkRefusedError as error:
            facts: Any = error.facts
            return RefusedRecords(str(facts["problem"]), facts.get("records"), facts.get("reason"))
        except MemoryError:  # the records are not the cause
            with contextlib.suppress(Exception):  # the sink may be in any state
                self.sink.close()
            problem = "no memory is left"
            return self._unavailable(SinkUnavailableError(sink=self.sink.name, problem=problem))
        except Exception as error:  # noqa: BLE001  # a library that cannot take some value
            return RefusedRecords(repr(error), None)
        finally:
            self.busy = False
        if self._dropping is not None:
            note_erased(self._dropping, self.watermark)
        self.health.recover()
        self._set_active(available=True)
        self._poison.note_delivery(records)
        return Delivered()

    def _judge(
        self, records: Sequence[Record], refusal: RefusedRecords, segment: Segment
    ) -> Outcome:
        """Judge whether the records or the store is the cause of a refusal."""
        outcome = self._poison.judge(
            records,
            refusal,
            newest_records(self.spool.own, self.sink.name),
            lambda some: self._attempt(some, segment.meta),
        )
        if isinstance(outcome, InDoubt):
            self._unavailable(SinkInDoubtError(sink=self.sink.name, problem=outcome.problem))
        return outcome

    def _unavailable(self, error: SinkUnavailableError) -> Unavailable:
        """Note that the sink is unavailable; a worker that is told to stop tries no more."""
        self._note_failure(error)
        if self.loop.halting:
            raise Stopped
        return Unavailable(str(error.facts["problem"]))

    def _note_failure(self, error: Exception) -> None:
        self._set_active(available=False)
        if self.health.fail(str(error)):
            log_warning("sidelight: %s; its records wait in the spool", error)

    def _set_active(self, *, available: bool) -> None:
        """Tell receipts whether a wait for the store is worthwhile."""
        if self.watermark is not None:
            self.watermark.store_answers = available and not self.loop.halting

    def _back_off(self, failures: int) -> None:
        """Pause before the next attempt: exponential, with jitter."""
        seconds = min(_LONGEST_BACK_OFF, _FIRST_BACK_OFF * 2 ** min(failures, 10))
        self._pause(seconds + _JITTER * random_bits(32) / 2**32)

    # -- cursor and quarantine ---------------------------------------------------------------

    def _advance(self, segment: Segment, offset: int) -> None:
        """Move the watermark, then the cursor.

        `flush` looks at the cursor, and every receipt before it must be stored then.
        """
        self._move_watermark(segment, (segment.number, offset))
        try:
            segment.advance(self.sink.name, offset)
        except OSError as error:
            self.spool.failures.count(f"cursor not written: {os_error_text(error)}", str(error))

    def _finish(self, segment: Segment) -> None:
        self._move_watermark(segment, (segment.number + 1, 0))
        segment.delivered_to.add(self.sink.name)
        self._sources.forget(segment)

    def _move_watermark(self, segment: Segment, position: tuple[int, int]) -> None:
        """Move the watermark of the store; it never goes back, also where a batch is read again."""
        if self.watermark is not None and segment.number:
            self.watermark.advance(max(position, self.watermark.position))

    def _refuse(
        self, segment: Segment, records: Sequence[Record], problem: str, reason: str | None = None
    ) -> None:
        """Move poison records to the quarantine."""
        for record in records:
            if reason is None:
                self._poison.note_poison(record)
            if segment.number and record[0].outcome != "ledger":  # this process has emitted it
                self.refused += 1
                if self.watermark is not None:
                    self.watermark.note_refused(record[1].random)
            why = reason or f"refused by {self.sink.name}"
            self._quarantine(segment, why, problem, encode(record), refused=True)

    # -- for the other threads ---------------------------------------------------------------

    def sync(self) -> bool:
        """Make what the sink has taken survive a power loss; return whether that succeeded."""
        try:
            self.sink.sync()
        except OSError as error:
            problem = f"{self.sink.name}: {error}"
            self.spool.failures.count(f"not power-safe: {os_error_text(error)}", problem)
            return False
        return True

    def take_refused(self) -> int:
        """Return how many records of this process were refused since the last call."""
        refused, self.refused = self.refused, 0
        return refused

    def is_behind(self) -> bool:
        """Return whether the sink has records left to take."""
        return self._sources.are_left()
