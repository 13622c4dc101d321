"""One sink's worker: reads the spool from its own cursor, and moves the cursor behind each batch.

No other sink is affected by what its sink cannot take.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec

from sidelight.emission import IDLE, Watermark
from sidelight.exceptions import SinkInDoubtError, SinkUnavailableError
from sidelight.host import Loop, log_failure, monotonic, set_context, suppressed
from sidelight.relay.delivery import Delivery, Stopped
from sidelight.relay.endings import Endings
from sidelight.relay.reading import STRETCH, Reading, SharedReadings
from sidelight.relay.refusals import RefusedRecords, newest_records, quarantine
from sidelight.relay.sources import Sources
from sidelight.spool import DefersWork, Health, Segment, Sink, Spool, os_error_text

_BATCH: Final = STRETCH  # records of one delivery
_STORE_BATCH: Final = 10_000  # … to the store, which splits it: larger pieces cost less per record
_GATHER: Final = 0.2  # seconds between small batches to a sink that acknowledges no event
_FAILURE_PAUSE: Final = 1.0  # seconds


class Worker(msgspec.Struct, eq=False, dict=True):
    """Drains the spool into one sink.

    Attributes:
        sink: the destination.
        spool: the source.
        count: counts a loss by reason.
        watermark: how far the store is, for receipts that wait; None for the other sinks.
        store: the worker of the store, for the other sinks; None where there is no store.
        ending: the worker will not start again; it closes the sink when it ends.
        shared: what the other sinks have read.
        loop: the worker's thread.
        delivery: hands the records to the sink.
    """

    sink: Sink
    spool: Spool
    count: Callable[[str, str], None]
    watermark: Watermark | None = None
    store: Worker | None = None
    ending: bool = False
    shared: SharedReadings = msgspec.field(default_factory=lambda: SharedReadings(tuple))
    _woken_at: float = 0.0
    _pause_for: float = IDLE
    _most_read: int = 0  # records of the largest batch of the last step

    def __post_init__(self) -> None:
        name = self.sink.name
        # Asked once, because each time would take microseconds.
        self._deferring = self.sink if isinstance(self.sink, DefersWork) else None
        self._endings = Endings(self.sink, self.spool.adopted)
        self.loop = Loop(f"sidelight-{name}", self.run)
        self._sources = Sources(self.spool, name, self.count, self.shared)
        self._quarantine = partial(quarantine, self.spool, name, self.count)
        self.delivery = Delivery(
            self.sink,
            self.loop,
            self.watermark,
            lambda: newest_records(self.spool.own, name),
            self._quarantine,
        )

    @property
    def health(self) -> Health:
        """How the sink is doing."""
        return self.delivery.health

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
        """Open the sink by an empty batch, or note that the sink is unavailable."""
        with contextlib.suppress(Stopped):
            outcome = self.delivery.attempt((), {})
            if isinstance(outcome, RefusedRecords):  # there is no record that could be the cause
                self.delivery.note_failure(
                    SinkUnavailableError(sink=self.sink.name, problem=outcome.problem)
                )

    def continue_deferred_work(self) -> bool:
        """Let the store do a step of the work that it has noted; return whether it had any."""
        if self._deferring is None or not self._deferring.has_deferred_work:
            return False
        self.open()
        if self.failing:
            self.loop.rest(_FAILURE_PAUSE)
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
            self.loop.rest(_FAILURE_PAUSE)
        except Exception as error:  # noqa: BLE001  # a defect in sidelight or in a sink's library
            self.delivery.note_failure(error)
            if self.spool.failures.count("relay failed", f"{self.sink.name}: {error!r}"):
                log_failure("sidelight: the %s relay failed, and tries again", self.sink.name)
            self.loop.rest(_FAILURE_PAUSE)

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
            limit, began = _STORE_BATCH if self.is_store else _BATCH, time.time_ns()
            reading = self._sources.read(segment, limit, self._is_contended)
            if reading is None:
                continue
            self._most_read = max(self._most_read, len(reading))
            try:
                delivered |= self._process(segment, reading, began, retries, is_final=is_final)
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
        self,
        segment: Segment,
        reading: Reading,
        began: int,
        retries: int | None,
        *,
        is_final: bool,
    ) -> bool:
        """Deliver what was read, and move the cursor; return False when nothing was read.

        Args:
            segment: where it was read.
            reading: what was read.
            began: wall clock before the read (ns).
            retries: as in `step`.
            is_final: no frame comes after it.
        """
        if not segment.is_unreadable:  # else the whole file goes to the quarantine
            for at, stretch in reading.damaged:
                self._quarantine(
                    segment, "damaged stretch of the spool", f"at {at}", stretch, offset=at
                )
        for payload, problem in reading.unreadable:
            self._quarantine(segment, "unreadable record", problem, payload)
        if len(reading):
            self.delivery.deliver(reading.records, segment, retries)
            self._advance(segment, reading.end)
        elif is_final and self._endings.note_end(segment, self.health):
            self._finish(segment)
        elif reading.damaged:
            self._advance(segment, reading.end)
        else:
            self._endings.note_alive(segment, began)
            return False
        return True

    def _is_contended(self) -> bool:
        return self.watermark is not None and self.watermark.contention.is_high

    # -- the cursor --------------------------------------------------------------------------

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

    def is_behind(self) -> bool:
        """Return whether the sink has records left to take."""
        return self._sources.are_left()
