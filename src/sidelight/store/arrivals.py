"""Find what relays have stored since the last look."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import func, select

from sidelight.store.schema import events
from sidelight.store.selection import Read

_OVERLAP: Final = 30_000_000_000  # ns: longest transaction of a relay, and difference of clocks


class Arrivals:
    """Finds new transactions of relays; the rows of one transaction have the same ``recorded_at``.

    A relay chooses ``recorded_at`` before it commits, so that a later one may become visible before
    an earlier one. Each query therefore goes back by the longest duration of a transaction, and
    `Arrivals` remembers the transactions that it has returned.
    """

    def __init__(self) -> None:
        self._newest: int | None = None
        self._seen: set[int] = set()

    def new(self, read: Read) -> list[int]:
        """Return the transactions that are new since the last call, in their order."""
        column = events.c.recorded_at
        if self._newest is None:
            horizon: Any = select(func.max(column) - _OVERLAP).scalar_subquery()
        else:
            horizon = self._newest - _OVERLAP
        rows = read(select(column).where(column >= horizon).distinct())
        new = sorted({row.recorded_at for row in rows} - self._seen)
        if new or self._newest is None:
            self._newest = max(self._newest or 0, *new[-1:], 0)
            self._seen = {at for at in (*self._seen, *new) if not self._is_past(at)}
        return new

    def includes(self, recorded_at: int) -> bool:
        """Return whether the last call, or one before it, has seen this transaction."""
        return recorded_at in self._seen or self._is_past(recorded_at)

    def _is_past(self, recorded_at: int) -> bool:
        return recorded_at < (self._newest or 0) - _OVERLAP
