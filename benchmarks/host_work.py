"""How much slower the host's own CPU-bound work gets beside events, at a given rate."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.whole_cost import Call, collector, sdk, sidelight
from benchmarks.work import make_work

THREAD: Final = "sidelight: the relay in threads, to SQLite and OTLP/HTTP"
EXTERNAL: Final = "sidelight: an external relay, to SQLite and OTLP/HTTP"
SDK: Final = "OpenTelemetry SDK: a span, batch processor, over OTLP/HTTP"
RATES: Final = (1_000, 10_000)
COMMAND: Final = "python -m benchmarks.host_work"
_TICK: Final = 0.002  # seconds between two bursts of events
_ROUND: Final = 0.5  # seconds


@dataclass(frozen=True, slots=True)
class HostWork:
    """By subject and events a second: by how much the host's work takes longer (a share)."""

    rounds: int
    slower: dict[str, dict[int, float]]


def host_work(tell: Callable[[str], None] = lambda _: None, rounds: int = 6) -> HostWork:
    """Measure each subject in a process of its own; ``tell`` is called with what comes next."""
    found: dict[str, dict[int, float]] = {}
    context = multiprocessing.get_context("spawn")
    with collector() as endpoint:
        for subject in SUBJECTS:
            tell(f"the host's work: {subject}")
            with (
                tempfile.TemporaryDirectory(prefix="sidelight-bench-") as directory,
                ProcessPoolExecutor(1, mp_context=context) as pool,
            ):
                found[subject] = pool.submit(
                    _measure, subject, directory, endpoint, rounds
                ).result()
    return HostWork(rounds, found)


def _measure(subject: str, directory: str, endpoint: str, rounds: int) -> dict[int, float]:
    work = make_work()
    with SUBJECTS[subject](Path(directory), endpoint, work) as (call, deliver):
        call("artifact-1", "organization-1", 1)
        deliver()
        return {rate: _slower(call, work, rate, rounds) for rate in RATES}


def _slower(call: Call, work: Call, rate: int, rounds: int) -> float:
    """Compare with a twin that calls the bare work at the same rate; they take turns."""
    ratios = []
    for _ in range(rounds):
        with_events, without = _speed(call, rate), _speed(work, rate)
        ratios.append(without / with_events - 1)
    return statistics.median(ratios)


def _speed(call: Call, rate: int) -> float:
    """How many units of CPU-bound work a second this thread does while another one calls."""
    ended = threading.Event()
    caller = threading.Thread(target=_call_at, args=(call, rate, ended))
    caller.start()
    units, begun = 0, time.perf_counter()
    until = begun + _ROUND
    while (now := time.perf_counter()) < until:
        sum(range(500))
        units += 1
    ended.set()
    caller.join()
    return units / (now - begun)


def _call_at(call: Call, rate: int, ended: threading.Event) -> None:
    begun, number = time.perf_counter(), 0
    while not ended.wait(_TICK):
        due = int((time.perf_counter() - begun) * rate)
        while number < due:
            call(f"artifact-{number // 8:06}", f"organization-{number % 50}", number)
            number += 1


@contextlib.contextmanager
def _external(
    directory: Path, endpoint: str, work: Call
) -> Iterator[tuple[Call, Callable[[], None]]]:
    store = f"sqlite:///{directory / 'events.db'}"
    with sidelight(directory, endpoint, work, relay=False, otlp=True) as (call, deliver):
        relay = subprocess.Popen(
            [sys.executable, "-m", "sidelight", "relay", "--store", store],
            env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield call, deliver
        finally:
            relay.terminate()
            relay.wait()


SUBJECTS: Final[dict[str, Callable[[Path, str, Call], Any]]] = {
    THREAD: partial(sidelight, relay=True, otlp=True),
    EXTERNAL: _external,
    SDK: sdk,
}

if __name__ == "__main__":
    for _subject, _shares in host_work().slower.items():
        _words = (f"{rate:,}/s: {share:+.1%}" for rate, share in _shares.items())
        sys.stdout.write(f"{', '.join(_words)}  {_subject}\n")
