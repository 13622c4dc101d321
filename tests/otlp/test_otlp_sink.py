"""The OTLP sink: what it does with what an endpoint says."""

import gc
import time
from email.utils import formatdate

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.trace import ReadableSpan
from tests.support.proxy import Proxy

from sidelight.exceptions import SinkRefusedError, SinkUnavailableError
from sidelight.otlp import exporters
from sidelight.otlp import sink as otlp_sink
from sidelight.otlp.exporters import (
    Endpoint,
    ExportError,
    HttpExporter,
    Rejected,
    _grpc_error,
    _http_kind,
    _rejected,
)
from sidelight.otlp.session import _seconds
from sidelight.otlp.sink import OtlpSettings, OtlpSink
from sidelight.record.format import Moment, Static

STATIC = Static("done", "app:work", "scheduled", "succeeded", "work")
WRITER = {"instance": "i", "resource": {"service.name": "s"}}


def record(n, details=None):
    trace = (n + 1).to_bytes(16, "big")
    return STATIC, Moment(1, n, None, None, 2, trace, n + 1, 0, 5, {"n": n}, details)


RECORDS = [record(n) for n in range(300)]


class Fake:
    """An exporter that does what it is told to, and keeps what it took."""

    def __init__(self):
        self.taken = []
        self.requests = []
        self.closed = 0
        self.judge = lambda numbers: None

    def send(self, items, /):
        numbers = [int(item.attributes["n"]) for item in items]
        self.requests.append(numbers)
        said = self.judge(numbers)
        if isinstance(said, ExportError):
            raise said
        self.taken += numbers
        return said or Rejected()

    def close(self):
        self.closed += 1


@pytest.fixture
def fake():
    return Fake()


@pytest.fixture
def counted():
    return []


@pytest.fixture
def sink(fake, counted, monkeypatch):
    return make(fake, counted, monkeypatch, "traces")


def make(fake, counted, monkeypatch, signal):
    monkeypatch.setattr(Endpoint, "exporter", lambda _: fake)
    if signal == "logs":
        monkeypatch.setattr(
            otlp_sink,
            "log_of",
            lambda static, moment, *_: ReadableSpan("", attributes=moment.attributes),
        )
    return OtlpSink(Endpoint(signal, "http://nowhere", {}), lambda *told: counted.append(told))


def test_pieces(sink, fake):
    sink.write(RECORDS, WRITER)
    assert fake.taken == [*range(300)]
    assert [len(numbers) for numbers in fake.requests] == [128, 128, 44]


def test_a_retry_goes_on_behind_what_was_taken(sink, fake):
    fake.judge = lambda numbers: ExportError("unavailable", "away") if 200 in numbers else None
    for _ in range(3):
        with pytest.raises(SinkUnavailableError, match="OTLP spans does not answer: away"):
            sink.write(RECORDS, WRITER)
    assert fake.taken == [*range(128)]
    assert fake.closed == 3
    fake.judge = lambda numbers: None
    sink.write(RECORDS, WRITER)
    assert fake.taken == [*range(300)]
    sink.write(RECORDS[:5], WRITER)  # another batch begins at its beginning
    assert fake.taken == [*range(300), *range(5)]


def refuse(*bad, kind="refused"):
    return lambda numbers: ExportError(kind, "bad data") if set(bad) & set(numbers) else None


@pytest.mark.parametrize("bad", [(0,), (299,), (5, 130, 131), tuple(range(0, 300, 50))])
def test_what_is_refused_is_found_and_all_the_rest_taken_once(sink, fake, bad):
    fake.judge = refuse(*bad)
    with pytest.raises(SinkRefusedError) as told:
        sink.write(RECORDS, WRITER)
    assert [moment.random for _, moment in told.value.facts["records"]] == list(bad)
    assert sorted(fake.taken) == sorted(set(range(300)) - set(bad))
    assert "bad data" in str(told.value)


def test_an_endpoint_that_refuses_nothing_at_all_is_broken(sink, fake):
    fake.judge = lambda numbers: ExportError("refused", "400 Bad Request")
    with pytest.raises(SinkUnavailableError, match="400 Bad Request"):
        sink.write(RECORDS, WRITER)
    assert [len(numbers) for numbers in fake.requests] == [128, 0]


