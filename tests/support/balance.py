"""The balance of a fault: acknowledged = stored + counted as lost, by the events' identities.

Every row of the table of faults has one. `tests.support.programs.judge` makes it of programs,
`tests.support.receipts.judge_receipts` of receipts, `balance` of any other identities.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Balance:
    """What became of the events that were acknowledged.

    Attributes:
        acknowledged: events whose emission has returned, also with the receipt `lost`.
        stored: those of them that the sink has.
        counted: those that the losses count.
        twice: events that the sink has more than once.
        beside: events in the sink that were not acknowledged: their program was killed before.
        missing: some of those that the sink has not.
        is_repeated: whether the sink takes events at least once.
    """

    acknowledged: int
    stored: int
    counted: int
    twice: int
    beside: int
    missing: Sequence[object]
    is_repeated: bool = False

    @property
    def lost(self) -> int:
        """The events that are neither stored nor counted; below 0 where too many are counted."""
        return self.acknowledged - self.stored - self.counted

    def check(self) -> None:
        """Check that acknowledged = stored + counted as lost, each event once."""
        assert not self.lost, (
            f"acknowledged {self.acknowledged}, stored {self.stored}, counted {self.counted};"
            f" not stored: {self.missing}"
        )
        assert self.is_repeated or not self.twice, f"{self.twice} are stored twice"


def balance(
    acknowledged: Iterable[Hashable],
    stored: Iterable[Hashable],
    *,
    counted: int = 0,
    is_repeated: bool = False,
) -> Balance:
    """Compare identities: each stands for one event each time that it comes.

    Args:
        acknowledged: of the events whose emission has returned.
        stored: of the events that the sink has.
        counted: how many events the losses count.
        is_repeated: whether the sink takes events at least once.
    """
    wanted, found = Counter(acknowledged), Counter(stored)
    missing = wanted - found
    return Balance(
        wanted.total(),
        (wanted & found).total(),
        counted,
        (Counter({key: found[key] for key in wanted}) - wanted).total(),
        sum(times for key, times in found.items() if key not in wanted),
        sorted(missing, key=str)[:10],
        is_repeated,
    )
