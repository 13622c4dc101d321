"""What the OTLP sink does with an endpoint's answers (`test_sink_contract` has the rest)."""

import gc
import os
import subprocess
import sys
import time
from email.utils import formatdate
from types import SimpleNamespace

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from tests.support.otlp_bytes import numbers_in
from tests.support.proxy import Proxy

from sidelight.exceptions import SinkRefusedError, SinkUnavailableError, SinkUnsupportedError
from sidelight.otlp import grpc_exporter
from sidelight.otlp import sink as otlp_sink
from sidelight.otlp.endpoint import Endpoint
from sidelight.otlp.exporter import ExportError, Rejected
from sidelight.otlp.grpc_exporter import grpc_error
from sidelight.otlp.http_exporter import HttpExporter, kind_of_status, seconds_of
from sidelight.otlp.requests import decode_answer
from sidelight.otlp.sink import OtlpSettings, OtlpSink
from sidelight.record.format import Moment, Static

STATIC = Static("done", "app:work", "scheduled", "succeeded", "work")
WRITER = {"instance": "i", "resource": {"service.name": "s"}}


def record(n, details=None):
    trace = (n + 1).to_bytes(16, "big")
    return STATIC, Moment(1, n, None, None, 2, trace, n + 1, 0, 5, {"n": n}, details)


RECORDS = [record(n) for n in range(300)]
ALL = [*range(300)]


class FakeExporter:
    """Answers each request as ``judge`` says, and keeps the numbers that it accepted."""

    def __init__(self):
        self.accepted, self.requests, self.closed = [], [], 0
        self.judge = lambda numbers: None

    def send(self, request, /):
        numbers = numbers_in(request)
        self.requests.append(numbers)
        answer = self.judge(numbers)
        if isinstance(answer, ExportError):
            raise answer
        self.accepted += numbers
        return answer or Rejected()

    def close(self):
        self.closed += 1


@pytest.fixture
def fake():
    return FakeExporter()


@pytest.fixture
def counted():
    return []


@pytest.fixture
def make(fake, counted, monkeypatch):
    """Makes a sink of one signal in front of the fake exporter."""
    monkeypatch.setattr(otlp_sink, "exporter_class", lambda _: lambda _: fake)
    monkeypatch.setattr(otlp_sink, "_REQUEST", 100)
    return lambda signal, **options: OtlpSink(
        Endpoint(signal, "http://nowhere", {}), lambda *loss: counted.append(loss), **options
    )


@pytest.fixture
def sink(make):
    return make("traces")


@pytest.fixture
def pass_time(monkeypatch):
    """Advances the sink's clock."""

    def pass_time(seconds):
        later = time.monotonic() + seconds
        monkeypatch.setattr(otlp_sink, "monotonic", lambda: later)

    return pass_time


def refused_by(sink, records=RECORDS):
    """Write records; return the numbers of those that were refused."""
    with pytest.raises(SinkRefusedError, match=r"bad data|Error") as refused:
        sink.write(records, WRITER)
    return [moment.random for _, moment in refused.value.facts["records"]]


def always(kind, problem, wait=0.0):
    return lambda numbers: ExportError(kind, problem, wait)


def refuse(*bad, kind="refused"):
    return lambda numbers: ExportError(kind, "bad data") if set(bad) & set(numbers) else None


def accept(numbers):
    return None


def test_a_retry_continues_after_the_accepted_pieces(sink, fake):
    fake.judge = lambda numbers: ExportError("unavailable", "away") if 200 in numbers else None
    for _ in range(3):
        with pytest.raises(SinkUnavailableError, match="OTLP spans does not answer: away"):
            sink.write(RECORDS, WRITER)
    assert (fake.accepted, fake.closed) == ([*range(200)], 3)
    fake.judge = accept
    sink.write(RECORDS, WRITER)
    assert fake.accepted == ALL
    assert [len(numbers) for numbers in fake.requests] == [100] * 6
    sink.write(RECORDS[:5], WRITER)  # another batch begins at its beginning
    assert fake.accepted == [*ALL, *range(5)]


