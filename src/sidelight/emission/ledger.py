"""The ledger: the losses and costs of a process, written to the spool and to the log.

In the spool the ledger is a record of its own kind, which the relay delivers to the store. It is
cumulative, hence safe to deliver twice.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Final

from sidelight.emission.emitter import Emitter
from sidelight.exceptions import SpoolError
from sidelight.spool import RateLimiter, Spool

_logger: Final = logging.getLogger("sidelight")


class Ledger:
    """Writes losses and costs that have changed since it last wrote."""

    def __init__(self, emitter: Emitter) -> None:
        self._emitter = emitter
        self._written: tuple[int, ...] = ()
        self._logged: dict[str, int] = {}
        self._log_rate = RateLimiter()

    def restart(self) -> None:
        """Write everything again, because another spool was opened."""
        self._written = ()

    def write(self, spool: Spool, *, last: bool = False) -> None:
        """Write costs and losses to the spool where they have changed, and log the losses.

        Where the spool has no room, the next call tries again. The ``last`` call makes room.
        """
        state = (
            *(
                sum(costs.fine) + sum(costs.coarse.copy().values())
                for costs in self._emitter.costs.copy().values()  # callers add to both
            ),
            sum(self._emitter.losses.copy().values()),
        )
        if state != self._written:
            with contextlib.suppress(SpoolError, OSError):
                (spool.append_beyond_limit if last else spool.append)(self._emitter.ledger())
                self._written = state
        self._log_losses()

    def _log_losses(self) -> None:
        """Log the first loss of each reason at once, and later ones at most every ten seconds."""
        for reason, count in sorted(self._emitter.losses.copy().items()):
            before = self._logged.get(reason, 0)
            new = count - before if count >= before else count  # a forked child begins anew
            if new and self._log_rate.passes(reason):
                self._logged[reason] = count
                problem = self._emitter.problems.get(reason)
                _logger.warning("sidelight: %s, %d times (%s)", reason, new, problem)
