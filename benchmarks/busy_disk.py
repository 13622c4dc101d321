"""Emissions beside processes that write and sync on the file system of the spool.

On a disk file system the kernel lets a store into a mapped page wait for the page's write-back; a
hot segment on a tmpfs never waits. Two controls take turns with each emission: the bare call, and
plain Python that takes as long as an emission. The kernel's count of context switches tells the
cause of each call over 10 ms: a thread that *waited* gave the processor away, for a page or for the
GIL; a thread that was *preempted* lost it to another process of a busy machine.

``python -m benchmarks.busy_disk [SECONDS]`` prints a table.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import sidelight
from benchmarks.work import Work, make_long_work, make_work
from sidelight import arg, emits
from sidelight.runtime import RUNTIME

HOT: Final = "/dev/shm"  # a tmpfs
_BUDGET: Final = 0.010  # seconds
_PAUSE: Final = 0.001  # seconds before a round …
_ROUND: Final = 5  # … of so many calls
_WRITERS: Final = (
    "while :; do dd if=/dev/zero of=noise bs=1M count=600 conv=fsync 2>/dev/null; done",
    "while :; do for i in $(seq 200); do echo x > n$i; done; sync -f .; rm -f n*; done",
)


@dataclass(slots=True)
class Calls:
    """The calls of one subject.

    Attributes:
        number: how many there were.
        waited: how many took over 10 ms, and waited meanwhile.
        preempted: how many took over 10 ms, and did not wait.
        times: of all (s).
    """

    number: int = 0
    waited: int = 0
    preempted: int = 0
    times: list[float] = field(default_factory=list)

    def measure(self, call: Callable[[], object]) -> None:
        """Call once."""
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        begun = time.perf_counter()
        call()
        took = time.perf_counter() - begun
        self.number += 1
        self.times.append(took)
        if took > _BUDGET:
            has_waited = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw > before
            self.waited += has_waited
            self.preempted += not has_waited

    def __str__(self) -> str:
        p50 = statistics.median(self.times) * 1e6
        longest = max(self.times) * 1e3
        over = self.waited + self.preempted
        return (
            f"{self.number:7,}  {p50:6.1f}  {longest:7.1f}  {over / self.number:8.4%}"
            f"  {self.waited:6}  {self.preempted:9}"
        )


@contextlib.contextmanager
def _noise(directory: Path) -> Iterator[None]:
    started = [
        subprocess.Popen(["sh", "-c", each], cwd=directory, start_new_session=True)
        for each in _WRITERS
    ]
    try:
        yield
    finally:
        for process in started:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def busy_disk(directory: Path, seconds: float, *, hot: str | None) -> dict[str, Calls]:
    """Measure in this process, which can be configured once."""
    sidelight.configure(f"sqlite:///{directory / 'events.db'}", hot=hot, otlp=False)
    instrument = emits(
        "artifact_received", artifact_id=arg.artifact_id, organization_id=arg.organization_id
    )
    event, bare = instrument(make_work()), make_work()
    first = Calls()
    for _ in range(200):
        _round(first, event)
    as_long = make_long_work(int(statistics.median(first.times) * 1e9))
    subjects = {"an event": event, "the bare call": bare, "plain Python, as long": as_long}
    found = {name: Calls() for name in subjects}
    with _noise(directory):
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            for name, work in subjects.items():
                _round(found[name], work)
    return found


def _round(calls: Calls, work: Work) -> None:
    time.sleep(_PAUSE)
    for _ in range(_ROUND):
        calls.measure(lambda: work("artifact-1", "organization-1", 1))


def _main(seconds: str, hot: str | None) -> None:
    with tempfile.TemporaryDirectory(prefix="sidelight-bench-") as directory:
        found = busy_disk(Path(directory), float(seconds), hot=hot)
        where = f"hot segment on {hot}" if hot else "segment on the disk"
        for name, calls in found.items():
            sys.stdout.write(f"{calls}  {name}; {where}\n")
        sys.stdout.flush()
        RUNTIME.close(5)


if __name__ == "__main__":
    _seconds, *_hot = [*sys.argv[1:], "20"][:1] + sys.argv[2:]
    if _hot:
        _main(_seconds, _hot[0] or None)
    else:
        sys.stdout.write("  calls  p50 µs   max ms  over 10 ms  waited  preempted\n")
        sys.stdout.flush()
        for _where in ("", HOT):
            _command = [sys.executable, "-m", "benchmarks.busy_disk", _seconds, _where]
            subprocess.run(_command, check=True)