def test_a_failure_inside_is_taken_for_one_until_it_repeats(sink, fake):
    fake.judge = refuse(7, kind="failed")
    for _ in range(7):
        with pytest.raises(SinkUnavailableError):
            sink.write(RECORDS, WRITER)
    assert not fake.taken
    with pytest.raises(SinkRefusedError) as told:
        sink.write(RECORDS, WRITER)
    assert [moment.random for _, moment in told.value.facts["records"]] == [7]
    assert sorted(fake.taken) == [n for n in range(300) if n != 7]


def test_refused_ones_are_not_forgotten_over_a_retry(sink, fake):
    def judge(numbers):
        if 299 in numbers:
            return ExportError("unavailable", "away")
        return refuse(3)(numbers)

    fake.judge = judge
    with pytest.raises(SinkUnavailableError):
        sink.write(RECORDS, WRITER)
    fake.judge = lambda numbers: None
    with pytest.raises(SinkRefusedError) as told:
        sink.write(RECORDS, WRITER)
    assert [moment.random for _, moment in told.value.facts["records"]] == [3]


def test_a_record_that_cannot_be_built_is_refused_alone(sink, fake):
    records = [*RECORDS[:3], record(3, {"events": "nonsense"}), *RECORDS[4:6]]
    with pytest.raises(SinkRefusedError) as told:
        sink.write(records, WRITER)
    assert told.value.facts["records"] == [records[3]]
    assert fake.taken == [0, 1, 2, 4, 5]


def test_records_of_no_interest_make_no_request(fake, sink):
    moment = record(1)[1]
    ledger = (Static(None, "sidelight:ledger", "scheduled", "ledger", None), moment)
    sink.write([ledger], WRITER)
    assert not fake.requests


def test_what_was_rejected_is_counted(sink, fake, counted):
    fake.judge = lambda numbers: Rejected(2, "too old") if 0 in numbers else None
    sink.write(RECORDS, WRITER)
    assert counted == [("spans rejected by the OTLP endpoint", "too old")] * 2


def test_it_is_left_alone_for_as_long_as_it_wants(sink, fake, monkeypatch):
    fake.judge = lambda numbers: ExportError("unavailable", "busy", retry_after=30.0)
    for _ in range(3):
        with pytest.raises(SinkUnavailableError, match="busy"):
            sink.write(RECORDS, WRITER)
    assert len(fake.requests) == 1
    later = time.monotonic() + 31.0
    monkeypatch.setattr(otlp_sink.time, "monotonic", lambda: later)
    fake.judge = lambda numbers: None
    sink.write(RECORDS, WRITER)
    assert fake.taken == [*range(300)]


def test_a_back_end_without_logs_holds_nothing_up(fake, counted, monkeypatch):
    sink = make(fake, counted, monkeypatch, "logs")
    fake.judge = lambda numbers: ExportError("unsupported", "404 Not Found")
    sink.write(RECORDS, WRITER)
    sink.write(RECORDS[:4], WRITER)
    assert len(fake.requests) == 1
    ((reason, problem),) = counted
    assert reason == "the OTLP endpoint takes no log records"
    assert "OTEL_LOGS_EXPORTER=none" in problem
    later = time.monotonic() + 601.0
    monkeypatch.setattr(otlp_sink.time, "monotonic", lambda: later)
    fake.judge = lambda numbers: None
    sink.write(RECORDS[:4], WRITER)
    assert fake.taken == [0, 1, 2, 3]


def test_a_back_end_without_spans_is_a_wrong_address(sink, fake):
    fake.judge = lambda numbers: ExportError("unsupported", "404 Not Found")
    with pytest.raises(SinkUnavailableError, match="404"):
        sink.write(RECORDS, WRITER)


def test_what_the_sdk_cannot_make_an_exporter_of_is_unavailable(sink, monkeypatch):
    def fail(_):
        raise FileNotFoundError("no certificate")

    monkeypatch.setattr(Endpoint, "exporter", fail)
    with pytest.raises(SinkUnavailableError, match="no certificate"):
        sink.write(RECORDS, WRITER)


