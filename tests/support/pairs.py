"""Combinations of three dimensions that hold each pair of values."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any


def each_pair(
    first: Iterable[Any], second: Iterable[Any], third: Sequence[Any], *, full: bool
) -> Iterator[tuple[Any, Any, Any]]:
    """Yield combinations of three values.

    Args:
        first, second: dimensions of at least as many values as the third one.
        third: the values take turns.
        full: yield all combinations.
    """
    for (i, a), (j, b) in itertools.product(enumerate(first), enumerate(second)):
        for c in third if full else [third[(i + j) % len(third)]]:
            yield a, b, c
