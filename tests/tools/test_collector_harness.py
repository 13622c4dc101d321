"""The harness around the real Collector: what the plain SDK sends is read back field by field."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import psutil
import pytest
from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import (
    OTLPLogExporter as GrpcLogExporter,
)
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import (
    OTLPMetricExporter as GrpcMetricExporter,
)
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (
    OTLPSpanExporter as GrpcSpanExporter,
)
from opentelemetry.exporter.otlp.proto.http._log_exporter import (
    OTLPLogExporter as HttpLogExporter,
)
from opentelemetry.exporter.otlp.proto.http.metric_exporter import (
    OTLPMetricExporter as HttpMetricExporter,
)
from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
    OTLPSpanExporter as HttpSpanExporter,
)
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import LogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from tests.support.certificates import require_server_tls
from tests.support.collector import Collector, CollectorError, ServerTls, require_collector
from tests.support.proxy import Proxy

START = 1_700_000_000_123_456_789
RESOURCE = Resource({"service.name": "harness", "numbers": (1, 2, 3)})
PROTOCOLS = ("http", "grpc")
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("OTEL_") or name.lower().endswith(("_proxy", "_ca_bundle")):
            monkeypatch.delenv(name)
    require_collector()


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


def span_exporter(
    protocol: str, endpoint: str, tls: ServerTls | None = None, timeout: float = 10.0
) -> SpanExporter:
    if protocol == "http":
        return HttpSpanExporter(
            f"{endpoint}/v1/traces",
            certificate_file=str(tls.authority) if tls else None,
            timeout=timeout,
        )
    return GrpcSpanExporter(endpoint, credentials=grpc_credentials(tls), timeout=timeout)


def log_exporter(protocol: str, endpoint: str, tls: ServerTls | None = None) -> LogRecordExporter:
    if protocol == "http":
        certificate = str(tls.authority) if tls else None
        return HttpLogExporter(f"{endpoint}/v1/logs", certificate_file=certificate)
    return GrpcLogExporter(endpoint, credentials=grpc_credentials(tls))


def metric_exporter(protocol: str, endpoint: str) -> MetricExporter:
    if protocol == "http":
        return HttpMetricExporter(f"{endpoint}/v1/metrics")
    return GrpcMetricExporter(endpoint)


def grpc_credentials(tls: ServerTls | None):
    if tls is None:
        return None
    return grpc.ssl_channel_credentials(tls.authority.read_bytes())


def endpoint_of(collector: Collector, protocol: str) -> str:
    return collector.http_endpoint if protocol == "http" else collector.grpc_endpoint


def send(exporter: SpanExporter, *names: str) -> None:
    provider = TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("sender", "1.2")
    for name in names or ("work",):
        tracer.start_span(name).end()
    provider.shutdown()


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_span_and_a_log_record_come_back_field_by_field(protocol, encrypted, tmp_path):
    tls = require_server_tls(tmp_path) if encrypted else None
    with Collector(tls=tls) as collector:
        endpoint = endpoint_of(collector, protocol)
        assert endpoint.startswith("https:" if encrypted else "http:")
        tracers = TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
        tracers.add_span_processor(SimpleSpanProcessor(span_exporter(protocol, endpoint, tls)))
        loggers = LoggerProvider(resource=RESOURCE, shutdown_on_exit=False)
        loggers.add_log_record_processor(
            SimpleLogRecordProcessor(log_exporter(protocol, endpoint, tls))
        )
        parent = trace.SpanContext(
            trace_id=0xA1 << 120,
            span_id=0xB2,
            is_remote=True,
            trace_flags=trace.TraceFlags(1),
            trace_state=trace.TraceState([("vendor", "x")]),
        )
        linked = trace.SpanContext(0xC3, 0xD4, is_remote=False, trace_flags=trace.TraceFlags(1))
        context = trace.set_span_in_context(trace.NonRecordingSpan(parent))
        span = tracers.get_tracer("sender", "1.2").start_span(
            "work",
            context,
            kind=trace.SpanKind.PRODUCER,
            attributes={"s": "ä", "i": 2**53 + 1, "f": 0.1, "b": False, "list": ["x", "y"]},
            links=[trace.Link(linked, {"why": "because"})],
            start_time=START,
        )
        span.add_event("half", {"percent": 50}, timestamp=START + 1)
        span.set_status(trace.StatusCode.ERROR, "no luck")
        span.end(START + 2)
        loggers.get_logger("logger", "3.4").emit(
            LogRecord(
                timestamp=START + 3,
                observed_timestamp=START + 4,
                context=trace.set_span_in_context(span),
                severity_text="WARN",
                severity_number=SeverityNumber.WARN,
                body={"deep": [1, {"er": None}]},
                attributes={"key": "value", "bytes": b"\x00\xff"},
                event_name="harness.happened",
            )
        )
        tracers.shutdown()
        loggers.shutdown()
        (got,) = collector.spans()
        (log,) = collector.logs()

    sent = span.get_span_context()
    assert got.trace_id == f"{parent.trace_id:032x}"
    assert got.span_id == f"{sent.span_id:016x}"
    assert got.parent_span_id == "00000000000000b2"
    assert got.name == "work"
    assert got.kind == "PRODUCER"
    assert (got.start_ns, got.end_ns) == (START, START + 2)
    assert got.attributes == {
        "s": "ä",
        "i": 2**53 + 1,
        "f": 0.1,
        "b": False,
        "list": ["x", "y"],
    }
    assert got.dropped_attributes == 0
    assert (got.status, got.status_message) == ("ERROR", "no luck")
    (event,) = got.events
    assert (event.name, event.time_ns) == ("half", START + 1)
    assert event.attributes == {"percent": 50}
    (link,) = got.links
    assert (link.trace_id, link.span_id) == (f"{0xC3:032x}", f"{0xD4:016x}")
    assert link.attributes == {"why": "because"}
    assert got.flags & 0x300 == 0x300  # it is known where the parent is: remote
    assert got.trace_state == "vendor=x"
    assert got.resource == {"service.name": "harness", "numbers": [1, 2, 3]}
    assert (got.scope_name, got.scope_version) == ("sender", "1.2")

    assert log.event_name == "harness.happened"
    assert (log.time_ns, log.observed_ns) == (START + 3, START + 4)
    assert (log.severity_number, log.severity_text) == (13, "WARN")
    assert log.body == {"deep": [1, {"er": None}]}
    assert log.attributes == {"key": "value", "bytes": b"\x00\xff"}
    assert (log.trace_id, log.span_id) == (got.trace_id, got.span_id)
    assert log.flags == 1
    assert log.resource == got.resource
    assert (log.scope_name, log.scope_version) == ("logger", "3.4")


def test_what_is_not_there_reads_as_nothing(collector):
    endpoint = collector.http_endpoint
    loggers = LoggerProvider(resource=Resource({}), shutdown_on_exit=False)
    loggers.add_log_record_processor(SimpleLogRecordProcessor(log_exporter("http", endpoint)))
    loggers.get_logger("").emit(
        LogRecord(attributes={"nan": math.nan, "inf": -math.inf, "whole": 2.0, "none": None})
    )
    loggers.shutdown()
    send(span_exporter("http", endpoint))
    (log,) = collector.logs()
    assert (log.event_name, log.body, log.trace_id, log.span_id) == ("", None, None, None)
    assert math.isnan(log.attributes.pop("nan"))
    assert log.attributes == {"inf": -math.inf, "whole": 2.0, "none": None}
    assert isinstance(log.attributes["whole"], float)
    (span,) = collector.spans()
    assert (span.parent_span_id, span.status, span.status_message) == (None, "UNSET", "")
    assert (span.kind, span.events, span.links, span.trace_state) == ("INTERNAL", (), (), "")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_metrics_come_back(collector, protocol):
    exporter = metric_exporter(protocol, endpoint_of(collector, protocol))
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=math.inf)
    meters = MeterProvider([reader], RESOURCE, shutdown_on_exit=False)
    meter = meters.get_meter("meter", "5.6")
    meter.create_counter("sent", unit="1", description="how many").add(7, {"to": "nobody"})
    histogram = meter.create_histogram("took", unit="s")
    histogram.record(0.5)
    histogram.record(0.25)
    meters.force_flush()
    meters.shutdown()
    points = {point.name: point for point in collector.metrics(at_least=2)}
    sent, took = points["sent"], points["took"]
    assert (sent.kind, sent.value, sent.unit, sent.description) == ("sum", 7, "1", "how many")
    assert sent.attributes == {"to": "nobody"}
    assert (took.kind, took.value, took.count) == ("histogram", 0.75, 2)
    assert sent.resource["service.name"] == "harness"
    assert (sent.scope_name, sent.scope_version) == ("meter", "5.6")
    assert 0 < sent.start_ns <= sent.time_ns


def test_one_that_is_stopped_has_everything_and_keeps_its_ports(collector):
    exporter = span_exporter("http", collector.http_endpoint)
    before = collector.http_endpoint, collector.grpc_endpoint
    send(exporter, *(f"first {number}" for number in range(20)))
    collector.stop()
    collector.stop()
    assert collector.pid is None
    assert len(collector.spans(at_least=0)) == 20
    collector.start()
    assert (collector.http_endpoint, collector.grpc_endpoint) == before
    send(span_exporter("grpc", collector.grpc_endpoint), "second")
    assert collector.spans(at_least=21)[-1].name == "second"


def test_one_that_is_killed_can_be_started_again(collector):
    before = collector.grpc_address, collector.http_address
    collector.kill()
    with pytest.raises(CollectorError, match="does not run"):
        collector.pause()
    with pytest.raises(CollectorError, match="does not run"):
        collector.resume()
    collector.start()
    assert (collector.grpc_address, collector.http_address) == before
    with pytest.raises(CollectorError, match="runs already"):
        collector.start()
    os.kill(collector.pid, signal.SIGKILL)  # by somebody else
    assert eventually(lambda: collector.pid is None)
    collector.start()
    send(span_exporter("http", collector.http_endpoint))
    assert len(collector.spans()) == 1


def test_one_that_is_paused_is_silent_and_goes_on_where_it_was(collector):
    collector.pause()
    assert psutil.Process(collector.pid).status() == psutil.STATUS_STOPPED
    with span_process(collector.http_endpoint) as sender:
        with pytest.raises(subprocess.TimeoutExpired):
            sender.wait(1.0)
        with pytest.raises(CollectorError, match="0 of 1 spans"):
            collector.spans(timeout=0.05)
        collector.resume()
        assert sender.wait(20.0) == 0
    assert collector.spans()[0].name == "from another process"


def test_a_paused_one_ends(collector):
    collector.pause()
    pid = collector.pid
    began = time.monotonic()
    collector.close()
    assert time.monotonic() - began < 5.0
    assert not psutil.pid_exists(pid)


def test_what_does_not_come_is_told_with_what_the_collector_says(collector):
    send(span_exporter("http", collector.http_endpoint))
    collector.spans()
    with pytest.raises(CollectorError, match=r"(?s)1 of 2 spans came in 0\.1 s;.*Traces") as told:
        collector.spans(timeout=0.1, at_least=2)
    assert "Everything is ready" in str(told.value)


def test_its_files_stay_in_a_directory_of_the_test(tmp_path):
    with Collector(tmp_path / "kept") as collector:
        send(span_exporter("http", collector.http_endpoint))
        collector.spans()
    (line,) = (tmp_path / "kept" / "1-traces.jsonl").read_text().splitlines()
    assert json.loads(line)["resourceSpans"]


def test_its_own_files_go_and_the_records_stay(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Collector() as collector:
        assert list(tmp_path.iterdir())
        send(span_exporter("http", collector.http_endpoint))
    assert not list(tmp_path.iterdir())
    assert [span.name for span in collector.spans()] == ["work"]


@pytest.mark.parametrize("binary", ["/bin/false", "/nowhere/otelcol"])
def test_one_that_cannot_start_says_so_and_leaves_nothing(binary, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with pytest.raises((CollectorError, FileNotFoundError)), Collector(binary=Path(binary)):
        pass
    assert not list(tmp_path.iterdir())
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


def test_none_outlives_the_process_that_started_it(tmp_path):
    program = (
        "from tests.support.collector import Collector\n"
        "import time\n"
        "collector = Collector()\n"
        "collector.start()\n"
        "print(collector.pid, collector._watchdog.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
    ) as child:
        pids = [int(pid) for pid in child.stdout.readline().split()]
        assert len(pids) == 2
        child.kill()
    assert eventually(lambda: not any(map(alive, pids)))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_lost_reply_means_delivered_though_the_sender_cannot_know(collector, protocol):
    address = collector.http_address if protocol == "http" else collector.grpc_address
    with Proxy(address, mode="lose_reply") as proxy:
        exporter = span_exporter(protocol, proxy.endpoint, timeout=1.0)
        send(exporter)
        assert proxy.accepted >= 1
        assert {span.name for span in collector.spans()} == {"work"}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_proxy_in_front_is_not_felt(collector, protocol):
    address = collector.http_address if protocol == "http" else collector.grpc_address
    with Proxy(address) as proxy:
        send(span_exporter(protocol, proxy.endpoint))
    assert [span.name for span in collector.spans()] == ["work"]


def span_process(endpoint: str) -> "subprocess.Popen[bytes]":
    program = (
        "import sys\n"
        "from tests.tools.test_collector_harness import send, span_exporter\n"
        "send(span_exporter('http', sys.argv[1], timeout=30.0), 'from another process')\n"
    )
    return subprocess.Popen([sys.executable, "-c", program, endpoint], cwd=ROOT)


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10.0
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
