"""Spans of an application's own provider outlive its process, and a Collector that is down."""

import time
from collections import Counter

import pytest
from tests.support.balance import balance
from tests.support.children import start
from tests.support.collector import Collector, require_collector
from tests.support.telemetry import drain, eventually

from sidelight import Store
from sidelight.spool.directory import segments_in

THREADS = 3
ROUNDS_FULL, ROUNDS_SHORT = 200, 4
AT_ONCE = 4
DRAINED = 20  # rounds after which nobody has left anything in the spool: it is bounded
DEAD = "http://127.0.0.1:9"
EMITTING = """
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from sidelight.otel import SpoolSpanProcessor

    provider = TracerProvider(resource=Resource({"service.name": "killed"}))
    provider.add_span_processor(SpoolSpanProcessor())
    tracer = provider.get_tracer("app")

    def work(base):
        for n in range(base, base + 1_000_000):
            attributes = {"n": n, "text": "x" * (n % 300)}
            with tracer.start_as_current_span("work", attributes=attributes):
                pass
            acknowledge(n)

    threads = [threading.Thread(target=work, args=(FIRST + i * 1_000_000,)) for i in range(THREADS)]
    [thread.start() for thread in threads]
"""


@pytest.fixture
def collector(tmp_path_factory):
    require_collector()
    with Collector(tmp_path_factory.mktemp("collector")) as running:
        yield running


@pytest.mark.parametrize("reachable", [True, False], ids=["collector up", "collector down"])
def test_sigkill_at_random_moments(tmp_path, collector, reachable, full, randomness, progress, row):
    """Every span whose `end` has returned arrives; once, where nothing was sent before."""
    store = tmp_path / "events.db"
    rounds = ROUNDS_FULL if full else ROUNDS_SHORT
    acknowledged, children = [], []
    for number in range(rounds):
        progress(f"round {number} of {rounds}")
        script = f"    FIRST, THREADS = {number * 10_000_000}, {THREADS}\n{EMITTING}"
        to = collector.http_endpoint if reachable else DEAD
        children.append(start(script, store, OTEL_EXPORTER_OTLP_ENDPOINT=to))
        if len(children) == AT_ONCE or number == rounds - 1:
            seen = len(collector.spans(at_least=0))
            for child in children:
                child.read(60)
            assert not reachable or eventually(lambda: len(collector.spans(at_least=0)) > seen)  # noqa: B023
            for child in children:
                time.sleep(randomness.random() * 0.1)
                child.kill()
                assert child.acknowledged
                acknowledged += child.acknowledged
            children.clear()
            if reachable and number % DRAINED < AT_ONCE:
                drain(tmp_path, collector.http_endpoint)
    assert reachable or not collector.spans(at_least=0)
    drain(tmp_path, collector.http_endpoint)

    def lost():
        arrived.clear()
        arrived.update(span.attributes["n"] for span in collector.spans(at_least=0))
        return sorted(set(acknowledged) - set(arrived))

    arrived = Counter()
    eventually(lambda: not lost())
    row(
        1,
        f"SIGKILL, spans of a provider, Collector {'up' if reachable else 'down'}",
        injected=rounds,
        verdict=balance(acknowledged, arrived.elements(), is_repeated=reachable),
    )
    assert not {loss.reason for loss in Store(f"sqlite:///{store}").losses()}
    assert not list(segments_in(tmp_path / "events.db-spool"))
