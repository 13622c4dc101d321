"""The keys of the tables: ids that fit into an index, ids as positions in time, and days."""

from __future__ import annotations

import functools
import time
from typing import Final

from sidelight.record import event_id

NO_ORGANIZATION: Final = ""
"""In counters: events without an organization, because a key cannot be NULL."""
DAY: Final = 86_400_000_000_000
"""One day in nanoseconds."""
MAX_KEY: Final = 512  # bytes: a row of a PostgreSQL index holds no more than 2,704 bytes


def first_key(ns: int) -> str:
    """Return the smallest id of an event that occurs at this time."""
    return event_id(ns, 0)


def fit_to_index(key: str) -> str:
    """Make an id or a name fit into an index: without NUL, at most `MAX_KEY` bytes.

    A longer one ends in a digest of the whole text, so that it stays unique.
    """
    if "\0" in key:
        key = key.replace("\0", "␀")
    if len(key) * 4 > MAX_KEY and len(encoded := key.encode()) > MAX_KEY:
        from hashlib import blake2b  # noqa: PLC0415  # slow to import, seldom needed

        digest = blake2b(encoded, digest_size=16).hexdigest()
        return f"{encoded[: MAX_KEY - 40].decode(errors='ignore')}…{digest}"
    return key


@functools.lru_cache(maxsize=64)
def _day_text(day: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(day * 86_400))


def day_text(occurred_ns: int) -> str:
    """Return the day (UTC) that an event is counted under: ``2026-07-25``."""
    return _day_text(occurred_ns // DAY)
