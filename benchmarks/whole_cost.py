"""The cost of an event on all threads of its process: the caller's part and the relay's."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, TypeAlias

import sidelight
from benchmarks.work import make_work
from sidelight import arg, emits

CALLER: Final = "sidelight: the caller alone, into the spool"
STORE: Final = "sidelight: delivered to SQLite"
STORE_AND_OTLP: Final = "sidelight: delivered to SQLite and over OTLP/HTTP"
SDK: Final = "OpenTelemetry SDK span: batch processor, delivered over OTLP/HTTP"
COMMAND: Final = "python -m benchmarks.whole_cost"
_EVENTS: Final = 20_000
_WARM_UP: Final = 1_000
_DELIVERED_WITHIN: Final = 120.0

Call: TypeAlias = Callable[[str, str, int], object]


@dataclass(frozen=True, slots=True)
class WholeCost:
    """Microseconds of CPU time per event, all threads of the process together, by subject."""

    events: int
    rounds: int
    microseconds: dict[str, float]


def whole_cost(events: int = _EVENTS, rounds: int = 3) -> WholeCost:
    """Measure each subject in fresh processes; the median of some rounds taken in turns.

    The time of the undecorated work is subtracted. The Collector runs in another process.
    """
    found: dict[str, list[float]] = {subject: [] for subject in SUBJECTS}
    with _collector() as endpoint:
        for _ in range(rounds):
            for subject in SUBJECTS:
                found[subject].append(_in_a_process(subject, endpoint, events))
    medians = {subject: statistics.median(values) for subject, values in found.items()}
    return WholeCost(events, rounds, medians)


def _in_a_process(subject: str, endpoint: str, events: int) -> float:
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(prefix="sidelight-bench-") as directory,
        ProcessPoolExecutor(1, mp_context=context) as pool,
    ):
        return pool.submit(_measure, subject, directory, endpoint, events).result()


def _measure(subject: str, directory: str, endpoint: str, events: int) -> float:
    work = make_work()
    with SUBJECTS[subject](Path(directory), endpoint, work) as (call, deliver):
        _calls(call, _WARM_UP)  # imports, tables, connections
        deliver()
        begun = time.process_time()
        _calls(call, events)
        deliver()
        busy = time.process_time() - begun
    begun = time.process_time()
    _calls(work, events)
    return (busy - (time.process_time() - begun)) / events * 1e6


def _calls(call: Call, count: int) -> None:
    for number in range(count):
        call(f"artifact-{number // 8:06}", f"organization-{number % 50}", number)


@contextlib.contextmanager
def _sidelight(
    directory: Path, endpoint: str, work: Call, *, relay: bool, otlp: bool
) -> Iterator[tuple[Call, Callable[[], None]]]:
    sidelight.configure(
        f"sqlite:///{directory / 'events.db'}",
        relay="thread" if relay else "external",
        otlp=endpoint if otlp else False,
    )
    instrument = emits(
        "artifact_received",
        artifact_id=arg.artifact_id,
        organization_id=arg.organization_id,
        number=arg.number,
    )

    def deliver() -> None:
        if relay and not sidelight.flush(_DELIVERED_WITHIN):
            raise RuntimeError("not everything was delivered: a cost with losses is none")

    yield instrument(work), deliver


@contextlib.contextmanager
def _sdk(_directory: Path, endpoint: str, work: Call) -> Iterator[tuple[Call, Callable[[], None]]]:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    logging.getLogger("opentelemetry").setLevel(logging.ERROR)
    provider = TracerProvider()
    processor = BatchSpanProcessor(
        OTLPSpanExporter(f"{endpoint}/v1/traces"), max_queue_size=2 * _EVENTS
    )
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("benchmarks")

    def call(artifact_id: str, organization_id: str, number: int) -> object:
        attributes = {"artifact_id": artifact_id, "organization_id": organization_id}
        with tracer.start_as_current_span("work", attributes={**attributes, "number": number}):
            return work(artifact_id, organization_id, number)

    def deliver() -> None:
        if not processor.force_flush(int(_DELIVERED_WITHIN * 1000)):
            raise RuntimeError("not everything was delivered: a cost with losses is none")

    yield call, deliver
    provider.shutdown()


SUBJECTS: Final[dict[str, Callable[[Path, str, Call], Any]]] = {
    CALLER: partial(_sidelight, relay=False, otlp=False),
    STORE: partial(_sidelight, relay=True, otlp=False),
    STORE_AND_OTLP: partial(_sidelight, relay=True, otlp=True),
    SDK: _sdk,
}


@contextlib.contextmanager
def _collector() -> Iterator[str]:
    """Take OTLP over HTTP in another process; yields the base URL."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.terminate()
        process.join()


def _serve(connection: Any) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    connection.send(server.server_port)
    server.serve_forever()


if __name__ == "__main__":
    for _subject, _cost in whole_cost().microseconds.items():
        sys.stdout.write(f"{_cost:8.1f} µs  {_subject}\n")
