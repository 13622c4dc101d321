"""The OTEL_* variables mean to sidelight what they mean to the SDK."""

import gzip

import pytest
from opentelemetry import propagate, trace
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.support.certificates import require_server_tls
from tests.support.collector import Collector, require_collector
from tests.support.proxy import Proxy
from tests.support.telemetry import (
    agree,
    child,
    configured,
    drain,
    eventually,
    exporting,
    finish,
    stored,
)

import sidelight
from sidelight import arg, emits
from sidelight.runtime.process import RUNTIME

pytestmark = pytest.mark.usefixtures("plain_otel")


@emits("task_done", n=arg.n)
def task(n):
    carrier = {}
    propagate.inject(carrier)
    return carrier


@pytest.fixture
def receiver():
    """A server that accepts everything and keeps the requests."""
    with Proxy(mode="answer") as proxy:
        proxy.answer(200)
        yield proxy


def received(receiver):
    """How many spans and log records reached the receiver."""
    spans, logs = [], []
    for request in receiver.requests:
        body = request.body
        if request.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        kind = ExportTraceServiceRequest if "traces" in request.path else ExportLogsServiceRequest
        message = kind.FromString(body)
        for resource in getattr(message, "resource_spans", ()):
            spans += [span for scope in resource.scope_spans for span in scope.spans]
        for resource in getattr(message, "resource_logs", ()):
            logs += [log for scope in resource.scope_logs for log in scope.log_records]
    return [len(spans), len(logs)]


def run_and_flush(tmp_path, **options):
    with configured(tmp_path, **options):
        task(1)
        assert sidelight.flush(10.0)
        assert not RUNTIME.health().keys() - {"store", "traces", "logs"}
        return set(RUNTIME.health())


def test_nothing_is_exported_without_an_endpoint_or_where_it_is_off(
    tmp_path, monkeypatch, receiver
):
    assert run_and_flush(tmp_path) == {"store"}
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
    assert run_and_flush(tmp_path, otlp=False) == {"store"}


def test_one_endpoint_for_both_signals(tmp_path, monkeypatch, receiver):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"{receiver.endpoint}/base/")
    assert run_and_flush(tmp_path) == {"store", "traces", "logs"}
    assert {r.path for r in receiver.requests} == {"/base/v1/traces", "/base/v1/logs"}
    assert received(receiver) == [1, 1]
    for request in receiver.requests:
        assert request.method == "POST"
        assert request.headers["content-type"] == "application/x-protobuf"


@pytest.mark.parametrize(("signal", "counts"), [("TRACES", [1, 0]), ("LOGS", [0, 1])])
def test_an_endpoint_for_one_signal_sends_that_signal(
    tmp_path, monkeypatch, receiver, signal, counts
):
    monkeypatch.setenv(
        f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT", f"{receiver.endpoint}/{signal.lower()}"
    )
    assert run_and_flush(tmp_path) == {"store", signal.lower()}
    assert {r.path for r in receiver.requests} == {f"/{signal.lower()}"}  # taken as it is
    assert received(receiver) == counts


@pytest.mark.parametrize(
    ("variable", "value", "sinks"),
    [
        ("OTEL_TRACES_EXPORTER", "none", {"store", "logs"}),
        ("OTEL_LOGS_EXPORTER", "none", {"store", "traces"}),
        ("OTEL_TRACES_EXPORTER", "console", {"store", "logs"}),
        ("OTEL_TRACES_EXPORTER", "console,otlp", {"store", "traces", "logs"}),
        ("OTEL_TRACES_EXPORTER", "", {"store", "traces", "logs"}),
        ("OTEL_SDK_DISABLED", "true", {"store"}),
        ("OTEL_SDK_DISABLED", "false", {"store", "traces", "logs"}),
    ],
)
@pytest.mark.parametrize("how", ["environment", "argument"])
def test_variables_switch_signals_off(tmp_path, monkeypatch, receiver, variable, value, sinks, how):
    monkeypatch.setenv(variable, value)
    options = {}
    if how == "argument":
        options["otlp"] = receiver.endpoint
    else:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
    assert run_and_flush(tmp_path, **options) == sinks
    assert {r.path.rpartition("/")[2] for r in receiver.requests} == sinks - {"store"}
    assert len(stored(tmp_path / "events.db")) == 1


def test_a_disabled_sdk_leaves_the_context_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with configured(tmp_path):
        assert task(1) == {}
        parent = trace.SpanContext(5, 6, is_remote=True, trace_flags=trace.TraceFlags(1))
        with trace.use_span(trace.NonRecordingSpan(parent)):
            assert task(2) == {"traceparent": f"00-{5:032x}-{6:016x}-01"}
        assert sidelight.flush(10.0)
    without, within = stored(tmp_path / "events.db")
    assert (without["trace_id"], without["span_id"]) == (None, None)
    assert (within["trace_id"], within["span_id"]) == (f"{5:032x}", f"{6:016x}")


