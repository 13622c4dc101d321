"""Combinations of dimensions that hold each pair of values."""

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


def each_nth(
    cases: Iterable[Any], n: int, turn: Any, turns: Iterable[Any], *, full: bool
) -> list[Any]:
    """Return each nth of generated cases; each turn begins with another case.

    Args:
        cases: all of them.
        n: prime to the sizes of the dimensions, so that each pair of values has its turn.
        turn: whose cases they are, such as a driver.
        turns: those who share the cases.
        full: return all cases.
    """
    turns = list(turns)
    return list(cases) if full else list(cases)[turns.index(turn) * n // len(turns) :: n]
