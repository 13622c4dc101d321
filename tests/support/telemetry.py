"""Read sidelight's exports back: records in memory, or the Collector's files beside the store.

::

    with exporting(collector, tmp_path) as told:
        work()                            # decorated functions
    told.events, told.spans, told.logs    # of this block only; `agree` has compared them
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from tests.support.collector import Collector
from tests.support.otlp_json import LogRecord, SpanRecord

import sidelight
from sidelight.emission.emitter import EMITTER, ClosedSpool
from sidelight.emission.tracing import TRACING
from sidelight.host import HAS_FILE_LOCKS
from sidelight.record.format import Moment, Static, decode, random_bits
from sidelight.runtime.process import RUNTIME

ROOT = Path(__file__).parents[2]
_WAIT = 20.0


@dataclass
class Told:
    """The results of a block: rows of the store, spans and log records of the Collector."""

    events: list[dict[str, Any]] = field(default_factory=list)
    spans: list[SpanRecord] = field(default_factory=list)
    logs: list[LogRecord] = field(default_factory=list)

    def span(self, name: str) -> SpanRecord:
        """The one span of that name."""
        (span,) = (s for s in self.spans if s.name == name)
        return span

    def event(self, kind: str) -> dict[str, Any]:
        """The one event of that type."""
        (event,) = (e for e in self.events if e["type"] == kind)
        return event

    def log(self, kind: str) -> LogRecord:
        """The one log record of that event type."""
        (log,) = (entry for entry in self.logs if entry.body == kind)
        return log


@contextlib.contextmanager
def exporting(
    collector: Collector,
    directory: Path,
    *,
    otlp: bool | str | None = None,
    spans: int | None = None,
    logs: int | None = None,
) -> Iterator[Told]:
    """Configure sidelight for a block, then collect what the store and the Collector got of it.

    Args:
        otlp: where to; by default the Collector, over HTTP.
        spans: how many must come; by default as many events as end a call with a span.
        logs: how many must come; by default as many as there are events.
    """
    with configured(directory, otlp=collector.http_endpoint if otlp is None else otlp):
        told = Told()
        instance = RUNTIME.spool.meta["instance"]
        yield told
        assert sidelight.flush(_WAIT), RUNTIME.health()
        assert not EMITTER.losses, EMITTER.problems
    told.events = stored(directory / "events.db")
    wanted = len(told.events) if logs is None else logs
    told.logs = of_instance(collector.logs, instance, wanted)
    ends = sum(e["duration"] is not None and e["trace_id"] is not None for e in told.events)
    told.spans = of_instance(collector.spans, instance, ends if spans is None else spans)


@contextlib.contextmanager
def configured(directory: Path, **options: Any) -> Iterator[None]:
    """Sidelight with a store in ``directory``, and as it was before once the block is over."""
    EMITTER.losses.clear()
    try:
        sidelight.configure(f"sqlite:///{directory / 'events.db'}", strict=True, **options)
        yield
    finally:
        restore()


def restore() -> None:
    """Close what is open; the next emission would open it anew, as another process."""
    RUNTIME.close(1.0)
    RUNTIME.settings = None
    RUNTIME.instance = f"{random_bits(64):016x}"
    EMITTER.spool = ClosedSpool(RUNTIME.open)
    EMITTER.strict, EMITTER.spans = False, True
    EMITTER.losses.clear()
    EMITTER.problems.clear()
    TRACING.configure({})


def of_instance(read: Any, instance: str, wanted: int) -> list[Any]:
    """The records of one process, as soon as there are ``wanted``; never more than those."""
    until = time.monotonic() + _WAIT
    while True:
        found = [r for r in read(at_least=0) if r.resource.get("service.instance.id") == instance]
        if len(found) >= wanted or time.monotonic() > until:
            assert len(found) == wanted, f"{len(found)} of {wanted}: {found}"
            return found
        time.sleep(0.01)


def eventually(condition: Callable[[], Any], seconds: float = _WAIT) -> Any:
    """The first true answer of the condition, or its last one when the time is over."""
    until = time.monotonic() + seconds
    while not (said := condition()) and time.monotonic() < until:
        time.sleep(0.01)
    return said


def stored(path: Path) -> list[dict[str, Any]]:
    """The rows of a store, oldest first, with their attributes decoded."""
    if not path.exists():
        return []
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    try:
        rows = connection.execute("SELECT * FROM events ORDER BY occurred_at, event_id").fetchall()
        return [{**row, "attributes": json.loads(row["attributes"])} for row in map(dict, rows)]
    finally:
        connection.close()


def agree(told: Told) -> None:
    """Every event is a log record with the same fields, and ends the span that it names."""
    assert len(told.logs) == len(told.events)
    logs = {log.attributes["log.record.uid"]: log for log in told.logs}
    spans = {(span.trace_id, span.span_id): span for span in told.spans}
    for event in told.events:
        log = logs[event["event_id"]]
        assert log.body == event["type"]
        assert log.time_ns == event["occurred_at"]
        assert log.trace_id == event["trace_id"]
        assert log.span_id == event["span_id"]
        failed = event["outcome"] == "failed"
        assert log.severity_text == ("ERROR" if failed else "INFO")
        named = {
            "sidelight.event.type": event["type"],
            "sidelight.mode": event["mode"],
            "sidelight.outcome": event["outcome"],
            "sidelight.artifact.id": event["artifact_id"],
            "sidelight.organization.id": event["organization_id"],
            "sidelight.duration": event["duration"],
            "code.function.name": event["point"].replace(":", "."),
        }
        for name, value in named.items():
            assert log.attributes.get(name) == value, name
        own = dict(event["attributes"])
        if failed:
            assert log.attributes["error.type"] == own.pop("error.type")
            assert log.attributes["exception.message"] == own.pop("error.message")
        for name, value in own.items():
            assert log.attributes.get(name) == value, name
        span = spans.get((event["trace_id"], event["span_id"]))
        if span is None or span.attributes["code.function.name"] != event["point"].replace(
            ":", "."
        ):
            continue  # an event inside the span of other code
        assert log.resource == span.resource
        if event["duration"] is None:
            assert span.start_ns <= event["occurred_at"] <= span.end_ns
            continue
        assert span.end_ns == event["occurred_at"]
        assert span.start_ns == event["occurred_at"] - event["duration"]
        assert (span.status == "ERROR") == failed
        if failed:
            assert span.attributes["error.type"] == event["attributes"]["error.type"]


class Kept:
    """Stands in for the spool: keeps the records that the emitter writes."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.write = self.append = self.frames.append

    def position(self) -> tuple[int, int]:
        """Nothing ever reads on."""
        return (1, len(self.frames))

    @property
    def records(self) -> list[tuple[Static, Moment]]:
        """The records that were written."""
        return [decode(frame[12:]) for frame in self.frames]


