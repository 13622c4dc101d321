"""How much to write in one transaction: as much as it takes a given time for."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

_T = TypeVar("_T")
_LEAST: Final = 250
_USUAL: Final = 2_000
_MOST: Final = 10_000


class Pace:
    """Cuts batches into pieces, larger ones where these are soon done.

    The more events there are in a transaction, the fewer pages and rows are written for each. Only
    a store that does not finish what it gets is given less than usual, so that it may get on.

    Args:
        aim: seconds that a piece should take.
    """

    def __init__(self, aim: float) -> None:
        self._aim = aim
        self._size = _USUAL
        self._full = False
        self._begun = 0.0

    def pieces(self, records: Sequence[_T]) -> Iterator[Sequence[_T]]:
        """The pieces, each to be written within this context; of nothing, an empty one."""
        place = 0
        while place == 0 or place < len(records):
            size = self._size
            piece = records[place : place + size]
            self._full = len(piece) == size
            place += size
            yield piece

    def __enter__(self) -> None:
        self._begun = time.monotonic()

    def __exit__(self, kind: object, *_: object) -> None:
        spent = time.monotonic() - self._begun
        if kind is not None:
            self._size = max(_LEAST, self._size // 2)
        elif self._full and spent < self._aim / 2:
            self._size = min(_MOST, self._size * 2)
        elif spent > self._aim and self._size > _USUAL:
            self._size = max(_USUAL, self._size // 2)
