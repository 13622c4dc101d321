"""Spans and log records in the Collector agree with the events in the store, field by field."""

import asyncio
import contextvars
import threading
import time

import pytest
from opentelemetry import context as otel_context
from opentelemetry import propagate, trace
from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from tests.support.telemetry import agree, exporting

import sidelight
from sidelight import arg, emits, result

pytestmark = pytest.mark.usefixtures("plain_otel")
W3C = TraceContextTextMapPropagator()
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


@emits("step_done", artifact_id=arg.n, n=arg.n, doubled=result)
def step(n):
    return n * 2


works = emits(
    "work_done",
    start="work_started",
    failure="work_failed",
    artifact_id="art",
    organization_id="org",
)


@works
def work(n):
    return [step(i) for i in range(n)]


@works
async def work_async(n):
    async def one(i):
        await asyncio.sleep(0)
        return step(i)

    return await asyncio.gather(*(asyncio.create_task(one(i)) for i in range(n)))


@works
def work_generator(n):
    for i in range(n):
        yield step(i)


@works
async def work_async_generator(n):
    for i in range(n):
        await asyncio.sleep(0)
        yield step(i)


async def _all(items):
    return [item async for item in items]


KINDS = {
    "function": lambda: work(3),
    "coroutine": lambda: asyncio.run(work_async(3)),
    "generator": lambda: list(work_generator(3)),
    "async generator": lambda: asyncio.run(_all(work_async_generator(3))),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_and_the_calls_within_it(shared_collector, tmp_path, endpoint, kind):
    before = time.time_ns()
    with exporting(shared_collector, tmp_path, otlp=endpoint) as told:
        assert KINDS[kind]() == [0, 2, 4]
    agree(told)
    (outer,) = (span for span in told.spans if span.name.startswith("work"))
    steps = [span for span in told.spans if span.name == "step"]
    assert outer.parent_span_id is None
    assert len(steps) == 3
    assert before <= outer.start_ns <= outer.end_ns <= time.time_ns()
    for span in steps:
        assert (span.trace_id, span.parent_span_id) == (outer.trace_id, outer.span_id)
        assert (span.kind, span.status, span.scope_name) == ("INTERNAL", "UNSET", "sidelight")
        assert span.scope_version == sidelight.__version__
        assert span.flags == 0x100  # the parent is known to be local
    assert sorted(span.attributes["n"] for span in steps) == [0, 1, 2]
    assert sorted(span.attributes["doubled"] for span in steps) == [0, 2, 4]
    assert outer.attributes == {
        "code.function.name": f"{__name__}.{outer.name}",
        "sidelight.artifact.id": "art",
        "sidelight.organization.id": "org",
    }
    started = told.event("work_started")
    assert (started["trace_id"], started["span_id"]) == (outer.trace_id, outer.span_id)
    assert started["occurred_at"] == outer.start_ns
    assert told.event("work_done")["occurred_at"] == outer.end_ns
    assert {log.flags & 1 for log in told.logs} == {1}
    assert told.log("work_done").event_name == "tests.work.done"


def fail(n):
    raise ValueError(f"nothing to do with {n}")


@emits("deep_done", failure="deep_failed", n=arg.n)
def deep(n):
    fail(n)


@emits(failure="outer_failed")
def outer_of_deep():
    deep(7)


def test_an_error_that_passes_two_functions(shared_collector, tmp_path):
    expected = pytest.raises(ValueError, match="nothing to do with 7")
    with exporting(shared_collector, tmp_path) as told, expected:
        outer_of_deep()
    agree(told)
    inner, outer = told.span("deep"), told.span("outer_of_deep")
    assert inner.parent_span_id == outer.span_id
    for span in (inner, outer):
        assert (span.status, span.status_message) == ("ERROR", "ValueError: nothing to do with 7")
        assert span.attributes["error.type"] == "ValueError"
        (event,) = span.events
        assert (event.name, event.time_ns) == ("exception", span.end_ns)
        assert event.attributes["exception.type"] == "ValueError"
        assert event.attributes["exception.message"] == "nothing to do with 7"
        stack = event.attributes["exception.stacktrace"]
        assert stack.startswith("Traceback (most recent call last):\n")
        assert f'File "{__file__}"' in stack
        assert "in fail\n" in stack
        assert "sidelight" not in stack.replace(__file__, "")
    log = told.log("deep_failed")
    assert log.severity_number == 17
    assert (
        log.attributes["exception.stacktrace"] == inner.events[0].attributes["exception.stacktrace"]
    )


class Handled(Exception):
    pass


@emits("busy_done")
def busy(linked):
    span = trace.get_current_span()
    assert isinstance(span, trace.Span)
    assert span.is_recording()
    span.set_attribute("text", "ä€😀")
    span.set_attributes({"int": -(2**63), "float": 0.1, "yes": True, "bytes": b"\0\xff"})
    span.set_attribute("list", ["a", "b"])
    span.set_attribute("nested", {"deep": [1, {"er": "x"}]})
    span.set_attribute("again", 1)
    span.set_attribute("again", 2)
    span.add_event("half", {"percent": 50}, timestamp=1_700_000_000_123_456_789)
    span.add_event("now")
    span.add_link(linked, {"why": "because"})
    span.update_name("another name")
    try:
        raise Handled("handled")
    except Handled as error:
        span.record_exception(error, {"extra": 1})
    span.set_status(StatusCode.ERROR, "not yet")
    span.set_status(Status(StatusCode.OK))
    span.set_status(StatusCode.ERROR, "too late")
    span.end()
    assert span.is_recording()


def test_changes_that_a_function_makes_to_its_span(shared_collector, tmp_path):
    linked = SpanContext(0xC3, 0xD4, is_remote=True, trace_flags=TraceFlags(1))
    before = time.time_ns()
    with exporting(shared_collector, tmp_path) as told:
        busy(linked)
    agree(told)
    (span,) = told.spans
    assert span.name == "another name"
    assert span.attributes == {
        "code.function.name": f"{__name__}.busy",
        "text": "ä€😀",
        "int": -(2**63),
        "float": 0.1,
        "yes": True,
        "bytes": b"\0\xff",
        "list": ["a", "b"],
        "nested": {"deep": [1, {"er": "x"}]},
        "again": 2,
    }
    half, now, handled = span.events
    assert (half.name, half.time_ns) == ("half", 1_700_000_000_123_456_789)
    assert half.attributes == {"percent": 50}
    assert now.name == "now"
    assert before < now.time_ns < time.time_ns()
    assert handled.name == "exception"
    assert handled.attributes["exception.type"] == f"{__name__}.Handled"
    assert handled.attributes["exception.message"] == "handled"
    assert handled.attributes["extra"] == 1
    assert 'raise Handled("handled")' in handled.attributes["exception.stacktrace"]
    (link,) = span.links
    assert (link.trace_id, link.span_id) == (f"{0xC3:032x}", f"{0xD4:016x}")
    assert link.attributes == {"why": "because"}
    assert link.flags == 0x300
    assert (span.status, span.status_message) == ("OK", "")


def arriving(traceparent, tracestate=None):
    carrier = {"traceparent": traceparent} | ({"tracestate": tracestate} if tracestate else {})
    return otel_context.attach(W3C.extract(carrier))


@emits("handled")
def handle():
    step(1)
    carrier = {}
    propagate.inject(carrier)
    return carrier


@pytest.mark.parametrize("state", [None, "vendor=x,other=y"])
def test_a_remote_parent_that_is_sampled(shared_collector, tmp_path, state):
    with exporting(shared_collector, tmp_path) as told:
        token = arriving(f"00-{TRACE}-{PARENT}-01", state)
        handed_on = handle()
        otel_context.detach(token)
    agree(told)
    span, inner = told.span("handle"), told.span("step")
    assert (span.trace_id, span.parent_span_id) == (TRACE, PARENT)
    assert span.flags == 0x300  # the parent is known to be remote
    assert (inner.trace_id, inner.parent_span_id) == (TRACE, span.span_id)
    assert inner.flags == 0x100
    assert span.trace_state == inner.trace_state == (state or "")
    assert handed_on.get("tracestate") == state
    assert handed_on["traceparent"] == f"00-{TRACE}-{span.span_id}-01"


def test_a_remote_parent_that_is_not_sampled(shared_collector, tmp_path):
    with exporting(shared_collector, tmp_path, spans=0) as told:
        token = arriving(f"00-{TRACE}-{PARENT}-00", "vendor=x")
        handed_on = handle()
        otel_context.detach(token)
    agree(told)
    assert {e["trace_id"] for e in told.events} == {TRACE}
    assert {log.flags for log in told.logs} == {0}
    handled = told.event("handled")
    assert handed_on["traceparent"] == f"00-{TRACE}-{handled['span_id']}-00"
    assert handed_on["tracestate"] == "vendor=x"


SAMPLERS = {
    ("always_on", ""): (True, True, True),
    ("always_off", ""): (False, False, False),
    ("parentbased_always_on", ""): (True, True, False),
    ("parentbased_always_off", ""): (False, True, False),
    ("traceidratio", "0"): (False, False, False),
    ("traceidratio", "1"): (True, True, True),
    ("parentbased_traceidratio", "0"): (False, True, False),
}


@pytest.mark.parametrize(("sampler", "argument"), SAMPLERS)
def test_samplers(shared_collector, tmp_path, monkeypatch, sampler, argument):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    root, under_sampled, under_unsampled = SAMPLERS[sampler, argument]
    expected = 2 * (root + under_sampled + under_unsampled)
    with exporting(shared_collector, tmp_path, spans=expected) as told:
        handle()
        for flag in ("01", "00"):
            token = arriving(f"00-{TRACE[:-2]}{flag}-{PARENT}-{flag}")
            handle()
            otel_context.detach(token)
    agree(told)
    assert len(told.events) == 6  # events are never sampled
    traces = {span.trace_id for span in told.spans}
    assert (TRACE[:-2] + "01" in traces) == under_sampled
    assert (TRACE[:-2] + "00" in traces) == under_unsampled


@emits("unseen_done", span=False)
def unseen():
    step(1)
    sidelight.emit("direct", artifact_id="d", colour="red")


@emits("seen_done")
def seen():
    unseen()


def test_a_point_without_a_span_is_part_of_the_one_around(shared_collector, tmp_path):
    with exporting(shared_collector, tmp_path, spans=2) as told:
        seen()
    agree(told)
    outer, inner = told.span("seen"), told.span("step")
    assert inner.parent_span_id == outer.span_id
    for kind in ("unseen_done", "direct"):
        event = told.event(kind)
        assert (event["trace_id"], event["span_id"]) == (outer.trace_id, outer.span_id)
    assert told.log("direct").attributes["colour"] == "red"


def test_an_event_outside_every_trace(shared_collector, tmp_path):
    with exporting(shared_collector, tmp_path, spans=0) as told:
        sidelight.emit("direct", artifact_id="d")
    agree(told)
    (log,) = told.logs
    assert (log.trace_id, log.span_id, log.flags) == (None, None, 0)


@emits("parent_done")
def parent_of_threads():
    context = contextvars.copy_context()
    with_context = threading.Thread(target=context.run, args=(step, 1))
    without = threading.Thread(target=step, args=(2,))
    for thread in (with_context, without):
        thread.start()
        thread.join()


def test_threads(shared_collector, tmp_path):
    with exporting(shared_collector, tmp_path) as told:
        parent_of_threads()
    agree(told)
    parent = told.span("parent_of_threads")
    first, second = sorted(
        (s for s in told.spans if s.name == "step"), key=lambda s: s.attributes["n"]
    )
    assert first.parent_span_id == parent.span_id
    assert second.parent_span_id is None
    assert second.trace_id != parent.trace_id


@emits("outlived_done")
async def outlived(tasks):
    tasks.append(asyncio.create_task(after(0.02)))


async def after(seconds):
    await asyncio.sleep(seconds)
    trace.get_current_span().set_attribute("too", "late")
    return step(5)


def test_a_task_that_outlives_its_parent(shared_collector, tmp_path):
    async def main():
        tasks = []
        await outlived(tasks)
        assert not trace.get_current_span().get_span_context().is_valid
        await asyncio.gather(*tasks)

    with exporting(shared_collector, tmp_path) as told:
        asyncio.run(main())
    agree(told)
    assert told.span("step").parent_span_id == told.span("outlived").span_id
    assert "too" not in told.span("outlived").attributes


@emits("typed", **{"a.b": arg.value, "n": arg.n})
def typed(value, n=None):
    return value


@pytest.mark.parametrize(
    ("value", "exported"),
    [
        ("x" * 5000, "x" * 4095 + "…"),
        (2**63, str(2**63)),
        (2**64, hex(2**64)),
        ([1, "two", None, 3.5], [1, "two", "null", 3.5]),
        ({"a": {"b": None}, "c": [True]}, {"a": {}, "c": [True]}),
        (b"1234", "<4 bytes>"),
        ("\ud800", "\\ud800"),
        (None, None),
    ],
)
def test_values_without_an_otlp_type(shared_collector, tmp_path, value, exported):
    with exporting(shared_collector, tmp_path) as told:
        typed(value)
    (span,), (log,) = told.spans, told.logs
    assert span.attributes.get("a.b") == log.attributes.get("a.b") == exported
    assert "n" not in span.attributes
