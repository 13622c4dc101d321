"""Self-metrics through the metrics API."""

import json
import os
import re
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from tests.support.collector import Collector, require_collector
from tests.support.commands import KILLED, emit, end, of, sidelight, spawn
from tests.support.platforms import needs_spool_files
from tests.support.stored import record
from tests.support.telemetry import child, finish

from sidelight import Store
from sidelight.cli.store.alerts import measured_by
from sidelight.emission.emitter import EMITTER
from sidelight.record import Expectation
from sidelight.record.costs import Costs
from sidelight.runtime import metrics, observe_stored
from sidelight.runtime.event_metrics import EventMetrics
from sidelight.spool.sink import Health
from sidelight.store.sink import StoreSink


@pytest.fixture
def reader():
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    reader.meter = provider.get_meter("sidelight")
    before = metrics._meters[:]
    yield reader
    metrics._meters[:] = before
    provider.shutdown()


def read(reader):
    """Read the values by the metric's name and attributes."""
    data = reader.get_metrics_data()
    (scope,) = data.resource_metrics[0].scope_metrics
    return {
        (metric.name, *point.attributes.values()): point.value
        for metric in scope.metrics
        for point in metric.data.data_points
    }


def test_all_of_it(reader, monkeypatch):
    costs = Costs()
    for ns in (2_000, 3_000, 20_000_000):
        costs.add(ns)
    monkeypatch.setattr(EMITTER, "costs", {"app:work": costs})
    monkeypatch.setattr(EMITTER, "losses", {"no room in the spool": 4})
    health = {
        "store": Health(delivered=7),
        "traces": Health(delivered=1, failing_since=time.time() - 60, problem="away"),
    }
    metrics.register(lambda: health, lambda: 1024, reader.meter)
    told = read(reader)
    assert 59 < told.pop(("sidelight.sink.failing", "traces")) < 90
    assert told == {
        ("sidelight.emissions", "app:work"): 3,
        ("sidelight.budget.breaches", "app:work"): 1,
        ("sidelight.losses", "no room in the spool"): 4,
        ("sidelight.sink.deliveries", "store"): 7,
        ("sidelight.sink.deliveries", "traces"): 1,
        ("sidelight.sink.failing", "store"): 0,
        ("sidelight.spool.usage",): 1024,
    }


@pytest.mark.parametrize("configured_again", [True, False])
def test_a_provider_that_comes_later(configured_again, tmp_path):
    process = child(
        """
        @emits("task_done")
        def task(): pass

        sidelight.configure()
        task()
        sidelight.flush()
        assert "opentelemetry.metrics" not in sys.modules
        from opentelemetry import metrics
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        reader = InMemoryMetricReader()
        metrics.set_meter_provider(MeterProvider([reader]))
        AGAIN
        task()
        sidelight.flush()
        scopes = reader.get_metrics_data().resource_metrics[0].scope_metrics
        found = {m.name: m.data.data_points for scope in scopes for m in scope.metrics}
        print(found["sidelight.emissions"][0].value)
        print(found["sidelight.spool.usage"][0].value > 0)
        """.replace("AGAIN", "sidelight.configure()" if configured_again else ""),
        tmp_path / "events.db",
    )
    assert finish(process) == "2\nTrue\n"


# -- metrics made of events ----------------------------------------------------------------------


def made_of(type_, outcome="succeeded", duration=None, **named):
    return record(type_, outcome=outcome, duration=duration, **named)


def test_an_event_counts_once_however_often_it_is_delivered(reader, tmp_path):
    events = EventMetrics(reader.meter)
    url = f"sqlite:///{tmp_path / 'events.db'}"
    batch = [
        made_of("sent", duration=250_000_000, bits=1),
        made_of("sent", duration=750_000_000, bits=2),
        made_of("sent", "failed", artifact="a2", bits=3),
        made_of("made", bits=4),
    ]
    for _ in range(2):  # two relays, each of which delivers twice
        with closing(StoreSink(url, observe=events.observe)) as sink:
            for _ in range(2):
                sink.write(batch, {"instance": "p1"})
            sink.rehearse([made_of("never")], {"instance": "p1"})
    data = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
    found = {metric.name: metric for metric in data}
    assert {
        tuple(point.attributes.values()): point.value
        for point in found["sidelight.events"].data.data_points
    } == {("sent", "succeeded"): 2, ("sent", "failed"): 1, ("made", "succeeded"): 1}
    (point,) = found["sidelight.event.duration"].data.data_points
    assert (found["sidelight.event.duration"].unit, point.count, point.sum) == ("s", 2, 1.0)


