"""From nanoseconds to what a table says of them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from benchmarks.timing import Samples

BUDGET_NS: Final = 10_000_000
"""The budget of one emission."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Microseconds; quantiles that too few calls support are None."""

    calls: int
    p50: float
    p99: float | None
    p999: float | None
    max: float
    over: int

    @property
    def share_over(self) -> float:
        """Share of the calls that took more than the budget."""
        return self.over / self.calls

    @classmethod
    def of(cls, nanoseconds: Iterable[int]) -> Summary:
        """Summarize."""
        ordered = sorted(nanoseconds)
        return cls(
            len(ordered),
            quantile(ordered, 0.5) / 1e3,
            quantile(ordered, 0.99) / 1e3 if len(ordered) >= 100 else None,
            quantile(ordered, 0.999) / 1e3 if len(ordered) >= 1000 else None,
            ordered[-1] / 1e3,
            sum(value > BUDGET_NS for value in ordered),
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "share_over": self.share_over}


def quantile(ordered: Sequence[int], share: float) -> int:
    """The value that ``share`` of the ordered values do not exceed."""
    return ordered[max(0, min(len(ordered), -int(-share * len(ordered) // 1)) - 1)]


class Measured:
    """The rounds of one subject under one condition."""

    def __init__(self) -> None:
        self.rounds: list[Samples] = []

    def summary(self) -> Summary:
        """All rounds together."""
        return Summary.of(value for samples in self.rounds for value in samples.calls)

    def control(self) -> Summary:
        """The controls of all rounds together."""
        return Summary.of(value for samples in self.rounds for value in samples.control)

    def stored(self) -> float | None:
        """The share of the calls that returned with their event in the store; None: not asked."""
        counts = [samples.stored for samples in self.rounds if samples.stored is not None]
        calls = sum(len(samples.calls) for samples in self.rounds)
        return sum(counts) / calls if counts else None

    def ratio_to(self, other: Measured) -> float:
        """Median of the ratios of the p50 of rounds that were measured one after the other."""
        pairs = zip(self.rounds, other.rounds, strict=True)
        return statistics.median(
            statistics.median(mine.calls) / statistics.median(theirs.calls)
            for mine, theirs in pairs
        )
