"""How fast the relay drains: prepared records into SQLite, with all counters and indexes."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import sidelight
from benchmarks.work import make_work
from sidelight import arg, emits
from sidelight.emission.emitter import EMITTER
from sidelight.emission.waiting import Watermark
from sidelight.relay.relay import Relay
from sidelight.runtime.process import RUNTIME
from sidelight.runtime.sinks import sinks_of

RECORDS: Final = 100_000
_PER_ARTIFACT: Final = 8


@dataclass(frozen=True, slots=True)
class RelaySpeed:
    """Events a second: of the clock on the wall, and of the processor."""

    events: int
    per_second: float
    per_cpu_second: float


def prepare(directory: Path, records: int) -> None:
    """Emit with the relay elsewhere: each artifact a few events, each event with attributes."""
    instrument = emits(
        "artifact_received",
        artifact_id=arg.artifact_id,
        organization_id=arg.organization_id,
        number=arg.number,
    )
    call = instrument(make_work())
    sidelight.configure(f"sqlite:///{directory / 'events.db'}", relay="external", otlp=False)
    for number in range(records):
        artifact = number // _PER_ARTIFACT
        call(f"artifact-{artifact:06}", f"organization-{artifact % 50}", number)


def drain() -> tuple[float, float]:
    """Deliver what `prepare` left, in this thread; seconds on the wall and of the processor."""
    if RUNTIME.spool is None or RUNTIME.settings is None:
        raise RuntimeError("nothing was prepared")
    relay = Relay(RUNTIME.spool, sinks_of(RUNTIME.settings, EMITTER.count), Watermark())
    begun, busy = time.perf_counter(), time.process_time()
    relay.drain()
    return time.perf_counter() - begun, time.process_time() - busy


def relay_speed(records: int = RECORDS, rounds: int = 3) -> RelaySpeed:
    """Prepare and drain; the best of some rounds, each checked by counting the rows.

    Raises:
        RuntimeError: rows are missing: a speed with losses is none.
    """
    best = RelaySpeed(records, 0.0, 0.0)
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="sidelight-bench-") as directory:
            prepare(Path(directory), records)
            wall, busy = drain()
            _check(Path(directory) / "events.db", records)
        speed = RelaySpeed(records, records / wall, records / busy)
        best = max(best, speed, key=lambda each: each.per_second)
    return best


def _check(database: Path, records: int) -> None:
    connection = sqlite3.connect(database)
    try:
        (rows,) = connection.execute("SELECT count(*) FROM events").fetchone()
        (counted,) = connection.execute("SELECT sum(count) FROM event_counts").fetchone()
    finally:
        connection.close()
    if not rows == counted == records:
        raise RuntimeError(f"{records} emitted, {rows} stored, {counted} counted")
