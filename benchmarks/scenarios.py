"""The matrix: subjects and conditions, and the loop that measures each combination."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from benchmarks import ours, peers
from benchmarks.floor import FLOOR
from benchmarks.houses import Address, Tenancy, opened
from benchmarks.peers import SPAN
from benchmarks.stats import Measured
from benchmarks.timing import Order

REFERENCES: Final = (FLOOR, SPAN)
"""The references that every subject is compared with; every run measures them."""
_IDLE, _DRAINING = "relay idle", "relay draining"
_ALONE: Final = "sidelight, relay elsewhere"
_HERE: Final = "sidelight, relay here"
_FED: Final = "sidelight, relay here and fed"


@dataclass(frozen=True, slots=True)
class Condition:
    """The circumstances of the caller."""

    pausing: bool
    threads: int

    def __str__(self) -> str:
        pace = "pausing 2 ms between calls" if self.pausing else "tight loop"
        beside = {0: "nothing beside", 1: "1 CPU-bound thread beside"}
        return f"{pace}, {beside.get(self.threads, f'{self.threads} CPU-bound threads beside')}"


CONDITIONS: Final = tuple(
    Condition(pausing, threads) for pausing in (False, True) for threads in (0, 1, 3)
)
TIGHT: Final = CONDITIONS[0]
PAUSING: Final = Condition(pausing=True, threads=0)
BESIDE_THREE: Final = CONDITIONS[-1]


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure.

    Attributes:
        rounds: many short ones: what is compared should be measured at the same moment.
        tight: calls of a round in a tight loop.
        awaited: the same where each call waits for the store.
        pausing: calls where the caller pauses, all in one round.
        seconds: of a round in a tight loop; four times as long for one that pauses.
    """

    rounds: int = 20
    tight: int = 700
    awaited: int = 100
    pausing: int = 100
    seconds: float = 2.0

    def order(self, subject: str, condition: Condition) -> Order:
        """One round."""
        calls, seconds = self.awaited if "awaited" in subject else self.tight, self.seconds
        if condition.pausing:
            calls, seconds = self.pausing, self.seconds * 4
        return Order(
            subject=subject,
            calls=calls,
            pausing=condition.pausing,
            threads=condition.threads,
            seconds=seconds,
        )


@dataclass(frozen=True, slots=True)
class Row:
    """Something to measure, by the name that the report gives it and the house it lives in."""

    title: str
    house: str
    subject: str

    @property
    def peer(self) -> bool:
        """Whether the subject is a peer: neither sidelight nor a reference."""
        return not (self.house.startswith("sidelight") or self.subject in REFERENCES)


@dataclass(slots=True)
class Matrix:
    """One measurement."""

    cells: dict[Condition, dict[str, Measured]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def each(self) -> Iterator[tuple[Condition, str, Measured]]:
        """All cells in order."""
        for condition, rows in self.cells.items():
            for title, measured in rows.items():
                yield condition, title, measured


def houses() -> dict[str, Address]:
    """The directories and addresses of a run."""
    return {
        "floor": Address("floor", "floor"),
        "opentelemetry": Address("peers", "opentelemetry"),
        _ALONE: ours.address(external=True),
        _HERE: ours.address(),
        _FED: ours.address(fed=True),
        "span processors": Address("processors", "processors"),
        **peers.PEERS,
    }


def rows_of(tenancies: Mapping[str, Tenancy]) -> list[Row]:
    """List the measurements; first what is compared most, so that it is measured together.

    A scheduled emission meets an idle relay where the relay is elsewhere: here, the caller itself
    gives it work. An awaited one needs a relay here, and idle means that it has nothing else to do.
    """
    rows = []
    for house, tenancy in tenancies.items():
        for subject in tenancy.subjects:
            if subject == ours.AS_LONG:
                continue
            if not house.startswith("sidelight"):
                rows.append(Row(subject, house, subject))
            elif house == _FED or (house == _HERE) == ("awaited" in subject):
                relay = _DRAINING if house == _FED else _IDLE
                rows.append(Row(f"{subject}, {relay}", house, subject))
    return sorted(
        rows, key=lambda row: (row.peer, row.subject not in REFERENCES, "awaited" in row.title)
    )


def run(
    effort: Effort,
    tell: Callable[[str], None],
    conditions: Sequence[Condition] = CONDITIONS,
    callers: Collection[str] | None = None,
) -> Matrix:
    """Measure; what is compared takes turns, round by round.

    Args:
        effort: how much.
        tell: called with what is measured next.
        conditions: of the caller.
        callers: the titles of some rows whose process runs no relay; None for all rows.
    """
    addresses = houses()
    if callers is not None:
        for house in (_HERE, _FED, "span processors"):
            del addresses[house]
    matrix = Matrix()
    tell("setting up")
    with opened(addresses) as tenancies:
        matrix.absent = {house: t.absent for house, t in tenancies.items() if t.absent}
        missing = [house for house in matrix.absent if house not in peers.PEERS]
        if missing:
            raise RuntimeError(f"cannot measure without {missing}: {matrix.absent}")
        rows = [row for row in rows_of(tenancies) if callers is None or row.title in callers]
        for condition in conditions:
            chosen = [row for row in rows if condition.threads != 1 or not row.peer]
            cells = matrix.cells[condition] = {row.title: Measured() for row in chosen}
            rounds = 1 if condition.pausing else effort.rounds
            for number in range(rounds):
                for row in chosen:
                    tell(f"{condition}: {row.title} ({number + 1} of {rounds})")
                    order = effort.order(row.subject, condition)
                    cells[row.title].rounds.append(tenancies[row.house].measure(order))
    return matrix
