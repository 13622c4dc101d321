"""Row 20: other tracers in the process. Their spans and contexts are as without sidelight.

The same program runs twice at once, with sidelight and with `SIDELIGHT_DISABLED`: what its tracer
has exported must be the same, but for the spans that sidelight has made by that tracer.
"""

import contextlib
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.emitting import Order
from tests.support.preludes import TELL_WHEN
from tests.support.programs import deliver, judge, nothing_left, running, seconds_of_the_end
from tests.support.proxy import Proxy
from tests.support.tracers import ANSWER, PIPELINE, TRACERS, trees

from sidelight import Store

CALLS_FULL, CALLS_SHORT = 2_000, 35
DELAY = 1.0  # seconds


@contextlib.contextmanager
def traced(tracer, store, order, **environment):
    """A running program with a tracer, and the intake that this sends to."""
    with Proxy(mode="answer") as intake:
        intake.answer(200, {"Content-Type": "application/json"}, ANSWER)
        given = {
            name: text.format(intake=intake.endpoint) for name, text in tracer.environment.items()
        }
        before = [str(Path(sys.executable).with_name(tracer.launcher))] if tracer.launcher else []
        with running(store, order=order, environment=given | environment, before=before) as program:
            yield program, intake


@pytest.mark.parametrize("name", TRACERS)
def test_a_tracer_of_another_make(name, tmp_path, full, row):
    tracer, store = TRACERS[name], f"sqlite:///{tmp_path / 'events.db'}"
    calls = CALLS_FULL if full else CALLS_SHORT
    order = Order(calls=calls, prelude=tracer.prelude + PIPELINE, finale=TELL_WHEN, pause=0.001)
    off = traced(tracer, "", replace(order, configure=None), SIDELIGHT_DISABLED="1")
    with traced(tracer, store, order) as (program, intake), off as (twin, expected):
        took = seconds_of_the_end(program), seconds_of_the_end(twin)
        assert (program.process.returncode, twin.process.returncode) == (0, 0), program.told()
        complaints = [line for line in program.told().splitlines() if "sidelight" in line]
        spans, others = (list(tracer.read(each.requests)) for each in (intake, expected))
    deliver(store)
    verdict = judge(store, program)
    row(20, f"{name}, end {took[0] - took[1]:+.2f} s", injected=len(spans), verdict=verdict)
    assert not complaints, program.told()
    same(trees(spans), trees(others))
    inside(spans)
    assert verdict.acknowledged == calls
    assert not any(span.is_ours for span in others)
    with Store(store) as opened:
        named(list(opened.events()), {span.span_id: span for span in spans}, tracer)
    nothing_left(store)
    assert took[0] - took[1] < DELAY


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
