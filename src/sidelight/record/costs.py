"""Histograms of what each point costs on the caller's path; every emission is counted.

Up to 65 µs the buckets are 64 ns wide, so that counting is one shift and one addition. Above that
there are eight buckets to the octave.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import repeat
from typing import Annotated, Any, Final, TypeAlias, TypedDict

import msgspec

BUDGET_NS: Final = 10_000_000
"""The budget of one emission: 10 ms."""
SHIFT: Final = 6
_FINE: Final = 1024
_FINE_END: Final = _FINE << SHIFT
_STEPS: Final = 8
_LAST: Final = 2 * _FINE  # more buckets than any time needs
Bucket: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=_LAST)]
"""The number of a bucket."""


class Costs:
    """The costs of one point in this process (ns).

    The caller's path does ``costs.fine[ns >> SHIFT] += 1`` and, on IndexError, ``costs.add(ns)``.
    Both are exact among threads, because CPython switches threads only at calls and at jumps back.
    A point that is never called has no fine buckets, which would take 8 kB; nor has one whose
    functions are gone.
    """

    def __init__(self) -> None:
        self.fine: list[int] = []
        self._zeros = repeat(0, _FINE)  # a shared one-shot iterator: one thread's extend takes all
        self.coarse: defaultdict[int, int] = defaultdict(int)
        self.over_budget = 0
        self.highest = 0

    def add(self, ns: int) -> None:
        """Count a cost (ns) that the fine buckets may not hold."""
        if 0 <= ns < _FINE_END:
            self.fine.extend(self._zeros)
            try:
                self.fine[ns >> SHIFT] += 1
            except IndexError:  # `compact` came in between
                self.coarse[ns >> SHIFT] += 1
            return
        bucket = _FINE + int(math.log2(max(ns, _FINE_END) / _FINE_END) * _STEPS)
        self.coarse[bucket] += 1
        self.highest = max(self.highest, ns)
        self.over_budget += ns > BUDGET_NS

    def compact(self) -> None:
        """Move the counts out of the fine buckets where no code refers to these any more.

        A later call of the point makes new ones. Code that another thread makes meanwhile may refer
        to either list: the one that it does not share with this object is left empty, and such code
        counts by `add`, which is slower.
        """
        new: list[int] = []
        fine, zeros = self.fine, self._zeros
        own = sys.getrefcount(new)
        if not fine or sys.getrefcount(fine) > own + 1:
            return
        self.fine, self._zeros = new, repeat(0, _FINE)
        if sys.getrefcount(fine) > own:
            self.fine, self._zeros, fine = fine, zeros, new
        # In one statement without a call, so that no thread counts in between.
        counts, fine[:] = fine[:], []
        for index, count in enumerate(counts):
            if count:
                self.coarse[index] += count

    def count(self) -> int:
        """Return the number of emissions so far."""
        if self is NO_COSTS:
            return 0
        return sum(self.fine) + sum(self.coarse.copy().values())

    def clear(self) -> None:
        """Reset in place, because the generated wrappers refer to the buckets."""
        self.fine[:] = [0] * len(self.fine)
        self.coarse.clear()
        self.over_budget = self.highest = 0

    def snapshot(self) -> dict[str, Any]:
        """Copy the state as plain values; it is cumulative, so that the latest one replaces all."""
        found = self.coarse.copy()
        for index, count in enumerate(self.fine):
            if count:
                found[index] += count
        buckets = dict(sorted(found.items()))
        highest = self.highest or ((max(buckets) + 1 << SHIFT) if buckets else 0)
        return {
            "count": sum(buckets.values()),
            "over": self.over_budget,
            "max": highest,
            "buckets": [[index, count] for index, count in buckets.items()],
        }


class _Snapshot(TypedDict):
    over: int
    max: int
    buckets: list[tuple[Bucket, int]]


NO_COSTS: Final = Costs()
"""The histogram of each point that has not been called; nothing is counted in it."""


def read_snapshot(text: str) -> Mapping[str, Any]:
    """Read a snapshot from JSON.

    Raises:
        msgspec.DecodeError: the text is no snapshot.
    """
    snapshot: Mapping[str, Any] = msgspec.json.decode(text, type=_Snapshot)
    return snapshot


def _upper_bound(bucket: int) -> int:
    if bucket < _FINE:
        return (bucket + 1) << SHIFT
    return int(_FINE_END * 2 ** ((bucket - _FINE + 1) / _STEPS))


COLUMNS: Final = 18
"""Columns of `CostSummary.histogram`."""


def _column(ns: int) -> int:
    return min(max(math.ceil(4 * math.log10(max(ns, 1) / 1000)), 0), COLUMNS - 1)


class CostSummary(msgspec.Struct, frozen=True):
    """The costs of one point on the caller's path (ns), as upper bounds of their buckets.

    Attributes:
        count: how many emissions were measured.
        over_budget: how many of them took more than `BUDGET_NS`.
        histogram: how many took up to 1 µs, up to 1.8 µs and so on, four columns to the decade; the
            last but one ends at 10 ms, and the last holds all that took longer.
    """

    point: str
    count: int
    p50: int
    p99: int
    p999: int
    max: int
    over_budget: int
    histogram: list[int] = []

    @classmethod
    def of(cls, point: str, snapshots: Iterable[Mapping[str, Any]]) -> CostSummary:
        """Merge the snapshots of several processes."""
        merged: dict[int, int] = {}
        highest = over = 0
        for snapshot in snapshots:
            highest = max(highest, snapshot["max"])
            over += snapshot["over"]
            for bucket, count in snapshot["buckets"]:
                merged[bucket] = merged.get(bucket, 0) + count
        total = sum(merged.values())
        histogram = [0] * COLUMNS
        for bucket, count in merged.items():
            histogram[_column(min(_upper_bound(bucket), highest))] += count
        # A bucket may hold costs on both sides of the budget, and a snapshot has its parts one
        # after the other.
        histogram[-2] = max(histogram[-2] + histogram[-1] - over, 0)
        histogram[-1] = over

        def quantile(share: float) -> int:
            seen = 0
            for bucket in sorted(merged):
                seen += merged[bucket]
                if seen >= share * total:
                    return min(_upper_bound(bucket), highest)
            return 0

        p50, p99, p999 = map(quantile, (0.5, 0.99, 0.999))
        return cls(point, total, p50, p99, p999, highest, over, histogram)
