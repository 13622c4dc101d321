"""How many records one transaction writes: as many as fit into a given time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

from sidelight.host import monotonic

_T = TypeVar("_T")
_SMALLEST: Final = 250
_USUAL: Final = 2_000
_LARGEST: Final = 10_000


class BatchSizer:
    """Splits batches into pieces; doubles the size of a piece while a full one is written quickly.

    A large transaction writes fewer pages and rows per event. A piece becomes smaller than usual
    only after a transaction has failed, so that a store with a short timeout can make progress.

    Args:
        target: seconds that one piece should take.
    """

    def __init__(self, target: float) -> None:
        self._target = target
        self._size = _USUAL
        self._is_full = False
        self._began = 0.0

    def split(self, records: Sequence[_T]) -> Iterator[Sequence[_T]]:
        """Yield the pieces; write each within this context. An empty batch is one empty piece."""
        start = 0
        while start == 0 or start < len(records):
            size = self._size
            piece = records[start : start + size]
            self._is_full = len(piece) == size
            start += size
            yield piece

    def __enter__(self) -> None:
        self._began = monotonic()

    def __exit__(self, kind: object, *_: object) -> None:
        seconds = monotonic() - self._began
        if kind is not None:
            self._size = max(_SMALLEST, self._size // 2)
        elif self._is_full and seconds < self._target / 2:
            self._size = min(_LARGEST, self._size * 2)
        elif seconds > self._target and self._size > _USUAL:
            self._size = max(_USUAL, self._size // 2)
