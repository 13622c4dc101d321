"""The ledger: the losses and costs of a process, written to the spool and to the log.

In the spool the ledger is a series of records of its own kind, which the relay delivers to the
store. Losses come first. Only entries that have changed are written again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

from sidelight.emission.emitter import LOST, Emitter
from sidelight.exceptions import SpoolError
from sidelight.host import log_warning, monotonic
from sidelight.record import encode, ledger_frame, random_bits, text
from sidelight.spool import Position, RateLimiter, Rescue, Spool

#: Bytes of one part. A part must fit into a record, and several hundred busy points must not fill
#: the spool with costs: an unhurried write is one part of costs.
_PART: Final = 64 * 1024
_SMALL_PART: Final = 1024  # at the end there may be room for four thousand only
LOST_AT_EXIT: Final = "lost at exit"
"""The reason for records that the process had in memory at its end; a sink's name follows."""
SIGN_OF_LIFE: Final = 5.0
"""Seconds between two signs of life of a process that emits."""
_IDLE_SIGN: Final = 20.0  # … of one that emits nothing: the pause doubles up to this
_AT_ONCE: Final = 500  # points of an unhurried look, besides those that changed at the last one
_OWN: Final = "sidelight:"  # points of sidelight itself, for example `sidelight.emit`


class Ledger:
    """Writes losses and costs that have changed since it last wrote them."""

    def __init__(self, emitter: Emitter) -> None:
        self._emitter = emitter
        self._losses: dict[str, int] = {}
        self._costs: dict[str, tuple[int, int]] = {}  # by point: the count, and when written
        self._turn = 0
        self._logged: dict[str, int] = {}
        self._log_rate = RateLimiter()
        self._points: list[str] = []
        self._active: list[str] = []
        self._looked_up_to = 0
        self._has_called = False
        self._lost = 0
        self._began = 0
        self._signed_at = -_IDLE_SIGN
        self._sign_pause = SIGN_OF_LIFE
        self._signed: Position | None = None
        self._has_ended = False

    def renewed(self) -> Ledger:
        """Return a ledger that writes everything again, for another spool that was opened.

        What was logged, and told to `flush`, is not repeated. A relay that is still at work on the
        spool before keeps this ledger.
        """
        new = Ledger(self._emitter)
        new._logged, new._log_rate, new._lost = self._logged, self._log_rate, self._lost
        new._began = time.time_ns()
        return new

    def take_lost(self) -> int:
        """Return how many events were lost on their caller's path since the last call."""
        before, self._lost = self._lost, sum(self._emitter.losses.get(each, 0) for each in LOST)
        return self._lost - before if self._lost >= before else self._lost  # forked meanwhile

    def write(
        self, spool: Spool, *, whole: bool = True, last: bool = False, ended: bool = False
    ) -> None:
        """Write losses and costs to the spool where they have changed, and log the losses.

        Where the spool has no room, the next call tries again.

        Args:
            spool: takes the parts.
            whole: write all costs. Otherwise at most one part of them, those first that were
                written longest ago.
            last: make room beyond the limit of the spool.
            ended: tell that the process writes nothing after this.
        """
        append = spool.append_beyond_limit if last else spool.append
        with contextlib.suppress(SpoolError, OSError):
            self._write_losses(append)
            self._write_costs(append, whole=whole)
            self._write_sign_of_life(append, spool.position, ended=ended)
        self._log_losses()

    def write_lost(self, rescue: Rescue, lost: Mapping[str, int]) -> None:
        """Count what an ending process could not bring to a file, and write all losses once more.

        Earlier parts may be among what is lost, and so may be the sign of the end.

        Args:
            rescue: takes the parts, as far as it has room for them.
            lost: the number of records, by sink.
        """
        for sink, count in lost.items():
            if not count:
                continue
            self._emitter.losses[f"{LOST_AT_EXIT}: {sink}"] += count
            self._emitter.problems[f"{LOST_AT_EXIT}: {sink}"] = rescue.cause
        self._losses = {}
        with contextlib.suppress(OSError):
            self._write_losses(rescue.append, size=_SMALL_PART)
            if self._has_ended:
                _append(rescue.append, {"began": self._began, "ended": True})
        self._losses = {}  # another spool may be open
        self._log_losses()

    def _write_sign_of_life(
        self, append: Callable[[bytes], object], position: Callable[[], Position], *, ended: bool
    ) -> None:
        """Tell that the process lives, or ends.

        The store thereby learns how far the delivery of this process is, although the process may
        emit nothing. Each sign is a transaction of the store. So an idle process writes fewer.
        """
        if self._has_ended:  # a record more would stay in the spool
            return
        if position() != self._signed:
            self._sign_pause = SIGN_OF_LIFE
        if ended or monotonic() - self._signed_at >= self._sign_pause:
            _append(append, {"began": self._began, "ended": ended})
            self._signed_at, self._signed = monotonic(), position()
            self._sign_pause = min(2 * self._sign_pause, _IDLE_SIGN)
            self._has_ended = ended

    def _write_losses(self, append: Callable[[bytes], object], size: int = _PART) -> None:
        losses = self._emitter.losses.copy()
        problems = self._emitter.problems.copy()
        changed = [reason for reason, count in losses.items() if self._losses.get(reason) != count]
        changed.sort(key=lambda reason: not reason.startswith(LOST_AT_EXIT))
        for part in _parts(((each, text(problems.get(each, ""))) for each in changed), size):
            counts = {reason: losses[reason] for reason in part}
            _append(append, {"losses": counts, "problems": part})
            self._losses |= counts

    def _write_costs(self, append: Callable[[bytes], object], *, whole: bool) -> None:
        costs, written = self._emitter.costs, self._costs
        looked_at = costs.copy() if whole else self._next()
        counts = {
            point: found.count()
            for point in looked_at
            if (found := costs.get(point)) is not None  # a test may have replaced all
        }
        self._has_called |= any(counts.values())
        if not self._has_called:
            return
        called = [point for point, count in counts.items() if count and point not in written]
        old = [
            point
            for point, count in counts.items()
            if point in written and written[point][0] != count
        ]
        for point, count in counts.items():
            if point in written and written[point][0] == count:
                costs[point].compact()
        old.sort(key=lambda point: written[point][1])  # the one written longest ago first
        uncalled = [
            point
            for point, count in counts.items()
            if not count and point not in written and not point.startswith(_OWN)
        ]
        parts = _parts((point, costs[point].snapshot()) for point in (*called, *old, *uncalled))
        self._active = [*called, *old]
        for part in parts if whole else islice(parts, 1):
            _append(append, {"costs": part})
            self._turn += 1
            for point in part:
                written[point] = counts[point], self._turn

    def _next(self) -> dict[str, None]:
        """Return the points to look at: those changed at the last look, and some others."""
        if len(self._points) != len(self._emitter.costs):
            self._points = [*self._emitter.costs.copy()]
        begin = self._looked_up_to if self._looked_up_to < len(self._points) else 0
        self._looked_up_to = begin + _AT_ONCE
        return dict.fromkeys((*self._active, *self._points[begin : self._looked_up_to]))

    def _log_losses(self) -> None:
        """Log the first loss of each reason at once, and later ones at most every ten seconds."""
        for reason, count in sorted(self._emitter.losses.copy().items()):
            before = self._logged.get(reason, 0)
            new = count - before if count >= before else count  # a forked child begins anew
            if new and self._log_rate.passes(reason):
                self._logged[reason] = count
                problem = self._emitter.problems.get(reason)
                cause = f" ({problem})" if problem else ""
                how_often = "once" if new == 1 else f"{new} times"
                log_warning("sidelight: %s, %s%s", reason, how_often, cause)


def _append(append: Callable[[bytes], object], content: dict[str, Any]) -> None:
    append(ledger_frame(content, time.time_ns(), random_bits(64)))


def _parts(entries: Iterator[tuple[str, Any]], most: int = _PART) -> Iterator[dict[str, Any]]:
    """Group entries into parts of at most ``most`` bytes; leave out one that is larger alone."""
    part: dict[str, Any] = {}
    size = 0
    for key, value in entries:
        if (added := len(encode((key, value)))) > most:
            continue
        if size + added > most:
            yield part
            part, size = {}, 0
        part[key] = value
        size += added
    if part:
        yield part