@pytest.mark.parametrize("bad", [(0,), (299,), (5, 130, 131), tuple(range(0, 300, 50))])
def test_poison_records_are_found_and_the_others_are_accepted_once(sink, fake, bad):
    fake.judge = refuse(*bad)
    assert refused_by(sink) == list(bad)
    assert sorted(fake.accepted) == sorted(set(ALL) - set(bad))


def test_an_endpoint_that_refuses_an_empty_request_is_unavailable(sink, fake):
    fake.judge = always("refused", "400 Bad Request")
    with pytest.raises(SinkUnavailableError, match="400 Bad Request"):
        sink.write(RECORDS, WRITER)
    assert [len(numbers) for numbers in fake.requests] == [100, 0]


def test_an_internal_error_is_the_endpoints_until_it_repeats(sink, fake):
    fake.judge = refuse(7, kind="failed")
    for _ in range(7):
        with pytest.raises(SinkUnavailableError):
            sink.write(RECORDS, WRITER)
    assert not fake.accepted
    assert refused_by(sink) == [7]
    assert sorted(fake.accepted) == [n for n in ALL if n != 7]


def test_a_retry_still_reports_the_poison_records_found_before(sink, fake):
    fake.judge = lambda numbers: (
        ExportError("unavailable", "away") if 299 in numbers else refuse(3)(numbers)
    )
    with pytest.raises(SinkUnavailableError):
        sink.write(RECORDS, WRITER)
    fake.judge = accept
    assert refused_by(sink) == [3]


def test_a_record_that_cannot_be_converted_is_refused_alone(sink, fake):
    odd = record(3, {"events": "nonsense"})
    assert refused_by(sink, [*RECORDS[:3], odd, *RECORDS[4:6]]) == [3]
    assert fake.accepted == [0, 1, 2, 4, 5]


def test_a_record_is_refused_once_however_often_its_batch_is_tried(sink, fake):
    batch = [*RECORDS[:3], record(3, {"events": "nonsense"}), *RECORDS[4:8]]
    for _ in range(2):
        fake.judge = lambda numbers: (
            ExportError("unavailable", "away") if 7 in numbers else refuse(1)(numbers)
        )
        with pytest.raises(SinkUnavailableError):
            sink.write(batch, WRITER)
        fake.judge = refuse(1)
    assert sorted(refused_by(sink, batch)) == [1, 3]


def test_a_ledger_makes_no_request(fake, sink):
    ledger = Static(None, "sidelight:ledger", "scheduled", "ledger", None)
    sink.write([(ledger, record(1)[1])], WRITER)
    assert not fake.requests


def test_rejected_items_are_counted(sink, fake, counted):
    fake.judge = lambda numbers: Rejected(2, "too old") if 0 in numbers else None
    sink.write(RECORDS, WRITER)
    assert counted == [("spans rejected by the OTLP endpoint", "too old")] * 2
    fake.judge = lambda numbers: Rejected((1 << 63) - 1, "nonsense")
    sink.write(RECORDS[:3], WRITER)
    assert len(counted) == 5  # no more than were sent


def test_a_request_is_bounded_in_bytes(sink, fake, monkeypatch):
    monkeypatch.setattr(otlp_sink, "_REQUEST_BYTES", 2000)
    sink.write([record(n, {"name": "x" * 900}) for n in range(7)], WRITER)
    assert [len(numbers) for numbers in fake.requests] == [2, 2, 2, 1]


def test_an_endpoint_is_not_asked_before_it_wants_a_retry(sink, fake, pass_time):
    fake.judge = always("unavailable", "busy", 30.0)
    for _ in range(3):
        with pytest.raises(SinkUnavailableError, match="busy"):
            sink.write(RECORDS, WRITER)
    assert len(fake.requests) == 1
    pass_time(31.0)
    fake.judge = accept
    sink.write(RECORDS, WRITER)
    assert fake.accepted == ALL


