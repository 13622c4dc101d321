"""The relay: drains the spool into the sinks, out of the callers' way.

A worker for each sink and a keeper for the segments, each a daemon thread; none of them holds a
lock that a caller takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from sidelight.emission import Watermark
from sidelight.exceptions import SinkUnavailableError
from sidelight.relay.housekeeping import Keeper
from sidelight.relay.worker import Worker
from sidelight.spool import Health, Sink, Spool

if TYPE_CHECKING:
    from sidelight.relay.outbox_mover import Mover, Outbox

_BRIEFLY: Final = 0.05  # seconds


class Relay:
    """The workers and the keeper of one process."""

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
        self.workers = [
            Worker(sink, spool, count, watermark if sink.name == "store" else None)
            for sink in sinks
        ]
        self.keeper = Keeper(spool, [sink.name for sink in sinks], ledger, count, spans)
        self.movers = _movers(outboxes, spool, self._store_answers)
        spool.settle = lambda: all(worker.sync() for worker in self.workers)
        self._loops = [self.keeper.loop, *(each.loop for each in self._members)]

    def start(self) -> None:
        """Begin, or go on after a `halt`, in daemon threads.

        Raises:
            RuntimeError: there are no threads to be had; at the end of the interpreter there are
                none.
        """
        self.spool.on_rotation = self.spool.on_refusal = self.keeper.poke
        self.watermark.wake_relay = self._poke_store
        for loop in self._loops:
            loop.start()

    def _poke_store(self) -> None:
        for worker in self.workers:
            if worker.is_store:
                worker.poke()

    @property
    def _members(self) -> list[Worker | Mover]:
        return [*self.workers, *self.movers]

    def _store_answers(self) -> bool:
        return self.watermark.store_answers

    def flush(
        self, seconds: float, *, patient: bool = True, needed: Collection[str] = ("store",)
    ) -> bool:
        """Wait until what is ``needed``, and every other sink that answers, has what was emitted.

        Args:
            seconds: the longest to wait.
            patient: wait for a needed sink that is failing at the moment, in case it recovers.
            needed: names of sinks.

        Returns:
            Whether they have.
        """
        until = time.monotonic() + seconds
        asked = [(mover, mover.ask()) for mover in self.movers]
        while True:
            stuck = not patient and any(w.failing for w in self.workers if w.is_store)
            if not stuck and any(not moved() for m, moved in asked if patient or not m.failing):
                if time.monotonic() >= until:
                    return False
                time.sleep(0.002)
                continue
            behind = [
                w for w in self.workers if w.behind() and (w.sink.name in needed or not w.failing)
            ]
            waited_for = [w for w in behind if patient or not w.failing]
            if not waited_for or time.monotonic() >= until:
                return not behind
            for worker in waited_for:
                worker.poke()
            time.sleep(0.002)

    def drain(self, attempts: int = 3) -> dict[str, int]:
        """Deliver all there is, in this thread; for `sidelight relay --once`.

        Returns:
            Records delivered, by sink.

        Raises:
            SinkUnavailableError: a sink did not answer ``attempts`` times.
        """
        answering, problem = self.workers, None
        self.spool.adopt()
        if self.movers:  # they ask whether the store answers
            for worker in self.workers:
                if worker.is_store:
                    worker.open()
        while True:
            known = [(segment, segment.sealed) for segment in self.spool.adopted]
            for worker in answering:
                try:
                    while worker.step(attempts):
                        self.keeper.collect()
                except SinkUnavailableError as error:
                    answering = [each for each in answering if each is not worker]
                    problem = error
            self.keeper.collect()
            self.spool.adopt()
            now = [(segment, segment.sealed) for segment in self.spool.adopted]
            # There is room for a batch from each outbox by now; where there is none, that was all.
            if now == known and not sum(mover.step() or 0 for mover in self.movers):
                break
        if problem is not None:
            raise problem
        return {worker.sink.name: worker.health.delivered for worker in self.workers}

    def health(self) -> Mapping[str, Health]:
        """How each sink is doing, and each outbox."""
        sinks = {worker.sink.name: worker.health for worker in self.workers}
        return sinks | {f"outbox {mover.outbox.shown}": mover.health for mover in self.movers}

    def halt(self, seconds: float, *, briefly: bool = False) -> bool:
        """End the threads, until the next `start`.

        Args:
            seconds: the longest to wait.
            briefly: wait less for the telemetry: it may be waiting for an answer of the network.

        Returns:
            False when one of them does not end in time: it is inside its library.
        """
        self.keeper.stop()
        for each in self._members:
            each.stop()
        self.watermark.store_answers = False
        now = time.monotonic()
        until = {w.loop: now + _BRIEFLY for w in self.workers if briefly and not w.is_store}
        ended = [loop.join(until.get(loop, now + seconds)) for loop in self._loops]
        return all(ended)

    def disown(self) -> bool:
        """In a forked child: the sinks let go of what they share with the parent.

        Returns:
            False when a thread of the parent's was inside a store that this process must not open
            again: what it emits has to be delivered by another.
        """
        for mover in self.movers:
            mover.disown()
        usable = [worker.sink.disown(busy=worker.busy) for worker in self.workers]
        return all(usable)

    def stop(self, seconds: float) -> bool:
        """End the threads and let go of the sinks; False when one does not end in time.

        Each thread does its own last act, so that no disk can hold up who calls this. The keeper's
        comes last: it deletes what the workers have brought to the sinks.
        """
        until = time.monotonic() + seconds
        self.watermark.store_answers = False
        for worker in self.workers:
            worker.ending = True
            if worker.loop.is_running:
                worker.stop()
            else:
                worker.sink.close()
        for mover in self.movers:
            mover.stop()
        ended = [each.loop.join(until) for each in self._members]
        for mover in self.movers:
            if not mover.loop.is_running:
                mover.outbox.close()
        self.keeper.ending = True
        if self.keeper.loop.is_running:
            self.keeper.stop()
        else:
            self.keeper.finish()
        return all([*ended, self.keeper.loop.join(until)])


def _movers(outboxes: Sequence[Outbox], spool: Spool, ready: Callable[[], bool]) -> list[Mover]:
    if not outboxes:
        return []
    from sidelight.relay.outbox_mover import Mover  # noqa: PLC0415  # most processes have none

    return [Mover(outbox, spool, ready) for outbox in outboxes]
