"""The housekeeping thread: allocates, syncs, adopts and deletes segments.

A duty that fails is counted, and does not stop the other duties.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from sidelight.host import Loop, log_failure, monotonic
from sidelight.spool import (
    SMALLEST,
    SPARES,
    Segment,
    Spool,
    acknowledging_sink,
    os_error_text,
)

_ROUND: Final = 0.1  # seconds between two rounds
_COPIES: Final = 4  # of hot segments, in a round: a crash of the machine takes no more than 50 ms
_SYNC: Final = 0.5  # seconds between two fdatasyncs: a power loss takes no more than that
_ADOPT: Final = 2.0  # seconds between two searches for orphaned segments
_ADOPT_REST: Final = 50  # times as long as the last search took; several hundred processes search
_MEASURE: Final = 0.5  # seconds between two measurements of the directory
_AGED: Final = 600.0  # seconds after which a segment is replaced
_FREE: Final = 1 / 8  # of the limit; telemetry is deleted to keep so much free
_NEARLY_FULL: Final = 0.9  # of the limit; from here on events are written without their spans


class Housekeeping(msgspec.Struct, eq=False, dict=True):
    """Looks after the segments.

    Attributes:
        spool: the segments.
        sinks: names of the sinks that this process delivers to.
        ledger: writes costs and losses into the spool.
        count: counts a loss by reason.
        spans: gets whether events may carry their spans.
        ending: the thread will not start again; it deletes delivered segments when it ends.
        loop: the thread.
    """

    spool: Spool
    sinks: Sequence[str]
    ledger: Callable[[], None]
    count: Callable[[str, str], None]
    spans: Callable[[bool], None]
    ending: bool = False
    _has_hot: bool = False
    _adopt_pause: float = _ADOPT
    _last: dict[str, float] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        self.loop = Loop("sidelight-housekeeping", self.run)

    def run(self) -> None:
        """Do one round after the other until told to stop."""
        while not self.loop.halting:
            self.step()
            self._pause()
        if self.ending:
            self.finish()

    def _pause(self) -> None:
        """Pause until the next round, or until woken; copy hot segments to the disk meanwhile."""
        pauses = _COPIES if self._has_hot else 1
        for _ in range(pauses):
            if self.loop.pause(_ROUND / pauses):
                return
            if pauses > 1:
                self._do(self._copy_hot)

    def _copy_hot(self) -> None:
        self._has_hot = self.spool.copy_hot()

    def finish(self) -> None:
        """Write the ledger and delete delivered segments; the last act, after the sinks' own."""
        self._do(self.ledger)
        self._do(lambda: self.spool.finish(self.sinks))

    def step(self) -> None:
        """Do one round."""
        self._do(self.spool.replace_lost_segment)
        self._do(self._copy_hot)
        self.collect()
        if self._needs_room() or self._is_due("measure", _MEASURE):
            self._do(self._enforce_limit)
        self._do(self.spool.provide)
        if self._is_due("sync", _SYNC):
            self._do(self.ledger)
            self.sync()
        if self._is_due("adopt", self._adopt_pause):
            began = monotonic()
            self._do(self.spool.adopt)
            self._adopt_pause = max(_ADOPT, _ADOPT_REST * (monotonic() - began))
            self._do(lambda: self.spool.rotate_aged(_AGED))

    def collect(self) -> None:
        """Delete delivered segments, and open waiting orphans in their place."""
        self._do(lambda: self.spool.discard(self.spool.delivered(self.sinks)))
        self._do(lambda: self.spool.adopted.release(self.sinks))
        self._do(self.spool.adopted.fill)

    def sync(self) -> None:
        """Make the segments and their names survive a power loss."""
        self._sync(self.spool.names.sync)
        for segment in (*self.spool.adopted, *self.spool.own):
            if not self._sync(segment.sync):
                self._rotate_off(segment)

    def _sync(self, sync: Callable[[], None]) -> bool:
        """Sync; return False at a failure, unless that was told in the last 10 s."""
        try:
            sync()
        except OSError as error:
            cause = os_error_text(error)
            return not self.spool.failures.count(f"not power-safe: {cause}", str(error))
        return True

    def _rotate_off(self, segment: Segment) -> None:
        """Rotate off a segment whose fdatasync failed, because the kernel may drop its pages."""
        if segment.mapping is not None and not segment.sealed:
            self._do(lambda: self.spool.rotate(segment))

    def _do(self, duty: Callable[[], object]) -> None:
        try:
            duty()
        except OSError as error:
            cause = os_error_text(error)
            self.spool.failures.count(f"housekeeping failed: {cause}", str(error))
        except Exception as error:  # noqa: BLE001  # logged
            cause = type(error).__name__
            if self.spool.failures.count(f"housekeeping failed: {cause}", repr(error)):
                log_failure("sidelight: the spool's housekeeping failed, and tries again")

    def _is_due(self, duty: str, seconds: float) -> bool:
        now = monotonic()
        if now - self._last.get(duty, 0.0) < seconds:
            return False
        self._last[duty] = now
        return True

    def _needs_room(self) -> bool:
        """Return whether a segment is about to be allocated."""
        supply = self.spool.supply
        return supply.full or len(supply.spares) < supply.wanted(self.spool.own)

    def _enforce_limit(self) -> None:
        """Keep the directory within its limit: delete telemetry, then drop spans, then events.

        Telemetry is deleted while there is still room, because a slow disk may delay this thread.
        """
        limit = self.spool.supply.limit
        most = limit - max(SPARES * SMALLEST, limit * _FREE)
        used = self.spool.usage()
        if used > most:
            self.spool.adopted.reopen_stored()
        for segment in (*self.spool.adopted, *self.spool.own):
            if used <= most:
                break
            sinks = segment.meta.get("sinks", ())
            if segment.sealed and acknowledging_sink(sinks) in segment.delivered_to:
                self.spool.sync_sinks()  # a failure changes nothing: else new events are lost
                self.spool.delete(segment)
                missing = {*self.sinks, *sinks} - segment.delivered_to
                if missing & {"stream"}:
                    self.count("spool full: stream let go", str(segment.path))
                if missing - {"stream"}:
                    self.count("spool full: telemetry let go", str(segment.path))
                used -= segment.size
        self.spool.supply.full = used + SMALLEST > limit
        self.spans(used < _NEARLY_FULL * limit)
