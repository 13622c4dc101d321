"""A smoke test for each tool of the tests: the Collector, its build, the faulty network."""

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from benchmarks import store_cost
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from tests.support import collector_build
from tests.support.collector import Collector, CollectorError, require_collector
from tests.support.collector_build import MANIFEST, CollectorBuildError, build_collector
from tests.support.proxy import Proxy

from sidelight.store.tables import EVENTS


def send(exporter, name):
    provider = TracerProvider(resource=Resource({"service.name": "smoke"}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    provider.get_tracer("sender", "1.2").start_span(name, attributes={"i": 2**53 + 1}).end()
    provider.shutdown()


def test_the_collector_gives_back_what_it_got_and_survives_a_kill():
    require_collector()
    with Collector() as collector:
        send(HttpExporter(f"{collector.http_endpoint}/v1/traces"), "over http")
        assert collector.spans()
        ports = collector.http_address, collector.grpc_address
        collector.kill()
        collector.start()
        assert (collector.http_address, collector.grpc_address) == ports
        send(GrpcExporter(collector.grpc_endpoint), "over grpc")
        spans = collector.spans(at_least=2)
        assert [span.name for span in spans] == ["over http", "over grpc"]
        assert {span.scope_name for span in spans} == {"sender"}
        assert spans[0].attributes == {"i": 2**53 + 1}
        assert spans[0].resource["service.name"] == "smoke"
        with pytest.raises(CollectorError, match=r"2 of 3 spans came in 0\.1 s"):
            collector.spans(timeout=0.1, at_least=3)
        pid = collector.pid
    assert not psutil.pid_exists(pid)


def test_a_collector_that_cannot_start_says_so_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(CollectorError), Collector(binary=Path("/bin/false")):
        pass
    assert not list(tmp_path.iterdir())


def test_a_collector_without_go_says_how_to_get_one(tmp_path, monkeypatch):
    monkeypatch.setattr(collector_build, "find", lambda _: None)
    with pytest.raises(CollectorBuildError, match="otelcol-contrib"):
        build_collector(tmp_path)
    version = collector_build._field(MANIFEST, "version")
    assert f"builder@v{version}" in collector_build.__doc__


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """The address of a server that sends back what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with listener:
            while True:
                try:
                    client, _ = listener.accept()
                    with client:
                        while data := client.recv(65_536):
                            client.sendall(data)
                except OSError:
                    if listener.fileno() < 0 or closed.is_set():
                        return

    closed = threading.Event()
    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()
    closed.set()
    listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def exchange(proxy):
    """Send a request through the proxy, and read four bytes of the answer."""
    with socket.create_connection(proxy.address, timeout=0.5) as client:
        client.sendall(b"ping")
        data = b""
        while len(data) < 4 and (more := client.recv(4)):
            data += more
        return data


@pytest.mark.parametrize(
    ("mode", "outcome"),
    [
        ("pass", b"ping"),
        ("drip", b"ping"),
        ("refuse", ConnectionRefusedError),
        ("reset", ConnectionResetError),
        ("silent", TimeoutError),
        ("lose_reply", ConnectionResetError),
    ],
)
def test_the_proxy_does_what_its_mode_says(echo, mode, outcome):
    with Proxy(echo, drip_delay=0.01) as proxy:
        assert exchange(proxy) == b"ping"
        proxy.mode = mode
        if isinstance(outcome, bytes):
            assert exchange(proxy) == outcome
        else:
            with pytest.raises(outcome):
                exchange(proxy)
        proxy.mode = "pass"
        assert exchange(proxy) == b"ping"
    with pytest.raises(ConnectionRefusedError):
        exchange(proxy)


def test_the_proxy_answers_http_by_itself():
    with Proxy(mode="answer") as proxy:
        proxy.answer(429, {"Retry-After": "7"}, b"slow down")
        with closing(http.client.HTTPConnection(*proxy.address, timeout=5.0)) as client:
            client.request("POST", "/v1/traces", b"data", {"X-Key": "k"})
            response = client.getresponse()
            assert (response.status, response.read()) == (429, b"slow down")
            assert response.getheader("Retry-After") == "7"
            proxy.answer_partial_success(3, "too old")
            client.request("POST", "/v1/traces", b"data")
            told = ExportTraceServiceResponse.FromString(client.getresponse().read())
        assert told.partial_success.rejected_spans == 3
    assert [(each.path, each.body) for each in proxy.requests] == [("/v1/traces", b"data")] * 2
    assert proxy.requests[0].headers["x-key"] == "k"


def test_the_cost_of_a_store_is_told_index_by_index(capsys):
    assert store_cost.main(["--events", "200", "--rounds", "1"]) == 0
    told = capsys.readouterr().out
    assert all(f"| `{index}` |" in told for index in EVENTS.indexes)
