"""The ledger: what a process has lost and spent so far, told to the store and to the log.

Into the store it goes by way of the spool, as a record of its own kind: cumulative, hence safe to
deliver twice.
"""

from __future__ import annotations

import contextlib
import logging
import time
from typing import Final

from sidelight.emission.emitter import Emitter
from sidelight.exceptions import SpoolError
from sidelight.spool import Spool

_LOG_EVERY: Final = 10.0  # seconds between words about losses
_logger: Final = logging.getLogger("sidelight")


class Ledger:
    """Tells what has changed since it told last."""

    def __init__(self, emitter: Emitter) -> None:
        self._emitter = emitter
        self._told: tuple[int, ...] = ()
        self._logged: dict[str, tuple[int, float]] = {}

    def begin(self) -> None:
        """Tell everything anew: another spool knows nothing yet."""
        self._told = ()

    def write(self, spool: Spool, *, last: bool = False) -> None:
        """Put costs and losses into the spool where they have changed, and log the losses.

        Where there is no room for it, the next call tries again; the ``last`` one makes room.
        """
        state = (
            *(
                sum(costs.fine) + sum(costs.coarse.copy().values())
                for costs in self._emitter.costs.copy().values()  # callers add to both meanwhile
            ),
            sum(self._emitter.losses.copy().values()),
        )
        if state != self._told:
            with contextlib.suppress(SpoolError, OSError):
                (spool.append_last if last else spool.append)(self._emitter.ledger())
                self._told = state
        self._log_losses()

    def _log_losses(self) -> None:
        """Each reason at once, and what comes after that every ten seconds at the most."""
        now = time.monotonic()
        for reason, count in sorted(self._emitter.losses.copy().items()):
            before, at = self._logged.get(reason, (0, now - _LOG_EVERY))
            new = count - before if count >= before else count  # a forked child begins anew
            if new and now - at >= _LOG_EVERY:
                self._logged[reason] = count, now
                problem = self._emitter.problems.get(reason)
                _logger.warning("sidelight: %s, %d times (%s)", reason, new, problem)