@contextlib.contextmanager
def keeping() -> Iterator[Kept]:
    """An emitter that writes to memory, in a process without a tracer provider."""
    kept = Kept()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"spool": kept, "strict": True, "spans": True}.items():
            patch.setattr(EMITTER, name, value)
        patch.setattr(RUNTIME, "settings", None)
        patch.setattr(trace, "_TRACER_PROVIDER", None)
        yield kept
    EMITTER.losses.clear()
    EMITTER.problems.clear()


def child(script: str, store: Path, **environment: str) -> subprocess.Popen[str]:
    """A process that runs a script with sidelight set up by environment variables alone."""
    dropped = ("OTEL_", "SIDELIGHT_")
    env = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
    env |= {"SIDELIGHT_STORE": f"sqlite:///{store}", **environment}
    code = "import os, sys, time\nimport sidelight\nfrom sidelight import arg, emits\n"
    return subprocess.Popen(
        [sys.executable, "-c", code + textwrap.dedent(script)],
        cwd=ROOT,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[str], seconds: float = 30.0, *, told: str = "") -> str:
    """Wait for a child; it must end well and tell this on standard error. Answers its output."""
    try:
        output, errors = process.communicate(timeout=seconds)
    finally:
        process.kill()
    assert (process.returncode, errors) == (0, told), f"exit code {process.returncode}: {errors}"
    return output


def drain(directory: Path, otlp: str) -> dict[str, int]:
    """Deliver the records of ended processes, as `sidelight relay --once` does."""
    if not HAS_FILE_LOCKS:
        pytest.skip("without file locks nothing is left by a process that has ended")
    from sidelight.emission.waiting import Watermark  # noqa: PLC0415
    from sidelight.relay.relay import Relay  # noqa: PLC0415
    from sidelight.runtime.sinks import sinks_of  # noqa: PLC0415
    from sidelight.settings import settle  # noqa: PLC0415
    from sidelight.spool.writer import Spool  # noqa: PLC0415

    settings = settle(f"sqlite:///{directory / 'events.db'}", otlp=otlp)
    spool = Spool(settings.spool, {})
    relay = Relay(spool, sinks_of(settings, EMITTER.count), Watermark())
    try:
        return relay.drain()
    finally:
        for worker in relay.workers:
            worker.sink.close()
        spool.close()