def test_settings_make_a_sink_for_each_signal():
    assert [s.name for s in OtlpSettings(environment={}).sinks()] == ["traces", "logs"]
    assert [s.name for s in OtlpSettings(traces=False, environment={}).sinks()] == ["logs"]
    assert OtlpSettings(traces=False, logs=False, environment={}).sinks() == []


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, 5.0),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "2"}, 2.0),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "2", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "0.5"}, 0.5),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "10000"}, 60.0),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "soon"}, 5.0),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "-1"}, 5.0),
    ],
)
def test_timeouts(environment, seconds):
    assert Endpoint("traces", None, environment).timeout == seconds


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (None, "unavailable"),
        (302, "unavailable"),
        (400, "refused"),
        (401, "unavailable"),
        (404, "unsupported"),
        (413, "refused"),
        (429, "unavailable"),
        (500, "failed"),
        (503, "unavailable"),
    ],
)
def test_what_a_status_means(status, kind):
    assert _http_kind(status) == kind


class RpcError(grpc.RpcError):
    def __init__(self, code, metadata=()):
        self._code, self._metadata = code, metadata

    def code(self):
        return self._code

    def details(self):
        return "told"

    def trailing_metadata(self):
        return self._metadata


RETRY_INFO = (("google.rpc.retryinfo-bin", b"\x0a\x02\x08\x07"),)


@pytest.mark.parametrize(
    ("code", "metadata", "kind", "wait"),
    [
        ("UNAVAILABLE", (), "unavailable", 0.0),
        ("UNAVAILABLE", RETRY_INFO, "unavailable", 7.0),
        ("DEADLINE_EXCEEDED", None, "unavailable", 0.0),
        ("RESOURCE_EXHAUSTED", RETRY_INFO, "unavailable", 7.0),
        ("RESOURCE_EXHAUSTED", (), "refused", 0.0),
        ("INVALID_ARGUMENT", (), "refused", 0.0),
        ("UNIMPLEMENTED", (), "unsupported", 0.0),
        ("INTERNAL", (), "failed", 0.0),
        ("UNAUTHENTICATED", (), "unavailable", 0.0),
    ],
)
def test_what_a_code_means(code, metadata, kind, wait):
    error = _grpc_error(RpcError(grpc.StatusCode[code], metadata))
    assert (error.kind, error.retry_after, str(error)) == (kind, wait, f"{code}: told")


def test_partial_success():
    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans = 3
    response.partial_success.error_message = "too old"
    assert _rejected("traces", response.SerializeToString()) == (3, "too old")
    assert _rejected("traces", b"") == (0, "")
    assert _rejected("logs", b'{"not": "protobuf"}') == (0, "")


def test_retry_after():
    assert _seconds("7") == 7.0
    assert _seconds("-7") == 0.0
    assert _seconds("1e9") == 300.0
    assert 50.0 < _seconds(formatdate(time.time() + 60, usegmt=True)) <= 60.0
    assert _seconds(formatdate(time.time() - 60, usegmt=True)) == 0.0
    assert _seconds("") == _seconds("soon") == 0.0


def test_an_answer_has_to_be_whole_in_time():
    """Also its headers, byte by byte: the timeout of requests begins anew with each."""
    target = Proxy(mode="answer")
    with target, Proxy(target.address, mode="drip", drip_delay=0.05) as proxy:
        target.answer(200)
        environment = {"OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "0.3"}
        exporter = HttpExporter(Endpoint("traces", proxy.endpoint, environment))
        begun = time.monotonic()
        with exporters.silence_exporters(), pytest.raises(ExportError, match=r"in time|timed out"):
            exporter.send([])
        assert time.monotonic() - begun < 1.5
        exporter.close()
    gc.collect()  # a socket left open would warn


def test_a_long_answer_is_not_read_to_its_end():
    with Proxy(mode="answer") as proxy:
        proxy.answer(200, body=b"x" * 1_000_000)
        exporter = HttpExporter(Endpoint("traces", proxy.endpoint, {}))
        for _ in range(2):
            assert exporter.send([]) == Rejected()
        exporter.close()
    gc.collect()