def test_headers_compression_and_protocol(tmp_path, monkeypatch, receiver, caplog):
    """The headers of one signal replace the common ones; an unknown protocol means http."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20secret,x-tenant=t1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "api-key=for-logs")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
    run_and_flush(tmp_path)
    headers = {r.path: r.headers for r in receiver.requests}
    assert headers["/v1/traces"]["api-key"] == "a secret"
    assert headers["/v1/traces"]["x-tenant"] == "t1"
    assert headers["/v1/logs"]["api-key"] == "for-logs"
    assert {each["content-encoding"] for each in headers.values()} == {"gzip"}
    assert received(receiver) == [1, 1]
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=http/json is not supported" in caplog.text


def test_a_protocol_for_each_signal(shared_collector, tmp_path, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", shared_collector.grpc_endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", shared_collector.http_endpoint)
    with exporting(shared_collector, tmp_path, otlp=True) as seen:
        task(1)
    agree(seen)


def test_the_collector_takes_compression_and_headers(
    shared_collector, tmp_path, monkeypatch, endpoint
):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=secret")
    with exporting(shared_collector, tmp_path, otlp=endpoint) as seen:
        task(1)
    agree(seen)


def test_certificate(tmp_path, monkeypatch, protocol, capfd):
    require_collector()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/of-other-people.pem")
    tls = require_server_tls(tmp_path)
    with Collector(tls=tls) as collector:
        to = collector.endpoint(protocol)
        assert to.startswith("https:")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", to)
        with configured(tmp_path):  # an unknown authority
            task(1)
            assert eventually(lambda: RUNTIME.health()["traces"].problem)
            assert "certificate" in RUNTIME.health()["traces"].problem.lower()
            assert eventually(lambda: RUNTIME.health()["store"].delivered)
            assert RUNTIME.health()["store"].problem == ""
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(tls.authority))
        # Not at once: a thread of the runtime that ended may still try, and hold the segment.
        assert eventually(lambda: drain(tmp_path, to)["traces"])
        assert len(collector.spans()) == len(collector.logs()) == 1
    output, errors = capfd.readouterr()
    lines = [line for line in errors.splitlines() if "ssl_transport_security" not in line]
    assert (output, lines) == ("", [])  # gRPC's core logs, where another test has imported it


def test_resource(shared_collector, tmp_path, monkeypatch):
    monkeypatch.setenv("OTEL_SERVICE_NAME", "notes")
    monkeypatch.setenv(
        "OTEL_RESOURCE_ATTRIBUTES",
        "service.name=other,team=a%2Cb%3D%20c,host.name=pod-7,broken,=x,deployment.environment.name=test",
    )
    with exporting(shared_collector, tmp_path) as seen:
        task(1)
    agree(seen)
    resource = seen.spans[0].resource
    assert resource["service.name"] == "notes"
    assert resource["team"] == "a,b= c"
    assert resource["host.name"] == "pod-7"
    assert resource["deployment.environment.name"] == "test"
    assert resource["telemetry.distro.name"] == "sidelight"
    assert resource["telemetry.sdk.language"] == "python"
    assert not resource.keys() & {"broken", ""}


def test_limits_and_a_service_without_a_name(shared_collector, tmp_path, monkeypatch):
    monkeypatch.setenv("OTEL_SERVICE_NAME", "")
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "3")
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "4")
    with exporting(shared_collector, tmp_path) as seen:
        crowded()
    (span,) = seen.spans
    assert span.resource["service.name"] == "unknown_service"
    assert span.attributes == {"a7": "text", "a8": "text", "a9": "text"}
    assert span.dropped_attributes == 8


@emits("crowded_done")
def crowded():
    for index in range(10):
        trace.get_current_span().set_attribute(f"a{index}", "text too long")


def test_the_environment_alone_configures_a_process(shared_collector, tmp_path, protocol, endpoint):
    process = child(
        """
        @emits("first", n=arg.n)
        def first(n): return n

        sidelight.configure()
        first(1)
        assert sidelight.flush(20.0)
        """,
        tmp_path / "events.db",
        OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
        OTEL_SERVICE_NAME=f"child-{tmp_path}",
    )
    finish(process)

    def mine():
        records = (*shared_collector.spans(at_least=0), *shared_collector.logs(at_least=0))
        return [r for r in records if r.resource.get("service.name") == f"child-{tmp_path}"]

    assert eventually(lambda: len(mine()) == 2)
    assert len(stored(tmp_path / "events.db")) == 1


def test_the_first_call_already_asks_the_sampler_and_its_end_loses_nothing(tmp_path, receiver):
    """The process ends before it could import the SDK, which is slow."""
    process = child(
        """
        from opentelemetry import trace

        @emits("first")
        def first(): return trace.get_current_span().get_span_context().trace_flags

        print(first() & 1, first() & 1)
        """,
        tmp_path / "events.db",
        OTEL_TRACES_SAMPLER="always_off",
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint,
    )
    assert finish(process) == "0 0\n"
    drain(tmp_path, receiver.endpoint)
    assert received(receiver) == [0, 2]
    assert len(stored(tmp_path / "events.db")) == 2
