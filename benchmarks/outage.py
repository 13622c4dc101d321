"""What an outage of the store leaves behind in a topic, and how long consumers need for it.

``python -m benchmarks.outage`` prints the plan and the outage for several sizes. The model is fed
with measured rates: each second events arrive, and consumers store as many as they and the store
can. It has no randomness. It shows what follows from the rates, and not how a broker behaves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

HOUR: Final = 3600  # seconds
SIZES: Final = (10_000, 1_000_000, 100_000_000)  # events an hour
_PEAK: Final = 3.0  # busiest hour, against the mean
_PARTITIONS_A_CONSUMER: Final = 2  # so that consumers can be added later
_FEWEST_PARTITIONS: Final = 6
_RETENTION: Final = 3 * 24 * HOUR  # seconds that the topic keeps messages


@dataclass(frozen=True, slots=True)
class Rates:
    """Measured figures of one machine.

    Attributes:
        relay: events that one relay sends in a second.
        consumer: events that one consumer stores in a second.
        store: events that one store takes in a second, from any number of consumers.
        message: bytes of one message in the log of one broker.
        row: bytes of one event in the store, with its indexes.
        copies: replicas of each partition.
    """

    relay: float
    consumer: float
    store: float
    message: float
    row: float
    copies: int = 3


@dataclass(frozen=True, slots=True)
class Plan:
    """What a number of events an hour needs.

    Attributes:
        rate: events in a second, in the mean.
        stores: how many stores share the events.
        consumers, partitions: in all.
        relays: how many hosts send at their limit in the busiest hour.
        topic_bytes: on the disks of all brokers, for three days.
        store_bytes: added to the stores in a day.
    """

    rate: float
    stores: int
    consumers: int
    partitions: int
    relays: int
    topic_bytes: float
    store_bytes: float

    @property
    def partition_bytes(self) -> float:
        """Of one month's partition of `events`, in each store."""
        return self.store_bytes * 30 / self.stores


@dataclass(frozen=True, slots=True)
class Outage:
    """What an outage does.

    Attributes:
        peak: messages behind at the worst moment.
        longest_wait: seconds between an event and its row, at the worst moment.
        caught_up: seconds after the outage until nothing is left; None: not within a day.
        topic_bytes: of the messages that wait, on the disks of all brokers.
    """

    peak: float
    longest_wait: float
    caught_up: float | None
    topic_bytes: float


def plan(events_an_hour: float, rates: Rates) -> Plan:
    """What is needed for the busiest hour, and to catch up twice as fast as events arrive."""
    rate = events_an_hour / HOUR
    wanted = rate * max(_PEAK, 2.0)
    stores = math.ceil(wanted / rates.store)
    consumers = max(2, stores, math.ceil(wanted / rates.consumer))  # two: one may be killed
    return Plan(
        rate=rate,
        stores=stores,
        consumers=consumers,
        partitions=max(_FEWEST_PARTITIONS, consumers * _PARTITIONS_A_CONSUMER),
        relays=math.ceil(rate * _PEAK / rates.relay),
        topic_bytes=rate * _RETENTION * rates.message * rates.copies,
        store_bytes=rate * 24 * HOUR * rates.row,
    )


def behind(
    rate: float, capacity: float, away: int, seconds: int
) -> Iterator[tuple[int, float, float]]:
    """Yield each second: the time, messages behind, and how long the oldest of them has waited.

    Args:
        rate: events that arrive in a second.
        capacity: events that are stored in a second, when the store answers.
        away: seconds for which the store does not answer.
        seconds: the length of the simulation.
    """
    lag = stored = 0.0
    for second in range(seconds):
        lag += rate
        if second >= away:
            taken = min(lag, capacity)
            lag -= taken
            stored += taken
        yield second, lag, second + 1 - stored / rate


def outage(planned: Plan, rates: Rates, away: int = HOUR) -> Outage:
    """Simulate an outage of all stores, with the consumers of a plan."""
    capacity = min(planned.consumers * rates.consumer, planned.stores * rates.store)
    peak = longest = 0.0
    caught_up = None
    for second, lag, waited in behind(planned.rate, capacity, away, away + 24 * HOUR):
        peak, longest = max(peak, lag), max(longest, waited)
        if second >= away and not lag:
            caught_up = float(second + 1 - away)
            break
    return Outage(peak, longest, caught_up, peak * rates.message * rates.copies)


def table(sizes: Sequence[int], rates: Rates) -> list[str]:
    """The lines of a table in Markdown: a plan and an outage of an hour, for each size."""
    lines = [
        (
            "| events an hour | a second | relays | partitions | consumers | stores"
            " | topic, 3 days | store, a day | partition of a month | behind after an hour"
            " | caught up after |"
        ),
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for size in sizes:
        planned = plan(size, rates)
        happened = outage(planned, rates)
        caught_up = happened.caught_up
        lines.append(
            f"| {size:,} | {planned.rate:,.0f} | {planned.relays} | {planned.partitions}"
            f" | {planned.consumers} | {planned.stores} | {_size(planned.topic_bytes)}"
            f" | {_size(planned.store_bytes)} | {_size(planned.partition_bytes)}"
            f" | {happened.peak:,.0f}"
            f" | {'never' if caught_up is None else _minutes(caught_up)} |"
        )
    return lines


def _size(amount: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:,.0f} {unit}"
        amount /= 1000
    return f"{amount:,.1f} TB"


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


MEASURED: Final = Rates(relay=51_106, consumer=43_229, store=47_072, message=102, row=695)
"""By ``python -m benchmarks.stream_speed``; see docs/explanation/at-scale.md for the machine."""


if __name__ == "__main__":
    print("\n".join(table(SIZES, MEASURED)))
