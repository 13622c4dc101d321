"""A Collector that is down, silent, slow or refusing: the work goes on, and every span arrives."""

import logging
import re
import signal
import time

import pytest
from tests.support.collector import Collector, require_collector
from tests.support.proxy import Proxy
from tests.support.telemetry import child, configured, drain, eventually, finish, stored

import sidelight
from sidelight import arg, emits
from sidelight.emission.emitter import EMITTER
from sidelight.runtime.process import RUNTIME

pytestmark = pytest.mark.usefixtures("plain_otel")


@emits("task_done", n=arg.n)
def task(n):
    return n


@pytest.fixture
def silence(caplog, capfd):
    """The application's log and standard output get nothing from the exporters."""
    caplog.set_level(logging.DEBUG)
    yield
    foreign = [r for r in caplog.records if r.name.startswith(("opentelemetry", "urllib3", "grpc"))]
    assert not foreign, foreign
    assert capfd.readouterr() == ("", "")


class Behind:
    """A proxy before the Collector, and what has arrived of one process."""

    def __init__(self, collector, protocol="http/protobuf", **options):
        self.collector = collector
        grpc = protocol == "grpc"
        self.proxy = Proxy(collector.grpc_address if grpc else collector.http_address, **options)

    def arrived(self, instance):
        """The numbers of its spans, and of its log records, sorted."""
        return tuple(
            sorted(
                item.attributes["n"]
                for item in read(at_least=0)
                if item.resource.get("service.instance.id") == instance and "n" in item.attributes
            )
            for read in (self.collector.spans, self.collector.logs)
        )

    def has_arrived(self, instance, count):
        """Whether that many spans and log records arrive, each once."""
        return eventually(lambda: self.arrived(instance) == ([*range(count)],) * 2)


@pytest.fixture
def behind(shared_collector, protocol):
    return Behind(shared_collector, protocol)


def instance():
    return RUNTIME.spool.meta["instance"]


def failing(*sinks):
    health = RUNTIME.health()
    return all(health[sink].failing_since is not None for sink in sinks)


def test_a_collector_that_is_down_at_first(tmp_path, behind, silence):
    behind.proxy.mode = "refuse"
    with behind.proxy as proxy, configured(tmp_path, otlp=proxy.endpoint):
        name = instance()
        for n in range(10):
            task(n)
        assert eventually(lambda: failing("traces", "logs"))
        for n in range(10, 300):
            task(n)
        assert sidelight.flush(10.0)  # the store does not wait for a Collector
        assert len(stored(tmp_path / "events.db")) == 300
        assert behind.arrived(name) == ([], [])
        proxy.mode = "pass"
        assert behind.has_arrived(name, 300)
        assert eventually(lambda: not failing("traces") and not failing("logs"))
        assert not EMITTER.losses


