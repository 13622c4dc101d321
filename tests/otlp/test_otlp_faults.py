"""A collector that is down, silent, slow or rude: the work goes on, and every span arrives."""

import logging
import re
import signal
import time

import pytest
from tests.support.collector import Collector
from tests.support.proxy import Proxy
from tests.support.telemetry import (
    child,
    configured,
    drain,
    eventually,
    finish,
    stored,
)

import sidelight
from sidelight import arg, emits
from sidelight.emission.emitter import EMITTER
from sidelight.runtime.process import RUNTIME

pytestmark = pytest.mark.usefixtures("plain_otel")
PROTOCOLS = ["http/protobuf", "grpc"]


@emits("task_done", n=arg.n)
def task(n):
    return n


@pytest.fixture
def collector(shared_collector):
    return shared_collector


@pytest.fixture
def silence(caplog, capfd):
    """Neither the exporters nor we say anything to the application."""
    caplog.set_level(logging.DEBUG)
    yield
    foreign = [r for r in caplog.records if r.name.startswith(("opentelemetry", "urllib3", "grpc"))]
    assert not foreign, foreign
    assert capfd.readouterr() == ("", "")


def behind(collector, protocol, **options):
    address = collector.grpc_address if protocol == "grpc" else collector.http_address
    return Proxy(address, **options)


def instance():
    return RUNTIME.spool.meta["instance"]


def arrived(collector, name):
    """How often each span and each log record of one process has come, by ``n``."""
    spans = [
        s for s in collector.spans(at_least=0) if s.resource.get("service.instance.id") == name
    ]
    logs = [r for r in collector.logs(at_least=0) if r.resource.get("service.instance.id") == name]
    return sorted(s.attributes["n"] for s in spans), sorted(r.attributes["n"] for r in logs)


def failing(*sinks):
    health = RUNTIME.health()
    return all(health[sink].failing_since is not None for sink in sinks)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_down_at_first(collector, tmp_path, monkeypatch, protocol, silence):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    proxy = behind(collector, protocol, mode="refuse")
    with proxy, configured(tmp_path, otlp=proxy.endpoint):
        name = instance()
        for n in range(10):
            task(n)
        assert eventually(lambda: failing("traces", "logs"))
        for n in range(10, 300):
            task(n)
        assert sidelight.flush(10.0)  # the store does not wait for a collector
        assert len(stored(tmp_path / "events.db")) == 300
        assert arrived(collector, name) == ([], [])
        proxy.mode = "pass"
        everything = [*range(300)]
        assert eventually(lambda: arrived(collector, name) == (everything, everything))
        assert eventually(lambda: not failing("traces") and not failing("logs"))
        assert not EMITTER.losses


TROUBLE = {
    "reset": "reset|RemoteDisconnected",
    "silent": "timed out|in time|DEADLINE",
    "drip": "in time|timed out|DEADLINE",
    "302": "302 Found",
    "400": "400 Bad Request",
    "401": "401 Unauthorized",
    "404": "404 Not Found",
    "429": "429 Too Many Requests",
    "500": "500 Internal Server Error",
    "503": "503 Service Unavailable",
}


@pytest.mark.parametrize("trouble", TROUBLE)
def test_trouble_over_http(collector, tmp_path, monkeypatch, trouble, silence):
    trouble_for_a_while(collector, tmp_path, monkeypatch, "http/protobuf", trouble)


@pytest.mark.parametrize("trouble", ["reset", "silent", "drip"])
def test_trouble_over_grpc(collector, tmp_path, monkeypatch, trouble, silence):
    trouble_for_a_while(collector, tmp_path, monkeypatch, "grpc", trouble)


def trouble_for_a_while(collector, tmp_path, monkeypatch, protocol, trouble):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.4")
    proxy = behind(collector, protocol, drip_delay=0.1)
    with proxy, configured(tmp_path, otlp=proxy.endpoint):
        name = instance()
        if trouble.isdigit():
            proxy.answer(int(trouble), {"Location": f"{proxy.endpoint}/elsewhere"})
        else:
            proxy.mode = trouble
        for n in range(20):
            task(n)
        assert eventually(lambda: failing("traces"))
        if protocol == "http/protobuf":
            assert re.search(TROUBLE[trouble], RUNTIME.health()["traces"].problem)
        assert sidelight.flush(10.0)
        assert len(stored(tmp_path / "events.db")) == 20
        proxy.mode = "pass"

        def all_there():  # at least once: a reply that was lost looks like no delivery
            spans, logs = arrived(collector, name)
            return set(spans) == set(range(20)) and (
                trouble == "404" or set(logs) == set(range(20))
            )

        assert eventually(all_there)
        assert eventually(lambda: not failing("traces"))
        unsupported = {"the OTLP endpoint takes no log records": 1} if trouble == "404" else {}
        assert EMITTER.losses == unsupported
        assert not list(tmp_path.glob("*-spool/quarantine/*"))


