"""Durations as people write them: ``500ms``, ``90s``, ``15m``, ``2h``, ``7d``, ``1.5w``."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, Final

_DURATION: Final = r"(\d{1,9}(?:\.\d{1,9})?) ?(ms|s|min|m|h|d|w)"
_UNITS: Final = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "min": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}


def parse_duration(text: str) -> timedelta | None:
    """Read a duration; None where the text is none.

    Args:
        text: a number and a unit: ms, s, m (or min), h, d, w.
    """
    found = re.fullmatch(_DURATION, text.strip())
    return float(found[1]) * _UNITS[found[2]] if found else None


def checked_duration(value: Any) -> timedelta:
    """Take a duration that a file or a call gives, as text or as a timedelta.

    Raises:
        ValueError: it is none, or not longer than nothing; the error names the remedy.
    """
    found = parse_duration(value) if isinstance(value, str) else value
    if not isinstance(found, timedelta) or found <= timedelta(0):
        raise ValueError(f"{value!r} is no duration; write 90s, 10m, 2h or 7d")
    return found