def test_a_back_end_without_logs_blocks_nothing_and_one_without_spans_is_unavailable(
    make, fake, counted, pass_time
):
    fake.judge = always("unsupported", "404 Not Found")
    with pytest.raises(SinkUnavailableError, match="404"):
        make("traces").write(RECORDS, WRITER)
    sink = make("logs")
    sink.write(RECORDS, WRITER)
    sink.write(RECORDS[:4], WRITER)
    assert len(fake.requests) == 2
    ((reason, problem),) = counted
    assert reason == "the OTLP endpoint takes no log records"
    assert "OTEL_LOGS_EXPORTER=none" in problem
    pass_time(601.0)
    fake.judge = accept
    sink.write(RECORDS[:4], WRITER)
    assert fake.accepted == [0, 1, 2, 3]


@pytest.mark.parametrize("signal", ["traces", "logs"])
def test_a_lossless_sink_raises_what_the_endpoint_does_not_take(make, fake, counted, signal):
    sink = make(signal, lossless=True)
    fake.judge = always("unsupported", "404 Not Found")
    for _ in range(2):
        with pytest.raises(SinkUnsupportedError, match=r"takes no OTLP .*: 404 Not Found"):
            sink.write(RECORDS, WRITER)
    fake.judge = lambda numbers: Rejected(100, "bad data") if 0 in numbers else None
    assert refused_by(sink) == [*range(100)]
    assert fake.accepted == ALL  # a rejected request was received too, and is not sent again
    assert counted == []
    fake.judge = lambda numbers: Rejected(1, "too old")
    sink.write(RECORDS[:5], WRITER)  # one of five, but nobody knows which
    assert len(counted) == 1


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("CERTIFICATE", "/nowhere.pem", "OTEL_EXPORTER_OTLP_CERTIFICATE=/nowhere.pem: .*No such"),
        ("TRACES_CLIENT_CERTIFICATE", "/nowhere.pem", "TRACES_CLIENT_CERTIFICATE=/nowhere.pem"),
        ("HEADERS", "api-key=gehe%0Aim", "OTEL_EXPORTER_OTLP_HEADERS: HTTP cannot .*'api-key'$"),
        ("ENDPOINT", "collector:4318", "'collector:4318/v1/traces' is no URL"),
        ("ENDPOINT", "https://u:geheim@collector:port", r"'https://u:\*\*\*@coll.*' is no URL"),
    ],
)
def test_an_exporter_that_cannot_be_made_is_unavailable(name, value, problem):
    given = {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector"}
    sink = OtlpSink(Endpoint("traces", None, given | {f"OTEL_EXPORTER_OTLP_{name}": value}))
    with pytest.raises(SinkUnavailableError, match=problem) as raised:
        sink.write(RECORDS, WRITER)
    assert "gehe" not in str(raised.value)


# -- how an answer is read -------------------------------------------------------------------


def test_settings_make_a_sink_for_each_signal():
    for off, names in [((), ["traces", "logs"]), (("traces",), ["logs"]), (("traces", "logs"), [])]:
        settings = OtlpSettings(**dict.fromkeys(off, False), environment={})
        assert [sink.name for sink in settings.sinks()] == names


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, 5.0),
        ({"TIMEOUT": "2"}, 2.0),
        ({"TIMEOUT": "2", "TRACES_TIMEOUT": "0.5"}, 0.5),
        ({"TIMEOUT": "10000"}, 60.0),
        ({"TIMEOUT": "soon"}, 5.0),
        ({"TIMEOUT": "-1"}, 5.0),
    ],
)
def test_timeouts(environment, seconds):
    named = {f"OTEL_EXPORTER_OTLP_{name}": value for name, value in environment.items()}
    assert Endpoint("traces", None, named).timeout == seconds


KINDS = {
    "refused": (400, 413),
    "unsupported": (404,),
    "failed": (500,),
    "unavailable": (302, 401, 429, 503),
}


