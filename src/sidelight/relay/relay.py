"""The relay of one process: drains the spool into the sinks, in daemon threads.

There is one worker for each sink, one mover for each outbox, and one housekeeping thread. None of
them holds a lock that a caller takes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from sidelight.emission import Watermark
from sidelight.exceptions import SinkUnavailableError
from sidelight.host import monotonic, sleep
from sidelight.record import FRAME, decode
from sidelight.relay.housekeeping import Housekeeping
from sidelight.relay.reading import SharedReadings
from sidelight.relay.worker import Worker
from sidelight.spool import Health, Sink, Spool, acknowledging_sink

if TYPE_CHECKING:
    from sidelight.relay.outbox_mover import Mover, Outbox

_BRIEFLY: Final = 0.05  # seconds
_POLL: Final = 0.002  # seconds …
_LONGEST_POLL: Final = 0.02  # … and in a long wait
_FOR_MEMORY: Final = 0.3  # seconds
_HELD_FOR: Final = 2.0  # seconds until an outbox that another relay holds counts as left …
_LOOK_AGAIN: Final = 0.1  # … and between two looks at it
_HELD: Final = "another relay holds its events, and is at work or stopped; run this again later"


class Relay:
    """The threads that deliver what is in a spool.

    Args:
        spool: the source.
        sinks: the destinations.
        watermark: how far the store is, for receipts that wait.
        ledger: writes costs and losses into the spool.
        count: counts a loss by reason.
        spans: gets whether events may carry their spans.
        outboxes: tables whose rows are moved into the spool.
    """

    def __init__(
        self,
        spool: Spool,
        sinks: Sequence[Sink],
        watermark: Watermark,
        *,
        ledger: Callable[[], None] = lambda: None,
        count: Callable[[str, str], None] = lambda _reason, _problem: None,
        spans: Callable[[bool], None] = lambda _: None,
        outboxes: Sequence[Outbox] = (),
    ) -> None:
        self.spool = spool
        self.watermark = watermark
        self.acknowledging = acknowledging_sink([sink.name for sink in sinks])
        watermark.acknowledged = "stored" if self.acknowledging == "store" else "streamed"
        shared = SharedReadings(lambda: [w.sink.name for w in self.workers if not w.failing])
        self.workers = [
            Worker(
                sink,
                spool,
                count,
                watermark if sink.name == self.acknowledging else None,
                shared=shared,
            )
            for sink in sinks
        ]
        for store in [worker for worker in self.workers if worker.is_store]:
            for worker in self.workers:
                worker.store = None if worker is store else store
        self.housekeeping = Housekeeping(spool, [sink.name for sink in sinks], ledger, count, spans)
        self.movers = _movers(outboxes, spool, lambda: watermark.store_answers)
        spool.sync_sinks = lambda: all(worker.sync() for worker in self.workers)
        self._members: list[Worker | Mover] = [*self.workers, *self.movers]
        self._loops = [self.housekeeping.loop, *(each.loop for each in self._members)]

    def start(self) -> None:
        """Start the threads that do not run, also after a `halt`.

        Raises:
            RuntimeError: no thread can be started, as at the end of the interpreter.
        """
        self.spool.on_rotation = self.spool.on_full = self.housekeeping.loop.wake
        self.watermark.wake_relay = self._wake_store
        self.watermark.contention.relay_clocks = self._clocks
        for loop in self._loops:
            loop.start()

    def is_running(self) -> bool:
        """Return whether all threads run; one that has just been started may not yet."""
        return all(loop.has_begun for loop in self._loops)

    def await_store(self, seconds: float) -> None:
        """Wait until the store has answered for the first time, or has failed to."""
        until = monotonic() + seconds
        stores = [worker for worker in self.workers if worker.is_store and worker.loop.is_running]
        while stores and not (self.watermark.store_answers or stores[0].failing):
            if monotonic() > until:
                return
            sleep(_POLL)

    def _clocks(self) -> list[int]:
        return [loop.cpu_clock for loop in self._loops if loop.cpu_clock is not None]

    def _wake_store(self) -> None:
        for worker in self.workers:
            if worker.is_store:
                worker.wake()

    def flush(self, seconds: float, *, patient: bool = True, needed: Collection[str] = ()) -> bool:
        """Wait until the ``needed`` sinks, and all others that answer, have what was emitted.

        Args:
            seconds: the longest wait.
            patient: wait also for a needed sink that fails at the moment.
            needed: names of sinks; by default the one that acknowledges records.

        Returns:
            Whether the sinks have everything, and the needed ones have refused nothing of this
            process since the last flush. False where a needed sink could not be made.
        """
        needed = needed or (self.acknowledging,)
        is_delivered = self._await_delivery(seconds, needed, patient=patient)
        refused = [w.delivery.take_refused() for w in self.workers if w.sink.name in needed]
        are_here = {worker.sink.name for worker in self.workers}.issuperset(needed)
        return is_delivered and are_here and not any(refused)

    def _await_delivery(self, seconds: float, needed: Collection[str], *, patient: bool) -> bool:
        began = monotonic()
        until = began + seconds
        requests = [(mover, mover.request()) for mover in self.movers]
        while True:
            is_stuck = not patient and any(w.failing for w in self.workers if w.is_store)
            moving = (not done() for mover, done in requests if patient or not mover.failing)
            if not is_stuck and any(moving):
                if monotonic() >= until:
                    return False
                time.sleep(_pause_after(monotonic() - began))
                continue
            behind = [
                worker
                for worker in self.workers
                if worker.is_behind() and (worker.sink.name in needed or not worker.failing)
            ]
            awaited = [worker for worker in behind if patient or not worker.failing]
            if not awaited or monotonic() >= until:
                return not behind
            for worker in awaited:
                worker.wake()
            time.sleep(_pause_after(monotonic() - began))

    def drain(self, retries: int = 3) -> dict[str, int]:
        """Deliver everything in this thread; for `sidelight relay --once`.

        What is left in outboxes is noted in their `health`.

        Returns:
            Records delivered, by sink.

        Raises:
            SinkUnavailableError: a sink was still unavailable after ``retries``.
        """
        answering, problem = self.workers, None
        self.spool.adopt()
        if self.movers:  # they move nothing until the store answers
            for worker in self.workers:
                if worker.is_store:
                    worker.open()
        while True:
            known = self._adopted()
            for worker in answering:
                try:
                    while worker.step(retries):
                        self.housekeeping.collect()
                except SinkUnavailableError as error:
                    answering = [each for each in answering if each is not worker]
                    problem = error
            self.housekeeping.collect()
            self.spool.adopt()
            # The spool has room for a batch of each outbox now; where it has none, this is the end.
            if self._adopted() == known and not self._move():
                break
        _finish_deferred_work(answering)
        if problem is not None:
            raise problem
        return {worker.sink.name: worker.health.delivered for worker in self.workers}

    def _move(self) -> bool:
        """Move a batch of each outbox; return whether any row was moved.

        Another relay that holds an outbox gets 2 s. Then a failure is noted, because events may be
        left: that relay may be stopped.
        """
        until = monotonic() + _HELD_FOR
        while True:
            answers = [(mover, mover.step()) for mover in self.movers]
            if any(moved for _, moved in answers):
                return True
            held = [each for each, moved in answers if moved is None and each.ready()]
            held = [each for each in held if not each.failing]
            if not held or monotonic() > until:
                for each in held:
                    each.health.fail(_HELD)
                return False
            sleep(_LOOK_AGAIN)

    def _store_directly(self, frame: bytes) -> bool:
        """Hand one record to the sink that acknowledges; all threads have ended.

        Returns:
            False where the sink did not answer lately, or does not answer now.
        """
        for worker in self.workers:
            if worker.is_store and not worker.failing:
                with contextlib.suppress(Exception), contextlib.closing(worker.sink):
                    worker.sink.write([decode(frame[FRAME.size :])], self.spool.meta)
                    return True
        return False

    def _adopted(self) -> list[tuple[object, bool]]:
        return [(segment, segment.sealed) for segment in self.spool.adopted]

    def health(self) -> Mapping[str, Health]:
        """Return the health of each sink and each outbox, by name."""
        sinks = {worker.sink.name: worker.health for worker in self.workers}
        return sinks | {f"outbox {mover.outbox.shown}": mover.health for mover in self.movers}

    def halt(self, seconds: float, *, briefly: bool = False) -> bool:
        """End the threads until the next `start`.

        Args:
            seconds: the longest wait.
            briefly: wait less for the OTLP workers, because they may be waiting for the network.

        Returns:
            False when a thread did not end in time, because it is inside its library.
        """
        for loop in self._loops:
            loop.stop()
        self.watermark.store_answers = False
        now = monotonic()
        until = {w.loop: now + _BRIEFLY for w in self.workers if briefly and not w.is_store}
        ended = [loop.join(until.get(loop, now + seconds)) for loop in self._loops]
        return all(ended)

    def disown(self) -> bool:
        """Drop what a forked child shares with its parent.

        Returns:
            False when the parent forked inside the store's library. Then this process must not
            open the store, and another process has to deliver its events.
        """
        for mover in self.movers:
            mover.disown()
        usable = [worker.sink.disown(busy=worker.delivery.is_within) for worker in self.workers]
        return all(usable)

    def stop(self, seconds: float) -> bool:
        """End the threads for good and close the sinks.

        Each thread does its own last act, so that a slow disk delays no caller. Housekeeping ends
        last, because it deletes what the workers have delivered. A batch out of memory gets a
        little longer, because what is not delivered is lost.

        Returns:
            False when a thread did not end in time.
        """
        until = monotonic() + seconds
        if any(each.path is None for each in self.spool.own):
            until += _FOR_MEMORY
        self.watermark.store_answers = False
        for worker in self.workers:
            worker.ending = True
            if worker.loop.is_running:
                worker.loop.stop()
            else:
                worker.sink.close()
        for mover in self.movers:
            mover.ending = True
            mover.loop.stop()
        ended = [each.loop.join(until) for each in self._members]
        for mover in self.movers:
            if not mover.loop.is_running:  # one that had ended before has closed nothing
                mover.outbox.close()
        self.housekeeping.ending = True
        if self.housekeeping.loop.is_running:
            self.housekeeping.loop.stop()
        else:
            self.housekeeping.finish()
        if all_ended := all([*ended, self.housekeeping.loop.join(until)]):
            self.spool.store_directly = self._store_directly
        return all_ended


def _pause_after(waited: float) -> float:
    """Return how long a flush that has waited so long pauses: each look takes the GIL."""
    return min(max(waited / 20, _POLL), _LONGEST_POLL)


def _movers(outboxes: Sequence[Outbox], spool: Spool, ready: Callable[[], bool]) -> list[Mover]:
    if not outboxes:
        return []
    from sidelight.relay.outbox_mover import Mover  # noqa: PLC0415  # most processes have none

    return [Mover(outbox, spool, ready) for outbox in outboxes]


def _finish_deferred_work(workers: Iterable[Worker]) -> None:
    for worker in workers:
        while not worker.failing and worker.continue_deferred_work():
            pass
