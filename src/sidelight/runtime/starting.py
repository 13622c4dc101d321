"""The relay is made and started in a thread of its own, because its libraries take long to import.

The caller's thread only starts that thread: an exception from outside cannot interrupt the start
of a relay halfway.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from sidelight.emission import EMITTER
from sidelight.host import Loop, log_detail, log_failure, log_warning
from sidelight.settings import Settings
from sidelight.spool import Spool

if TYPE_CHECKING:
    from sidelight.relay import Relay

_RETRY_AFTER: Final = 0.5  # s; the first back-off of a relay that cannot start
_LONGEST_BACK_OFF: Final = 30.0  # s


class Starter:
    """Starts the relay of a process; where it cannot start, retries with back-off.

    Attributes:
        loop: the thread, which ends when the relay has started.
    """

    def __init__(self, attempt: Callable[[], bool], is_ending: Callable[[], bool]) -> None:
        """Make a starter.

        Args:
            attempt: starts the relay; returns whether nothing is left to do.
            is_ending: whether the process ends, where nothing can be imported.
        """
        self._attempt = attempt
        self._is_ending = is_ending
        self.loop = Loop("", self._run)

    def start(self) -> None:
        """Let the relay be started, unless a thread is at it."""
        try:
            self.loop.start()
        except RuntimeError as error:
            log_no_thread(error, is_ending=self._is_ending())

    def await_attempt(self, until: float) -> bool:
        """Try no more; wait for the present attempt, at most until this time of `monotonic`."""
        self.loop.stop()
        return self.loop.join(until)

    def _run(self) -> None:
        pause, is_first = _RETRY_AFTER, True
        while True:
            try:
                if self._attempt():
                    return
            except Exception:  # noqa: BLE001  # too many open files, for one
                if is_first and not self._is_ending():
                    log_failure("sidelight: the relay cannot start; events stay in the spool")
            if self.loop.halting:
                return
            self.loop.pause(pause)
            pause, is_first = min(2 * pause, _LONGEST_BACK_OFF), False


def relay_of(settings: Settings, spool: Spool, ledger: Callable[[], None]) -> Relay:
    """Make the relay of a spool; imports its libraries.

    Args:
        settings: of this process.
        spool: the source.
        ledger: writes costs and losses into the spool.
    """
    from sidelight.relay import Relay  # noqa: PLC0415
    from sidelight.runtime.outboxes import outboxes_of  # noqa: PLC0415
    from sidelight.runtime.sinks import sinks_of  # noqa: PLC0415

    return Relay(
        spool,
        sinks_of(settings, EMITTER.count),
        EMITTER.watermark,
        ledger=ledger,
        count=EMITTER.count,
        spans=partial(setattr, EMITTER, "spans"),
        outboxes=outboxes_of(settings, spool.meta, EMITTER.count),
    )


def log_no_thread(error: RuntimeError, *, is_ending: bool) -> None:
    """Log that no thread can be started; at the end of a process that is no news."""
    log = log_detail if is_ending or "shutdown" in str(error) else log_warning
    log("sidelight: the relay cannot start a thread (%s); events stay in the spool", error)