def test_a_metric_that_fails_harms_no_delivery(tmp_path, monkeypatch):
    def fails(*_):
        raise RuntimeError

    monkeypatch.setattr("sidelight.runtime.event_metrics.get_meter_provider", fails)
    url = f"sqlite:///{tmp_path / 'events.db'}"
    with closing(StoreSink(url, observe=observe_stored)) as sink:
        sink.write([made_of("sent")], {"instance": "p1"})
    with Store(url) as store:
        assert store.size() == 1


ROOT = Path(__file__).parents[2]
BOARD = ROOT / "docs" / "dashboard.json"


def in_prometheus(metric):
    """The name under which a Collector's exporter writes a metric for Prometheus."""
    unit = {"s": "_seconds", "By": "_bytes"}.get(metric.unit, "")
    suffix = "_total" if getattr(metric.data, "is_monotonic", False) else ""
    bucket = "_bucket" if hasattr(metric.data.data_points[0], "bucket_counts") else ""
    return metric.name.replace(".", "_") + unit + suffix + bucket


def test_the_dashboard_uses_the_names_that_the_code_has(reader, monkeypatch):
    monkeypatch.setattr(EMITTER, "costs", {"app:work": Costs()})
    monkeypatch.setattr(EMITTER, "losses", {"no room in the spool": 4})
    monkeypatch.setattr("sidelight.cli.store.alerts.get_meter", lambda *_: reader.meter)
    metrics.register(lambda: {"store": Health()}, lambda: 1024, reader.meter)
    EventMetrics(reader.meter).observe([(*"0123456", "7", "failed", 10)])
    wait = Expectation(after="made", one_of=("sent",), within=timedelta(seconds=1))
    measured_by([wait], list)()
    (scope,) = reader.get_metrics_data().resource_metrics[0].scope_metrics
    names = {in_prometheus(metric) for metric in scope.metrics}
    labels = {
        key.replace(".", "_")
        for metric in scope.metrics
        for point in metric.data.data_points
        for key in point.attributes
    }
    board = json.loads(BOARD.read_text())
    shown = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    used = {each for expr in shown for each in re.findall(r"\bsidelight_\w+", expr)}
    assert names <= used
    assert used <= names | labels
    legends = [target["legendFormat"] for panel in board["panels"] for target in panel["targets"]]
    for expr, legend in zip(shown, legends, strict=True):
        assert set(re.findall(r"{{(\w+)}}", legend)) <= set(re.findall(r"\w+", expr))
    page = (ROOT / "docs" / "how-to" / "metrics.md").read_text()
    assert {metric.name for metric in scope.metrics} == set(
        re.findall(r"^\| `(sidelight\.[\w.]+)`", page, re.MULTILINE)
    )


@pytest.fixture
def collector():
    require_collector()
    with Collector() as running:
        yield running


@needs_spool_files
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_real_collector_gets_them_of_a_relay(collector, tmp_path, monkeypatch, protocol):
    path = tmp_path / "events.db"
    emit(KILLED.replace("500", "50"), path, ends=9)
    endpoint = collector.grpc_endpoint if protocol == "grpc" else collector.http_endpoint
    process = spawn(
        *("relay", "--once", *of(path)),
        env={
            **os.environ,
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": endpoint
            + ("" if protocol == "grpc" else "/v1/metrics"),
            "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": protocol,
            "OTEL_SERVICE_NAME": "shop",
        },
    )
    said = end(process)
    assert said.code == 0, said
    found = {(each.name, *sorted(each.attributes.values())): each for each in collector.metrics()}
    counted = found["sidelight.events", "order_received", "succeeded"]
    assert (counted.value, counted.scope_name) == (50, "sidelight")
    assert counted.resource["service.name"] == "shop"
    assert len(counted.resource["service.instance.id"]) == 16
    took = found["sidelight.event.duration", "order_received", "succeeded"]
    assert (took.kind, took.unit, took.count) == ("histogram", "s", 50)


@needs_spool_files
def test_another_exporter_is_told_and_does_not_stop_a_relay(tmp_path, monkeypatch):
    emit("receive(1)", tmp_path / "events.db")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "prometheus")
    said = sidelight("relay", "--once", *of(tmp_path / "events.db"))
    assert (said.code, "OTEL_METRICS_EXPORTER=prometheus" in said.err) == (0, True)
