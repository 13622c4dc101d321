"""The keeper of the segments: allocates ahead of need, makes power-safe, adopts, deletes."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sidelight.spool import SMALLEST, SPARES, Spool
from sidelight.threads import Loop, allocate_lock

_ROUND: Final = 0.1  # seconds
_SYNC: Final = 0.5  # seconds between fdatasyncs: what survives a power loss
_ADOPT: Final = 2.0
_MEASURE: Final = 0.5
_AGED: Final = 600.0
_NEARLY: Final = 0.9  # of the limit: from here on events are written without their spans

logger: Final = logging.getLogger("sidelight")


@dataclass
class Keeper:
    """Looks after the segments."""

    spool: Spool
    sinks: Sequence[str]
    ledger: Callable[[], None]
    count: Callable[[str, str], None]
    spans: Callable[[bool], None]
    _wake: Any = field(default_factory=allocate_lock)
    _last: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.loop = Loop("sidelight-keeper", self.run)
        self._wake.acquire()

    def run(self) -> None:
        """Keep house until told to stop."""
        while not self.loop.halting:
            try:
                self.step()
            except Exception:
                logger.exception("sidelight: the spool's keeper stumbled")
            self._wake.acquire(timeout=_ROUND)

    def poke(self) -> None:
        """Wake the keeper: a segment was used up."""
        with contextlib.suppress(RuntimeError):
            self._wake.release()

    def stop(self) -> None:
        """End after the current round."""
        self.loop.halt()
        self.poke()

    def step(self) -> None:
        """One round."""
        self.collect()
        if self.spool.full or self._due("measure", _MEASURE):
            self._measure()
        self.spool.provide()
        if self._due("sync", _SYNC):
            self.ledger()
            self._sync()
        if self._due("adopt", _ADOPT):
            self.spool.rescue()
            self.spool.adopt()
            self.spool.rotate_aged(_AGED)

    def collect(self) -> None:
        """Delete the segments that every sink has passed, also those that only their writer had."""
        for segment in (*self.spool.own, *self.spool.adopted):
            wanted = {*self.sinks, *segment.meta.get("sinks", ())}
            if segment.sealed and wanted <= segment.passed:
                self.spool.forget(segment)

    def _due(self, what: str, seconds: float) -> bool:
        now = time.monotonic()
        if now - self._last.get(what, 0.0) < seconds:
            return False
        self._last[what] = now
        return True

    def _sync(self) -> None:
        for segment in tuple(self.spool.adopted):
            if segment.live:
                segment.sync()
        for segment in tuple(self.spool.own):
            written = segment.tell()
            if segment.synced < written:
                segment.sync()
                segment.synced = written

    def _measure(self) -> None:
        """Hold the directory within its limit: telemetry goes first, then spans, then events."""
        limit = self.spool.limit
        used = self.spool.usage()
        for segment in (*self.spool.adopted, *self.spool.own):
            if used + SPARES * SMALLEST <= limit:
                break
            if segment.sealed and "store" in segment.passed:
                self.count("spool full: telemetry let go", str(segment.path))
                used -= segment.size
                self.spool.forget(segment)
        self.spool.full = used + SMALLEST > limit
        self.spans(used < _NEARLY * limit)
