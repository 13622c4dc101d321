"""What an event costs its process as a whole, beside peers at equal work.

CPU time of all threads together for each delivered event, and what the process carries for it:
objects that a full garbage collection walks, memory, modules.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

from benchmarks.setups import AbsentError, json_lines, rows_of_sqlite, tracer_of_the_sdk
from benchmarks.work import make_work

CALLER: Final = "sidelight: the caller alone, into the spool"
STORE: Final = "sidelight: delivered to SQLite"
STORE_AND_OTLP: Final = "sidelight: delivered to SQLite, and as span and log over OTLP/HTTP"
SDK: Final = "OpenTelemetry SDK: a span, batch processor, delivered over OTLP/HTTP"
SDK_AND_STORE: Final = (
    "OpenTelemetry SDK: span and log over OTLP/HTTP; a direct insert with counter"
)
DIRECT: Final = "a direct insert with counter into SQLite, one transaction each"
STRUCTLOG: Final = "structlog: a JSON line to a file"
COMMAND: Final = "python -m benchmarks.whole_cost"
_EVENTS: Final = 20_000
_WARM_UP: Final = 1_000
_DELIVERED_WITHIN: Final = 120.0

Call: TypeAlias = Callable[[str, str, int], object]
Subject: TypeAlias = Callable[[Path, str, Call], Any]


@dataclass(frozen=True, slots=True)
class Cost:
    """What one subject costs; the bare process is subtracted.

    Attributes:
        caller: median time of one call (µs).
        cpu: CPU time of all threads for each event (µs).
        objects: that a full garbage collection walks.
        pause: how long that collection takes longer (ms).
        megabytes: of memory.
        modules: imported.
    """

    caller: float
    cpu: float
    objects: float
    pause: float
    megabytes: float
    modules: float


@dataclass(frozen=True, slots=True)
class WholeCost:
    """The cost of each subject, by its title."""

    events: int
    rounds: int
    costs: dict[str, Cost]


def whole_cost(
    tell: Callable[[str], None] = lambda _: None, events: int = _EVENTS, rounds: int = 3
) -> WholeCost:
    """Measure each subject in fresh processes; medians of some rounds taken in turns.

    The Collector runs in another process. A peer that is not installed is left out.

    Args:
        tell: called with what is measured next.
        events: that each subject emits in a round.
        rounds: of each subject.
    """
    found: dict[str, list[Cost]] = {subject: [] for subject in SUBJECTS}
    with collector() as endpoint:
        for number in range(rounds):
            for subject, costs in found.items():
                tell(f"whole cost: {subject} ({number + 1} of {rounds})")
                with contextlib.suppress(AbsentError):
                    costs.append(_in_a_process(subject, endpoint, events))
    medians = {
        subject: Cost(*map(statistics.median, zip(*map(astuple, costs), strict=True)))
        for subject, costs in found.items()
        if costs
    }
    return WholeCost(events, rounds, medians)


def _in_a_process(subject: str, endpoint: str, events: int) -> Cost:
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(prefix="sidelight-bench-") as directory,
        ProcessPoolExecutor(1, mp_context=context) as pool,
    ):
        return pool.submit(_measure, subject, directory, endpoint, events).result()


def _measure(subject: str, directory: str, endpoint: str, events: int) -> Cost:
    work = make_work()
    before = _footprint()
    with SUBJECTS[subject](Path(directory), endpoint, work) as (call, deliver):
        _calls(call, _WARM_UP)  # imports, tables, connections
        deliver()
        after = _footprint()
        begun = time.process_time()
        _calls(call, events)
        deliver()
        busy = time.process_time() - begun
        caller = _median(call)
        deliver()
    begun = time.process_time()
    _calls(work, events)
    bare = time.process_time() - begun
    added = [mine - base for mine, base in zip(after, before, strict=True)]
    return Cost(caller - _median(work), (busy - bare) / events * 1e6, *added)


def _footprint() -> tuple[float, float, float, float]:
    """Objects, the time of a full collection (ms), memory (MB) and modules of this process."""
    pauses = []
    for _ in range(7):
        begun = time.thread_time()
        gc.collect()
        pauses.append(time.thread_time() - begun)
    with Path("/proc/self/statm").open() as file:
        pages = int(file.read().split()[1])
    return len(gc.get_objects()), min(pauses) * 1e3, pages * 4096 / 1e6, len(sys.modules)


def _calls(call: Call, count: int) -> None:
    for number in range(count):
        call(f"artifact-{number // 8:06}", f"organization-{number % 50}", number)


def _median(call: Call) -> float:
    """The median of 2,000 single calls, in microseconds."""
    times = []
    for number in range(2_000):
        begun = time.perf_counter_ns()
        call("artifact-1", "organization-1", number)
        times.append(time.perf_counter_ns() - begun)
    return statistics.median(times) / 1e3


# -- subjects: each yields a call, and a function that waits for its delivery ---------------------


@contextlib.contextmanager
def sidelight(
    directory: Path, endpoint: str, work: Call, *, relay: bool, otlp: bool
) -> Iterator[tuple[Call, Callable[[], None]]]:
    """Event and span of a decorated function."""
    import sidelight  # noqa: PLC0415  # its import is a part of the cost
    from sidelight import arg, emits  # noqa: PLC0415

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
            raise RuntimeError(_UNDELIVERED)

    yield instrument(work), deliver


_UNDELIVERED: Final = "not everything was delivered: a cost with losses is none"


@contextlib.contextmanager
def sdk(
    directory: Path, endpoint: str, work: Call, *, logs_and_store: bool = False
) -> Iterator[tuple[Call, Callable[[], None]]]:
    """A span of the SDK; where asked for, all else that sidelight delivers as well."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    processor = BatchSpanProcessor(
        OTLPSpanExporter(f"{endpoint}/v1/traces"), max_queue_size=2 * _EVENTS
    )
    flushes = [processor.force_flush]

    def call(artifact_id: str, organization_id: str, number: int) -> object:
        attributes = {"artifact_id": artifact_id, "organization_id": organization_id}
        with tracer.start_as_current_span("work", attributes={**attributes, "number": number}):
            return work(artifact_id, organization_id, number)

    def deliver() -> None:
        for flush in flushes:
            if not flush(int(_DELIVERED_WITHIN * 1000)):
                raise RuntimeError(_UNDELIVERED)

    with contextlib.ExitStack() as stack:
        tracer = stack.enter_context(tracer_of_the_sdk(processor))
        if logs_and_store:
            log, flush = stack.enter_context(_sdk_logs(endpoint))
            flushes.append(flush)
            insert, _ = stack.enter_context(direct(directory, endpoint, call))

            def everything(artifact_id: str, organization_id: str, number: int) -> object:
                log(artifact_id, organization_id, number)
                return insert(artifact_id, organization_id, number)

            yield everything, deliver
        else:
            yield call, deliver