def test_it_waits_as_long_as_it_is_asked_to(tmp_path, silence):
    with Proxy(mode="answer") as proxy, configured(tmp_path, otlp=proxy.endpoint):
        proxy.answer(429, {"Retry-After": "60"})
        task(1)
        assert eventually(lambda: failing("traces", "logs"))
        time.sleep(0.5)
        assert sorted(r.path for r in proxy.requests) == ["/v1/logs", "/v1/traces"]
        assert "asked for a later retry" in RUNTIME.health()["traces"].problem


def test_what_was_rejected_is_counted_and_not_sent_again(tmp_path, silence):
    with Proxy(mode="answer") as proxy:
        proxy.answer_partial_success(2, "too old")
        with configured(tmp_path, otlp=proxy.endpoint):
            for n in range(5):
                task(n)
            assert sidelight.flush(10.0)
            requests = len(proxy.requests)
            assert EMITTER.losses == {
                "spans rejected by the OTLP endpoint": requests,
                "log records rejected by the OTLP endpoint": requests,
            }
            assert EMITTER.problems["spans rejected by the OTLP endpoint"] == "too old"
            time.sleep(0.2)
            assert len(proxy.requests) == requests == 2


def test_an_own_endpoint_that_is_dead_holds_only_its_signal_up(
    collector, tmp_path, monkeypatch, silence
):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.http_endpoint)
    with Proxy(collector.http_address, mode="refuse") as proxy:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", f"{proxy.endpoint}/v1/logs")
        with configured(tmp_path):
            name = instance()
            task(0)
            assert eventually(lambda: failing("logs"))
            for n in range(1, 3000):  # more than one batch
                task(n)
            everything = [*range(3000)]
            assert eventually(lambda: arrived(collector, name) == (everything, []))
            proxy.mode = "pass"
            assert eventually(lambda: arrived(collector, name) == (everything, everything))


EMITTING = """
    @emits("task_done", n=arg.n)
    def task(n): return n

    sidelight.configure()
    for n in range(50): task(n)
    print(sidelight.runtime.process.RUNTIME.spool.meta["instance"], flush=True)
"""


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("mode", ["silent", "refuse", "drip"])
def test_a_process_ends_at_once_and_its_spans_are_delivered_later(
    collector, tmp_path, monkeypatch, protocol, mode
):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    with behind(collector, protocol, mode=mode) as proxy:
        process = child(
            EMITTING + "    time.sleep(0.3)\n    print(time.monotonic(), flush=True)\n",
            tmp_path / "events.db",
            OTEL_EXPORTER_OTLP_ENDPOINT=proxy.endpoint,
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_TIMEOUT="30",
        )
        process.wait(30)
        ended = time.monotonic()
        name, at = finish(process).split()
        assert ended - float(at) < 5.0  # 1 s for us, the rest for a busy machine
        assert len(stored(tmp_path / "events.db")) == 50
        proxy.mode = "pass"
        drain(tmp_path, proxy.endpoint)
    everything = [*range(50)]
    assert eventually(
        lambda: [sorted(set(a)) for a in arrived(collector, name)] == [everything] * 2
    )
    if mode == "refuse":
        assert arrived(collector, name) == (everything, everything)  # and once
    assert not list(tmp_path.glob("*-spool/*.segment"))


def test_what_a_killed_process_left_is_delivered(collector, tmp_path):
    process = child(
        EMITTING + "    os.kill(os.getpid(), 9)\n",
        tmp_path / "events.db",
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9",
    )
    name, _ = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    drain(tmp_path, collector.http_endpoint)
    everything = [*range(50)]
    assert eventually(lambda: arrived(collector, name.strip()) == (everything, everything))
    assert len(stored(tmp_path / "events.db")) == 50


def test_a_collector_that_dies_and_comes_back(tmp_path, silence):
    with Collector() as own, configured(tmp_path, otlp=own.http_endpoint):
        for n in range(100):
            task(n)
        assert eventually(lambda: len(own.spans(at_least=0)) == len(own.logs(at_least=0)) == 100)
        own.kill()
        for n in range(100, 200):
            task(n)
        assert eventually(lambda: failing("traces", "logs"))
        own.start()
        assert eventually(lambda: len(own.spans(at_least=0)) == len(own.logs(at_least=0)) == 200)