def test_a_status_has_a_meaning():
    for kind, statuses in KINDS.items():
        assert {kind_of_status(status) for status in statuses} == {kind}


class RpcError(grpc.RpcError):
    def __init__(self, code, metadata=()):
        self.code = lambda: code
        self.details = lambda: "because"
        self.trailing_metadata = lambda: metadata


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
def test_a_code_has_a_meaning(code, metadata, kind, wait):
    error = grpc_error(RpcError(grpc.StatusCode[code], metadata))
    assert (error.kind, error.retry_after, str(error)) == (kind, wait, f"{code}: because")


@pytest.mark.parametrize("value", [None, "DEBUG", "ERROR"])
def test_the_application_changes_a_variable_of_grpc_during_the_import(monkeypatch, value):
    """The relay's thread imports gRPC while the application runs."""

    class Imported:
        @staticmethod
        def import_module(_):
            assert os.environ.pop("GRPC_VERBOSITY").upper() == "ERROR"
            if value is not None:
                os.environ["GRPC_VERBOSITY"] = value
            return grpc

    monkeypatch.setattr(grpc_exporter, "importlib", Imported)
    monkeypatch.setenv("GRPC_VERBOSITY", "")  # so that it is put back at the end
    monkeypatch.delenv("GRPC_VERBOSITY")
    # A second copy of gRPC in this process would not know the status codes of the first.
    monkeypatch.setattr(grpc_exporter, "sys", SimpleNamespace(modules={}))
    grpc_exporter._import_grpc()
    assert os.environ.get("GRPC_VERBOSITY") == value


def test_the_variable_of_grpc_is_as_it_was_after_the_import():
    script = "import os, sidelight.otlp.grpc_exporter; print(os.environ.get('GRPC_VERBOSITY'))"
    for value in ({}, {"GRPC_VERBOSITY": "INFO"}):
        environment = {k: v for k, v in os.environ.items() if k != "GRPC_VERBOSITY"} | value
        ran = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, check=True
        )
        assert ran.stdout.decode().strip() == value.get("GRPC_VERBOSITY", "None")


def test_partial_success():
    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans = 3
    response.partial_success.error_message = "too old"
    assert decode_answer(response.SerializeToString()) == (3, "too old")
    response.partial_success.rejected_spans = -1
    assert decode_answer(response.SerializeToString()) == (0, "too old")
    for other in (b"", b'{"not": "protobuf"}', b"\x0a\xff", b"\x08\x01", b"\xff" * 9):
        assert decode_answer(other) == (0, "")


def test_retry_after():
    given = ("7", "-7", "1e9", formatdate(time.time() - 60, usegmt=True), "", "soon")
    assert [seconds_of(text) for text in given] == [7.0, 0.0, 300.0, 0.0, 0.0, 0.0]
    assert 0.0 < seconds_of(formatdate(time.time() + 60, usegmt=True)) <= 60.0


def test_the_whole_answer_must_arrive_within_the_timeout():
    """Including its headers, byte by byte: a timeout of a socket starts anew with each byte."""
    target = Proxy(mode="answer")
    with target, Proxy(target.address, mode="drip", drip_delay=0.05) as proxy:
        target.answer(200, body=b"x" * 1000)  # 50 s
        environment = {"OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "0.3"}
        exporter = HttpExporter(Endpoint("traces", proxy.endpoint, environment))
        began = time.monotonic()
        with pytest.raises(ExportError, match=r"in time|timed out"):
            exporter.send(b"")
        assert time.monotonic() - began < 20
        exporter.close()
    gc.collect()  # a socket that is left open would warn


def test_a_long_answer_is_not_read_to_its_end():
    with Proxy(mode="answer") as proxy:
        proxy.answer(200, body=b"x" * 1_000_000)
        exporter = HttpExporter(Endpoint("traces", proxy.endpoint, {}))
        for _ in range(2):
            assert exporter.send(b"") == Rejected()
        exporter.close()
    gc.collect()