@contextlib.contextmanager
def _sdk_logs(endpoint: str) -> Iterator[tuple[Call, Callable[[int], bool]]]:
    from opentelemetry._logs import LogRecord, SeverityNumber  # noqa: PLC0415
    from opentelemetry.exporter.otlp.proto.http._log_exporter import (  # noqa: PLC0415
        OTLPLogExporter,
    )
    from opentelemetry.sdk._logs import LoggerProvider  # noqa: PLC0415
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor  # noqa: PLC0415

    provider = LoggerProvider()
    processor = BatchLogRecordProcessor(
        OTLPLogExporter(f"{endpoint}/v1/logs"), max_queue_size=2 * _EVENTS
    )
    provider.add_log_record_processor(processor)
    logger = provider.get_logger("benchmarks")

    def log(artifact_id: str, organization_id: str, number: int) -> None:
        attributes = {"artifact_id": artifact_id, "organization_id": organization_id}
        logger.emit(
            LogRecord(
                timestamp=time.time_ns(),
                severity_number=SeverityNumber.INFO,
                body="artifact_received",
                attributes={**attributes, "number": number},
                event_name="artifact.received",
            )
        )

    yield log, processor.force_flush
    provider.shutdown()


@contextlib.contextmanager
def direct(
    directory: Path, _endpoint: str, work: Call
) -> Iterator[tuple[Call, Callable[[], None]]]:
    """The caller writes row and counter itself: SQLite in WAL mode, a transaction for each."""
    with rows_of_sqlite(directory, counted=True) as insert:

        def call(artifact_id: str, organization_id: str, number: int) -> object:
            value = work(artifact_id, organization_id, number)
            insert(artifact_id, organization_id, number=number)
            return value

        yield call, lambda: None


@contextlib.contextmanager
def structlog(
    directory: Path, _endpoint: str, work: Call
) -> Iterator[tuple[Call, Callable[[], None]]]:
    """One JSON line to a file."""
    with json_lines(directory) as (logger, flush):

        def call(artifact_id: str, organization_id: str, number: int) -> object:
            value = work(artifact_id, organization_id, number)
            logger.info(
                "work", artifact_id=artifact_id, organization_id=organization_id, number=number
            )
            return value

        yield call, flush


SUBJECTS: Final[dict[str, Subject]] = {
    CALLER: partial(sidelight, relay=False, otlp=False),
    STORE: partial(sidelight, relay=True, otlp=False),
    DIRECT: direct,
    STRUCTLOG: structlog,
    STORE_AND_OTLP: partial(sidelight, relay=True, otlp=True),
    SDK: sdk,
    SDK_AND_STORE: partial(sdk, logs_and_store=True),
}


# -- the Collector --------------------------------------------------------------------------------


@contextlib.contextmanager
def collector() -> Iterator[str]:
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
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer  # noqa: PLC0415

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
    _found = whole_cost()
    sys.stdout.write("  call µs    CPU µs   objects  pause ms       MB  modules\n")
    for _subject, _cost in _found.costs.items():
        _numbers = "  ".join(f"{value:8.1f}" for value in astuple(_cost))
        sys.stdout.write(f"{_numbers}  {_subject}\n")
