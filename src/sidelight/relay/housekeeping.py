"""The keeper of the segments: allocates ahead of need, makes power-safe, adopts, deletes.

What fails in one of its duties is counted and keeps none of the others from being done.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sidelight.host import Loop, allocate_lock
from sidelight.spool import SMALLEST, SPARES, Segment, Spool, why

_ROUND: Final = 0.1  # seconds
_SYNC: Final = 0.5  # seconds between fdatasyncs: what survives a power loss
_ADOPT: Final = 2.0
_MEASURE: Final = 0.5
_AGED: Final = 600.0
_FREE: Final = 1 / 8  # of the limit: what telemetry holds is let go for it
_NEARLY: Final = 0.9  # of the limit: from here on events are written without their spans

logger: Final = logging.getLogger("sidelight")


@dataclass
class Keeper:
    """Looks after the segments.

    Attributes:
        loop: its thread.
        ending: it is to begin no more: its last act is to delete what the sinks have.
    """

    spool: Spool
    sinks: Sequence[str]
    ledger: Callable[[], None]
    count: Callable[[str, str], None]
    spans: Callable[[bool], None]
    ending: bool = False
    _wake: Any = field(default_factory=allocate_lock)
    _last: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.loop = Loop("sidelight-keeper", self.run)
        self._wake.acquire()

    def run(self) -> None:
        """Keep house until told to stop."""
        while not self.loop.halting:
            self.step()
            self._wake.acquire(timeout=_ROUND)
        if self.ending:
            self.finish()

    def poke(self) -> None:
        """Wake the keeper: a segment was used up."""
        with contextlib.suppress(RuntimeError):
            self._wake.release()

    def stop(self) -> None:
        """End after the current round."""
        self.loop.halt()
        self.poke()

    def finish(self) -> None:
        """The last act: the sinks have done theirs."""
        self._do(self.ledger)
        self._do(lambda: self.spool.finish(self.sinks))

    def step(self) -> None:
        """One round."""
        self._do(self.spool.rescue)
        self.collect()
        if self._is_used_up() or self._due("measure", _MEASURE):
            self._do(self._measure)
        self._do(self.spool.provide)
        if self._due("sync", _SYNC):
            self._do(self.ledger)
            self.sync()
        if self._due("adopt", _ADOPT):
            self._do(self.spool.adopt)
            self._do(lambda: self.spool.rotate_aged(_AGED))

    def collect(self) -> None:
        """Delete the segments that every sink has passed, also those that only their writer had.

        Segments of the dead that waited for a place have one then.
        """
        self._do(lambda: self.spool.discard(self.spool.ended(self.sinks)))
        self._do(lambda: self.spool.adopted.let_go(self.sinks))
        self._do(self.spool.adopted.fill)

    def sync(self) -> None:
        """Make power-safe what was written up to now: the segments' names, and what is in them."""
        self._sync(self.spool.names.sync)
        for segment in (*self.spool.adopted, *self.spool.own):
            if not self._sync(segment.sync):
                self._leave(segment)

    def _sync(self, sync: Callable[[], None]) -> bool:
        try:
            sync()
        except OSError as error:
            return not self.spool.troubles.count(f"not power-safe: {why(error)}", str(error))
        return True

    def _leave(self, segment: Segment) -> None:
        """Write no more where the disk has failed: what it did not take it may forget."""
        if segment.mapping is not None and segment.live:
            self._do(lambda: self.spool.rotate(segment))

    def _do(self, duty: Callable[[], object]) -> None:
        try:
            duty()
        except OSError as error:
            self.spool.troubles.count(f"spool not looked after: {why(error)}", str(error))
        except Exception as error:
            said = type(error).__name__
            if self.spool.troubles.count(f"spool not looked after: {said}", repr(error)):
                logger.exception("sidelight: the spool's keeper stumbled")

    def _due(self, what: str, seconds: float) -> bool:
        now = time.monotonic()
        if now - self._last.get(what, 0.0) < seconds:
            return False
        self._last[what] = now
        return True

    def _is_used_up(self) -> bool:
        """Whether a segment is to be allocated: there must be room for it first."""
        return self.spool.supply.full or len(self.spool.supply.spares) < SPARES

    def _measure(self) -> None:
        """Hold the directory within its limit: telemetry goes first, then spans, then events.

        It goes while there is room: a keeper that the disk holds up makes none.
        """
        limit = self.spool.supply.limit
        most = limit - max(SPARES * SMALLEST, limit * _FREE)
        used = self.spool.usage()
        if used > most:
            self.spool.adopted.take_back()
        for segment in (*self.spool.adopted, *self.spool.own):
            if used <= most:
                break
            if segment.sealed and "store" in segment.passed:
                self.spool.settle()  # as far as can be: at the limit it is these or new events
                self.spool.forget(segment)
                if not segment.is_done(self.sinks):
                    self.count("spool full: telemetry let go", str(segment.path))
                used -= segment.size
        self.spool.supply.full = used + SMALLEST > limit
        self.spans(used < _NEARLY * limit)
