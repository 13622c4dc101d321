"""Failures that repeat: each is counted and logged at once, and then at a limited rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sidelight.exceptions import SpoolError
from sidelight.host import monotonic

_INTERVAL: Final = 10.0  # seconds


class RateLimiter:
    """Lets each key pass at once, and after that at most once in 10 seconds."""

    def __init__(self) -> None:
        self._closed_until: dict[str, float] = {}

    def passes(self, key: str) -> bool:
        """Return whether ``key`` may be logged or counted now; a True starts its next interval."""
        now = monotonic()
        if now < self._closed_until.get(key, 0.0):
            return False
        self._closed_until[key] = now + _INTERVAL
        return True


class FailureCounter:
    """Counts failures of the spool and the relay by reason, at a limited rate.

    The relay looks after the spool ten times a second. A disk that fails must neither fill the log
    nor stop the relay's other duties.
    """

    def __init__(self, count: Callable[[str, str], object]) -> None:
        self._count = count
        self._rate = RateLimiter()

    def count(self, reason: str, problem: str) -> bool:
        """Count a failure unless its reason was counted in the last 10 s; return whether it was."""
        if not self._rate.passes(reason):
            return False
        self._count(reason, problem)
        return True


def os_error_text(error: OSError) -> str:
    """Return the operating system's words for an error, as a part of a loss reason."""
    words = error.facts["problem"] if isinstance(error, SpoolError) else error.strerror
    return str(words or type(error).__name__)
