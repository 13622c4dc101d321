"""The budget: 10 ms per emission, independent of the state of the store.

A machine with other work interrupts every program for longer than 10 ms now and then. Therefore the
check compares the share of emissions over 10 ms with the share of their controls.

A control is shorter than an emission, so an interruption meets it less often. Where a check comes
out above, plain Python code that takes as long as an emission is measured in its place: if that is
above as well, the machine is too noisy, and the report says so instead of failing the subject.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from benchmarks import ours
from benchmarks.houses import Address, opened
from benchmarks.scenarios import BESIDE_THREE, PAUSING, TIGHT, Condition
from benchmarks.stats import Measured, Summary
from benchmarks.timing import Order

ALLOWED: Final = 0.0005
"""The share of the emissions over the budget, less the control's share."""
_PATIENCE: Final = 2
_SCHEDULED: Final = ours.title("scheduled")
_AWAITED: Final = ours.title("awaited")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold.

    Attributes:
        store: what is the matter with the store.
        subject: what emits.
        condition: the caller's circumstances.
        emissions: at least so many, unless `seconds` end it before.
    """

    store: ours.Store
    subject: str
    condition: Condition
    emissions: int
    seconds: float = 120.0

    def order(self, subject: str) -> Order:
        """Measure a subject in these circumstances."""
        return Order(
            subject=subject,
            calls=self.emissions,
            pausing=self.condition.pausing,
            threads=self.condition.threads,
            seconds=self.seconds,
        )

    def __str__(self) -> str:
        return f"{self.subject}, store {self.store}: {self.condition}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a check came out, by everything that was measured for it."""

    check: Check
    emissions: Summary
    control: Summary
    noise: float | None = None
    """The excess of plain code of the same length; None where that was not needed."""

    @property
    def excess(self) -> float:
        """The share over 10 ms above the control's."""
        return self.emissions.share_over - self.control.share_over

    @property
    def kept(self) -> bool:
        """Whether the excess is within what is allowed."""
        return self.excess <= ALLOWED

    @property
    def word(self) -> str:
        """The verdict."""
        if self.kept:
            return "kept"
        return "BROKEN" if self.broken else f"noisy: plain code {self.noise:+.3%}"

    @property
    def broken(self) -> bool:
        """Whether it is not kept, and the machine is not to blame."""
        return not self.kept and (self.noise is None or self.noise <= ALLOWED)

    @property
    def surely_broken(self) -> bool:
        """Whether it is so far above that chance does not explain it (three deviations)."""
        allowed = ALLOWED * self.emissions.calls + self.control.over
        return self.broken and self.emissions.over > allowed + 3 * math.sqrt(allowed + 1) + 1


def full() -> list[Check]:
    """Every state of the store, tight and pausing, alone and beside busy threads.

    Awaited emissions are as many as some seconds hold: each may take most of its deadline.
    """
    beside = Condition(pausing=False, threads=3)
    checks = []
    for store in ours.STORES:
        checks += [
            Check(store, _AWAITED, TIGHT, 100_000, seconds=15),
            Check(store, _SCHEDULED, TIGHT, 100_000),
            Check(store, _SCHEDULED, beside, 100_000),
        ]
    checks += [Check(store, _SCHEDULED, BESIDE_THREE, 1500) for store in ours.STORES[:3]]
    beside_one = Condition(pausing=True, threads=1)
    checks += [Check("working", _AWAITED, c, 1500, seconds=30) for c in (beside_one, BESIDE_THREE)]
    return checks


def smoke() -> list[Check]:
    """The least that says something, in seconds."""
    quiet = PAUSING
    checks = [Check(store, _SCHEDULED, TIGHT, 100_000) for store in ours.STORES[:3]]
    checks.append(Check("frozen", _AWAITED, TIGHT, 100_000, seconds=1))
    return [*checks, Check("working", _SCHEDULED, quiet, 1500)]


def judge(checks: Sequence[Check], tell: Callable[[str], None]) -> Iterator[Verdict]:
    """Measure and judge. What comes out above is measured on, and judged by all of it."""
    stores: dict[str, Address] = {check.store: ours.address(store=check.store) for check in checks}
    with opened(stores) as tenancies:
        for check in checks:
            tenancy = tenancies[check.store]
            if tenancy.absent:
                raise RuntimeError(f"store {check.store}: {tenancy.absent}")
            measured = Measured()
            for attempt in range(1 + _PATIENCE):
                tell(f"budget: {check}" + (", measured on" if attempt else ""))
                measured.rounds.append(tenancy.measure(check.order(check.subject)))
                verdict = Verdict(check, measured.summary(), measured.control())
                if verdict.kept or verdict.surely_broken:
                    break
            if not verdict.kept and check.subject == _SCHEDULED:
                tell(f"budget: {check}, plain code in its place")
                plain = Measured()
                plain.rounds.append(tenancy.measure(check.order(ours.AS_LONG)))
                noise = Verdict(check, plain.summary(), plain.control()).excess
                verdict = replace(verdict, noise=noise)
            yield verdict
