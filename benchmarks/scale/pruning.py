"""Prunes a store beside a relay that writes all the time, and watches how long that has to wait."""

from __future__ import annotations

import statistics
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from typing import Final, Self

import psutil

from sidelight.exceptions import SinkUnavailableError
from sidelight.record.format import Moment, Static, random_bits
from sidelight.store.retention import Pruner
from sidelight.store.sink import StoreSink

_EVERY: Final = 0.02
_CONTROL: Final = 5.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """The result of a pruning.

    Attributes:
        steps: transactions.
        longest: seconds of the longest of them.
        control, beside: median, 99th percentile and most of the seconds that a relay needed to
            store twenty events, before and while it was pruned.
        memory: resident bytes before, and the peak during the pruning.
    """

    events: int
    artifacts: int
    partitions: int
    seconds: float
    steps: int
    longest: float
    control: tuple[float, float, float]
    beside: tuple[float, float, float]
    memory: tuple[int, int]


def prune(url: str, older_than: str) -> Pruned:
    """Prune, with a relay beside."""
    process = psutil.Process()
    with Pruner(url) as pruner:
        with _Relay(url) as control:
            time.sleep(_CONTROL)
        plan = pruner.plan(older_than)
        before = most = process.memory_info().rss
        spent: list[float] = []
        with _Relay(url) as beside:
            begun = last = time.perf_counter()
            for _ in pruner.run(plan):
                now = time.perf_counter()
                spent.append(now - last)
                last = now
                most = max(most, process.memory_info().rss)
    return Pruned(
        events=plan.events,
        artifacts=plan.artifacts,
        partitions=len(plan.partitions),
        seconds=last - begun,
        steps=len(spent),
        longest=max(spent, default=0.0),
        control=control.waits(),
        beside=beside.waits(),
        memory=(before, most),
    )


class _Relay:
    """Stores twenty events fifty times a second, in a thread."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._spent: list[float] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def waits(self) -> tuple[float, float, float]:
        """Median, 99th percentile and most."""
        spent = sorted(self._spent)
        return statistics.median(spent), spent[int(len(spent) * 0.99)], spent[-1]

    def _run(self) -> None:
        static = Static("draft_confirmed", "voice_notes:beside", "scheduled", "succeeded", None)
        with closing(StoreSink(self._url)) as sink:
            sink.write((), {})
            while not self._over.wait(_EVERY):
                records = [
                    (static, Moment(time.time_ns(), random_bits(64), f"beside-{n}", None, 1, None,
                                    0, 0, 0, None, None))
                    for n in range(20)
                ]  # fmt: skip
                begun = time.perf_counter()
                while True:
                    try:
                        sink.write(records, {"instance": "beside"})
                        break
                    except SinkUnavailableError:  # as the relay's worker: again
                        time.sleep(0.01)
                self._spent.append(time.perf_counter() - begun)
