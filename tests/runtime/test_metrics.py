"""Self-metrics through the metrics API."""

import time

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from tests.support.telemetry import child, finish

from sidelight.emission.emitter import EMITTER
from sidelight.record.costs import Costs
from sidelight.runtime import metrics
from sidelight.spool.sink import Health


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


def test_a_provider_that_comes_later(tmp_path):
    process = child(
        """
        @emits("task_done")
        def task(): pass

        sidelight.configure()
        task()
        from opentelemetry import metrics
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        reader = InMemoryMetricReader()
        metrics.set_meter_provider(MeterProvider([reader]))
        sidelight.configure()
        task()
        sidelight.flush()
        (scope,) = reader.get_metrics_data().resource_metrics[0].scope_metrics
        found = {m.name: m.data.data_points for m in scope.metrics}
        print(scope.scope.name, found["sidelight.emissions"][0].value)
        print(found["sidelight.spool.usage"][0].value > 0)
        """,
        tmp_path / "events.db",
    )
    assert finish(process) == "sidelight 2\nTrue\n"