FAULTS = {
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


@pytest.mark.parametrize(
    ("protocol", "fault"),
    [("http/protobuf", fault) for fault in FAULTS] + [("grpc", f) for f in FAULTS if f.isalpha()],
    indirect=["protocol"],
)
def test_a_fault_for_a_while(tmp_path, monkeypatch, behind, protocol, fault, silence):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.4")
    behind.proxy.drip_delay = 0.1
    with behind.proxy as proxy, configured(tmp_path, otlp=proxy.endpoint):
        name = instance()
        if fault.isdigit():
            proxy.answer(int(fault), {"Location": f"{proxy.endpoint}/elsewhere"})
        else:
            proxy.mode = fault
        for n in range(20):
            task(n)
        assert eventually(lambda: failing("traces"))
        if protocol == "http/protobuf":
            assert re.search(FAULTS[fault], RUNTIME.health()["traces"].problem)
        assert sidelight.flush(10.0)
        assert len(stored(tmp_path / "events.db")) == 20
        proxy.mode = "pass"
        no_logs = fault == "404"

        def all_arrived():  # at least once: a lost reply looks like no delivery
            spans, logs = map(set, behind.arrived(name))
            return spans == {*range(20)} and (no_logs or logs == spans)

        assert eventually(all_arrived)
        assert eventually(lambda: not failing("traces"))
        assert EMITTER.losses == ({"the OTLP endpoint takes no log records": 1} if no_logs else {})
        assert not list(tmp_path.glob("*-spool/quarantine/*"))


def test_retry_after_is_respected(tmp_path, silence):
    with Proxy(mode="answer") as proxy, configured(tmp_path, otlp=proxy.endpoint):
        proxy.answer(429, {"Retry-After": "60"})
        task(1)
        assert eventually(lambda: failing("traces", "logs"))
        asked = "asked for a later retry"
        assert eventually(lambda: asked in RUNTIME.health()["traces"].problem)
        assert sorted(r.path for r in proxy.requests) == ["/v1/logs", "/v1/traces"]


def test_rejected_items_are_counted_and_not_sent_again(tmp_path, silence):
    with Proxy(mode="answer") as proxy:
        proxy.answer_partial_success(2, "too old")
        with configured(tmp_path, otlp=proxy.endpoint):
            for n in range(5):
                task(n)
            assert sidelight.flush(10.0)
            requests = len(proxy.requests)
            reasons = [f"{what} rejected by the OTLP endpoint" for what in ("spans", "log records")]
            assert EMITTER.losses == dict.fromkeys(reasons, requests)
            assert EMITTER.problems[reasons[0]] == "too old"
            time.sleep(0.2)
            assert len(proxy.requests) == requests == 2


def test_a_dead_endpoint_blocks_only_its_signal(shared_collector, tmp_path, monkeypatch, silence):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", shared_collector.http_endpoint)
    behind = Behind(shared_collector, mode="refuse")
    with behind.proxy as proxy:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", f"{proxy.endpoint}/v1/logs")
        with configured(tmp_path):
            name = instance()
            task(0)
            assert eventually(lambda: failing("logs"))
            for n in range(1, 3000):  # more than one batch
                task(n)
            assert eventually(lambda: behind.arrived(name) == ([*range(3000)], []))
            proxy.mode = "pass"
            assert behind.has_arrived(name, 3000)


EMITTING = """
    @emits("task_done", n=arg.n)
    def task(n): return n

    sidelight.configure()
    for n in range(50): task(n)
    print(sidelight.runtime.process.RUNTIME.spool.meta["instance"], flush=True)
"""


@pytest.mark.parametrize("mode", ["silent", "refuse", "drip"])
def test_a_process_ends_at_once_and_its_spans_are_delivered_later(tmp_path, behind, protocol, mode):
    behind.proxy.mode = mode
    with behind.proxy as proxy:
        process = child(
            EMITTING + "    time.sleep(0.3)\n    print(time.monotonic(), flush=True)\n",
            tmp_path / "events.db",
            OTEL_EXPORTER_OTLP_ENDPOINT=proxy.endpoint,
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_TIMEOUT="30",
        )
        process.wait(60)
        ended = time.monotonic()
        name, at = finish(process).split()
        assert ended - float(at) < 20.0  # the exit waits for 1 s; the exporter would for 30
        assert len(stored(tmp_path / "events.db")) == 50
        proxy.mode = "pass"
        drain(tmp_path, proxy.endpoint)
    everything = [*range(50)]
    assert eventually(lambda: [sorted(set(a)) for a in behind.arrived(name)] == [everything] * 2)
    if mode == "refuse":
        assert behind.arrived(name) == (everything, everything)  # and once
    assert not list(tmp_path.glob("*-spool/*.segment"))


def test_the_spans_of_a_killed_process_are_delivered(shared_collector, tmp_path):
    process = child(
        EMITTING + "    os.kill(os.getpid(), 9)\n",
        tmp_path / "events.db",
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9",
    )
    name, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    drain(tmp_path, shared_collector.http_endpoint)
    assert Behind(shared_collector).has_arrived(name.strip(), 50)
    assert len(stored(tmp_path / "events.db")) == 50


def test_a_collector_that_dies_and_comes_back(tmp_path, silence):
    require_collector()
    with Collector() as own, configured(tmp_path, otlp=own.http_endpoint):

        def have_arrived(count):
            return len(own.spans(at_least=0)) == len(own.logs(at_least=0)) == count

        for n in range(100):
            task(n)
        assert eventually(lambda: have_arrived(100))
        own.kill()
        for n in range(100, 200):
            task(n)
        assert eventually(lambda: failing("traces", "logs"))
        own.start()
        assert eventually(lambda: have_arrived(200))
