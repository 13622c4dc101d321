"""Row 20: other tracers in the process. Their spans and contexts are as without sidelight.

The same program runs twice at once, with sidelight and with `SIDELIGHT_DISABLED`: what its tracer
has exported must be the same, but for the spans that sidelight has made by that tracer.
"""

import contextlib
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import pytest
from tests.support.balance import balance
from tests.support.collector import Collector, require_collector
from tests.support.commands import sidelight
from tests.support.emitting import Order
from tests.support.postgres import new_database
from tests.support.preludes import TELL_WHEN
from tests.support.programs import deliver, judge, nothing_left, running, seconds_of_the_end
from tests.support.proxy import Proxy
from tests.support.telemetry import child
from tests.support.tracers import ANSWER, PIPELINE, TRACERS, trees

from sidelight import Store

CALLS_FULL, CALLS_SHORT = 2_000, 35
LONG = {"ddtrace", "ddtrace, its context alone"}  # the short form drives ddtrace in other tests
DELAY_FULL, DELAY_SHORT = 1.0, 5.0  # seconds; test_ends.py is exact in the short form as well
LONGEST = 300.0  # seconds of one program: what a tracer makes of so many spans takes its time


def asked(tracer, calls, finale=TELL_WHEN):
    return Order(calls=calls, prelude=tracer.prelude + PIPELINE, finale=finale, pause=0.001)


@contextlib.contextmanager
def intake_of(tracer):
    """Servers for a tracer, and the environment that sends it there."""
    with Proxy(mode="answer") as intake:
        intake.answer(200, {"Content-Type": "application/json"}, ANSWER)
        there = tracer.environment.items()
        yield intake, {name: text.format(intake=intake.endpoint) for name, text in there}


@contextlib.contextmanager
def traced(tracer, store, order, **environment):
    """A running program with a tracer, and the intake that this sends to."""
    before = [str(Path(sys.executable).with_name(tracer.launcher))] if tracer.launcher else []
    with (
        intake_of(tracer) as (intake, given),
        running(store, order=order, environment=given | environment, before=before) as program,
    ):
        yield program, intake


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=[pytest.mark.long] * (each in LONG)) for each in TRACERS]
)
def test_a_tracer_of_another_make(name, tmp_path, full, row):
    longer, most = [], DELAY_FULL if full else DELAY_SHORT
    while len(longer) < 3 and (not longer or longer[-1] > most):  # by a busy machine, maybe
        store = f"sqlite:///{tmp_path / f'{len(longer)}.db'}"
        longer.append(compare(name, store, CALLS_FULL if full else CALLS_SHORT, row))
    assert min(longer) < most


def compare(name, store, calls, row):
    """Run both, and compare them; answers how many seconds longer the end took with sidelight."""
    tracer = TRACERS[name]
    order = asked(tracer, calls)
    off = traced(tracer, "", replace(order, configure=None), SIDELIGHT_DISABLED="1")
    with traced(tracer, store, order) as (program, intake), off as (twin, expected):
        with ThreadPoolExecutor() as waiting:
            took = list(waiting.map(seconds_of_the_end, (program, twin), repeat(LONGEST)))
        assert (program.process.returncode, twin.process.returncode) == (0, 0), program.told()
        complaints = [line for line in program.told().splitlines() if "sidelight" in line]
        spans, others = (list(tracer.read(each.requests)) for each in (intake, expected))
    deliver(store)
    verdict = judge(store, program)
    longer = took[0] - took[1]
    row(20, f"{name}, end {longer:+.2f} s", injected=len(spans), verdict=verdict)
    assert not complaints, program.told()
    same(trees(spans), trees(others))
    inside(spans)
    assert verdict.acknowledged == calls
    assert not any(span.is_ours for span in others)
    with Store(store) as opened:
        named(list(opened.events()), {span.span_id: span for span in spans}, tracer)
    nothing_left(store)
    return longer


def test_what_sidelight_asks_of_others_is_not_traced(tmp_path, full, row):
    """PostgreSQL, and a Collector over gRPC: ddtrace has patched both libraries."""
    require_collector()
    tracer, store = TRACERS["ddtrace"], new_database()
    calls = CALLS_FULL if full else CALLS_SHORT
    order = asked(tracer, calls, finale="sidelight.flush(30.0)")
    with Collector(tmp_path) as collector:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.grpc_endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        }
        with traced(tracer, store, order, **environment) as (program, intake):
            assert program.end(LONGEST) == 0, program.told()
            spans = list(tracer.read(intake.requests))
        assert len(collector.logs()) > calls
    verdict = judge(store, program)
    row(20, "ddtrace, PostgreSQL and gRPC", injected=len(spans), verdict=verdict)
    assert {span.name for span in spans} == {"call", "work", "step", "between", "after"}
    nothing_left(store)


TRANSACTIONS = """
    import ddtrace.auto
    import psycopg

    @emits("before_the_end", transaction=arg.connection, strict=True, n=arg.n)
    @emits("after_the_end", after_commit=arg.connection, n=arg.n)
    def work(connection, n):
        connection.execute("SELECT 1")

    url = os.environ["DATABASE"]
    sidelight.configure(outboxes=[url])
    with psycopg.connect(url) as connection:
        assert type(connection).__module__.startswith("ddtrace."), type(connection)
        for n, end in enumerate((connection.commit, connection.rollback) * 2):
            connection.execute("SELECT 1")
            work(connection, n)
            end()
    assert sidelight.flush(20.0)
"""


def test_a_transaction_of_a_traced_connection(tmp_path, row):
    """psycopg's connections are then ddtrace's proxies; events are still where they belong."""
    url, store = new_database(), tmp_path / "events.db"
    sidelight("outbox", "create", url)
    with intake_of(TRACERS["ddtrace"]) as (_, environment):
        process = child(TRANSACTIONS, store, DATABASE=url, **environment)
        _, told = process.communicate(timeout=300)
    assert process.returncode == 0, told
    assert "sidelight" not in told
    with Store(f"sqlite:///{store}") as opened:
        found = [(event.type, event.attributes["n"]) for event in opened.events()]
    committed = {(type_, n) for type_ in ("before_the_end", "after_the_end") for n in (0, 2)}
    row(20, "ddtrace, psycopg", injected=4, verdict=balance(committed, found))
    assert set(found) == committed


def same(found, expected):
    assert sum(expected.values()), "the tracer has exported nothing"
    for text, count in (found - expected).items():
        pytest.fail(f"{count} only with sidelight:\n{text}")
    for text, count in (expected - found).items():
        pytest.fail(f"{count} only without sidelight:\n{text}")


def inside(spans):
    """Under our spans is what a decorated function does, and nothing that its caller does."""
    ours = {span.span_id for span in spans if span.is_ours}
    assert {span.name for span in spans if span.parent_id in ours} <= {"work", "step"}


def named(events, spans, tracer):
    """Each event names the span that the tracer made for its call, or else the one around it."""
    ours = Counter()
    for event in events:
        span = spans.get(event.span_id)
        if not tracer.shows:
            assert span is None
        elif event.type == "stepped":  # also called where there is no span
            assert span.is_ours if tracer.provides else span is None or span.name == "call"
        else:
            assert span.is_ours == (tracer.provides and event.type != "direct")
            around = spans[span.parent_id] if span.is_ours else span
            assert (around.name, around.attributes["n"]) == ("call", event.attributes["n"])
        if span is not None:
            assert event.trace_id == span.trace_id
            ours[span.span_id] += span.is_ours
    assert +ours == Counter(span.span_id for span in spans.values() if span.is_ours)
