"""What goes wrong again and again is counted once in a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from sidelight.exceptions import SpoolError

_EVERY: Final = 10.0  # seconds


class Troubles:
    """Counts each reason at once, and when it lasts, every ten seconds.

    The relay looks after the spool ten times a second: a disk that fails must neither fill the log
    nor keep the rest of the round from being done.
    """

    def __init__(self, count: Callable[[str, str], object]) -> None:
        self._count = count
        self._until: dict[str, float] = {}

    def count(self, reason: str, problem: str) -> bool:
        """Count it, unless that was done just now; answers whether it was counted."""
        now = time.monotonic()
        if now < self._until.get(reason, 0.0):
            return False
        self._until[reason] = now + _EVERY
        self._count(reason, problem)
        return True


def why(error: OSError) -> str:
    """What the system says, as a part of a reason."""
    said = error.facts["problem"] if isinstance(error, SpoolError) else error.strerror
    return str(said or type(error).__name__)
