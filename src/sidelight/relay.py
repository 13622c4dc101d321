"""The relay: drains the spool into the sinks, out of the callers' way.

A worker for each sink and a keeper for the segments, each a daemon thread; none of them holds a
lock that a caller takes.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from sidelight.exceptions import SinkUnavailableError
from sidelight.keeper import Keeper
from sidelight.receipt import Progress
from sidelight.spool import Spool
from sidelight.worker import Health, Sink, Worker


class Relay:
    """The workers and the keeper of one process."""

    def __init__(
        self,
        spool: Spool,
        sinks: Sequence[Sink],
        progress: Progress,
        *,
        ledger: Callable[[], None] = lambda: None,
        count: Callable[[str, str], None] = lambda _reason, _problem: None,
        spans: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self.spool = spool
        self.progress = progress
        self.workers = [
            Worker(sink, spool, count, progress if sink.name == "store" else None) for sink in sinks
        ]
        self.keeper = Keeper(spool, [sink.name for sink in sinks], ledger, count, spans)
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the daemon threads."""
        self.spool.on_rotation = self.keeper.poke
        self.progress.poke = self._poke_store
        runs = {"keeper": self.keeper.run, **{w.sink.name: w.run for w in self.workers}}
        for name, run in runs.items():
            thread = threading.Thread(target=run, name=f"sidelight-{name}", daemon=True)
            thread.start()
            self._threads.append(thread)  # now, so that a `stop` in between joins what runs

    def _poke_store(self) -> None:
        for worker in self.workers:
            if worker.is_store:
                worker.poke()

    def flush(self, seconds: float, *, patient: bool = True) -> bool:
        """Wait until the store, and every other sink that answers, has what was emitted up to now.

        Args:
            seconds: the longest to wait.
            patient: wait for a store that is failing at the moment, in case it recovers.

        Returns:
            Whether they have.
        """
        until = time.monotonic() + seconds
        while True:
            behind = [w for w in self.workers if w.behind() and (w.is_store or not w.failing)]
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
        self.spool.adopt()
        problem: SinkUnavailableError | None = None
        for worker in self.workers:
            try:
                while worker.step(attempts):
                    self.keeper.collect()
            except SinkUnavailableError as error:
                problem = error
        self.keeper.collect()
        if problem is not None:
            raise problem
        return {worker.sink.name: worker.health.delivered for worker in self.workers}

    def health(self) -> Mapping[str, Health]:
        """How each sink is doing."""
        return {worker.sink.name: worker.health for worker in self.workers}

    @contextlib.contextmanager
    def paused(self, seconds: float) -> Iterator[None]:
        """Keep the workers outside of their libraries, so that a fork finds no lock taken."""
        held = [w for w in self.workers if w.busy.acquire(timeout=seconds)]
        try:
            yield
        finally:
            for worker in held:
                worker.busy.release()

    def stop(self, seconds: float) -> bool:
        """Stop the threads; False when one does not end in time (it is inside its library)."""
        self.keeper.stop()
        for worker in self.workers:
            worker.stop()
        self.progress.active = False
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        ended = not any(thread.is_alive() for thread in self._threads)
        if ended:
            for worker in self.workers:
                worker.sink.close()
        return ended
