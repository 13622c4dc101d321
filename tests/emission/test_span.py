"""The light span: a span for all of OpenTelemetry, which never harms the call."""

import asyncio
import contextvars
import random
import threading
import time

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, StatusCode, TraceFlags, TraceState
from tests.support.telemetry import Kept

import sidelight
from sidelight import emits
from sidelight.emission.binding import ambient, bound
from sidelight.emission.emitter import EMITTER, Emitter
from sidelight.emission.light_span import LightSpan
from sidelight.emission.tracing import TRACING, Tracing, begin_without_span, ids_of
from sidelight.host import otel_api
from sidelight.record.format import RANDOM, REMOTE_PARENT, SAMPLED, SPAN, reseed
from sidelight.record.semconv import (
    MAX_SPAN_TEXT,
    exception_attributes,
    record_flags,
    status_description,
    w3c_flags,
)


@pytest.fixture(autouse=True)
def kept(monkeypatch):
    for name in ("OTEL_TRACES_SAMPLER", "OTEL_SDK_DISABLED", "OTEL_PYTHON_TRACER_PROVIDER"):
        monkeypatch.delenv(name, raising=False)
    kept = Kept()
    monkeypatch.setattr(EMITTER, "spool", kept)
    monkeypatch.setattr(EMITTER, "strict", True)
    monkeypatch.setattr(EMITTER, "spans", True)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    TRACING.configure({})
    yield kept
    TRACING.configure({})
    assert not trace.get_current_span().get_span_context().is_valid


def inside(act):
    """Run ``act`` on the light span of a decorated call."""

    @emits("done", failure="failed")
    def work():
        return act(trace.get_current_span())

    return work()


def details(kept):
    return only(kept).details or {}


def only(kept):
    """The moment of the only record."""
    ((_, moment),) = kept.records
    return moment


# -- one span ------------------------------------------------------------------------------------


def test_it_is_a_valid_local_sampled_span():
    def act(span):
        assert isinstance(span, trace.Span)
        assert type(span) is LightSpan
        context = span.get_span_context()
        assert span.is_recording()
        assert context.is_valid
        assert not context.is_remote
        assert context.trace_flags.sampled
        assert span.get_span_context() == context
        return context

    assert inside(act).trace_id != inside(act).trace_id


def test_only_the_end_of_the_function_ends_it(kept):
    def act(span):
        with span as inner:
            assert inner is span
        with trace.use_span(span, end_on_exit=True):
            assert trace.get_current_span() is span
        span.end()
        span.end(end_time=5)
        assert span.is_recording()
        span.set_attribute("after", "end()")

    inside(act)
    assert details(kept) == {"attributes": {"after": "end()"}}


@pytest.mark.parametrize("use", [lambda span: span, trace.use_span], ids=["with", "use_span"])
def test_an_exception_that_leaves_a_with_block_is_recorded(kept, use):
    def act(span):
        with pytest.raises(KeyError), use(span):
            raise KeyError("k")

    inside(act)
    ((name, _, attributes),) = details(kept)["events"]
    assert (name, attributes["exception.type"]) == ("exception", "KeyError")
    assert details(kept)["status"] == [StatusCode.ERROR.value, "KeyError: 'k'"]


CHANGES = {
    "set_attribute": ("late", 1),
    "set_attributes": ({"late": 1},),
    "add_event": ("late",),
    "add_link": (SpanContext(1, 2, is_remote=False),),
    "set_status": (StatusCode.ERROR,),
    "update_name": ("late",),
    "record_exception": (ValueError(),),
}


@pytest.mark.parametrize("method", CHANGES)
def test_a_change_after_the_end_is_ignored(kept, method):
    span = inside(lambda span: span)
    assert not span.is_recording()
    getattr(span, method)(*CHANGES[method])
    assert span.details is None
    assert details(kept) == {}
    assert span.get_span_context().is_valid


def test_an_unsampled_span_keeps_nothing(kept):
    TRACING.configure({"OTEL_TRACES_SAMPLER": "always_off"})

    def act(span):
        span.set_attribute("a", 1)
        return span.is_recording(), span.get_span_context().trace_flags.sampled

    assert inside(act) == (False, False)
    assert only(kept).details is None
    assert not only(kept).flags & (SPAN | SAMPLED)


def test_without_room_for_spans_events_are_still_written(kept):
    EMITTER.spans = False
    assert inside(lambda span: span.is_recording()) is False
    assert only(kept).trace
    assert not only(kept).flags & SPAN


def test_values_are_copied(kept):
    value = [1, {"a": [2]}]

    def act(span):
        span.set_attribute("value", value)
        value[1]["a"].append(3)
        value.append(4)

    inside(act)
    assert details(kept)["attributes"]["value"] == [1, {"a": [2]}]


def test_long_text_is_cut(kept):
    long = {"long": "x" * (MAX_SPAN_TEXT + 1), "longest": "x" * MAX_SPAN_TEXT}
    inside(lambda span: span.set_attributes(long))
    texts = details(kept)["attributes"]
    assert len(texts["long"]) == len(texts["longest"]) == MAX_SPAN_TEXT
    assert texts["long"].endswith("…")


def test_threads_may_change_it_at_once(kept):
    def act(span):
        def write(name):
            for index in range(500):
                span.set_attribute(f"{name} {index}", index)
                span.add_event(name)

        threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    inside(act)
    found = details(kept)
    assert len(found["attributes"]) == len(found["events"]) == 128
    assert found["dropped"][1] >= 1500 - 128 - 5


@pytest.mark.parametrize(
    ("flags", "w3c"), [(0, 0), (SPAN | SAMPLED | REMOTE_PARENT, 1), (RANDOM, 2)]
)
def test_flags_in_the_form_of_w3c_and_back(flags, w3c):
    assert w3c_flags(flags) == w3c
    assert record_flags(w3c) == flags & (SAMPLED | RANDOM)


def test_the_description_of_an_exception():
    error = ["package.module.Outer.<locals>.OurError", "why. not", [["f.py", 1, "g"]]]
    assert status_description(error) == "OurError: why. not"
    assert status_description(["ValueError", "", []]) == "ValueError: "
    assert exception_attributes(error)["exception.stacktrace"].endswith("OurError: why. not\n")


# -- its place in the context --------------------------------------------------------------------


@emits("inner_done")
def inner():
    pass


def parents(kept):
    """Trace, span and parent by the name of the function."""
    records = [(s.span_name.rpartition(".")[2], m) for s, m in kept.records]
    return {name: (m.trace, m.span_id, m.parent_id) for name, m in records}


def in_a_thread():
    thread = threading.Thread(target=contextvars.copy_context().run, args=(inner,))
    thread.start()
    thread.join()


@pytest.mark.parametrize("call", [inner, in_a_thread])
def test_spans_nest_and_leave_nothing_behind(kept, call):
    def act(span):
        call()
        assert trace.get_current_span() is span

    before = otel_context.get_current()
    inside(act)
    assert otel_context.get_current() is before
    found = parents(kept)
    assert found["inner"][0] == found["work"][0]
    assert found["inner"][2] == found["work"][1]
    assert found["work"][2] == 0


def test_other_values_of_the_context_stay():
    token = otel_context.attach(otel_context.set_value("colour", "red"))
    try:
        assert inside(lambda _: otel_context.get_value("colour")) == "red"
    finally:
        otel_context.detach(token)


def test_tasks_nest_under_the_span_that_created_them(kept):
    @emits("inner_done")
    async def task():
        await asyncio.sleep(0)

    @emits("outer_done")
    async def outer():
        await asyncio.gather(asyncio.create_task(task()), task())

    asyncio.run(outer())
    outer_id = parents(kept)["outer"][1]
    assert [m.parent_id for _, m in kept.records] == [outer_id, outer_id, 0]


def test_a_coroutine_that_is_closed_in_another_context_leaves_that_alone(kept):
    class Pause:
        def __await__(self):
            yield

    @emits("done", failure="failed")
    async def work():
        await Pause()

    coroutine = work()
    contextvars.copy_context().run(coroutine.send, None)
    contextvars.copy_context().run(coroutine.close)
    assert len(kept.records) >= 1
    assert not EMITTER.losses.keys() & {"not recorded", "span not begun"}


@pytest.mark.parametrize("flags", [0, 1, 2, 3])
@pytest.mark.parametrize("remote", [True, False])
def test_a_foreign_parent(kept, flags, remote):
    state = TraceState([("vendor", "x")])
    with trace.use_span(NonRecordingSpan(SpanContext(5, 6, remote, TraceFlags(flags), state))):
        context = inside(lambda span: span.get_span_context())
    assert (context.trace_id, context.trace_flags, context.trace_state) == (5, flags, state)
    assert only(kept).parent_id == 6
    assert bool(only(kept).flags & REMOTE_PARENT) == remote
    assert bool(only(kept).flags & SPAN) == bool(flags & 1)


def test_an_invalid_parent_is_none(kept):
    with trace.use_span(trace.INVALID_SPAN):
        inner()
    assert only(kept).parent_id == 0
    assert only(kept).trace.strip(b"\0")
    assert only(kept).flags & SPAN


def test_ids_are_random_whatever_the_application_seeds(kept):
    for _ in range(3):
        random.seed(1)
        inner()
    reseed()
    inner()
    assert len({m.trace for _, m in kept.records}) == len({m.span_id for _, m in kept.records}) == 4


class Broken(NonRecordingSpan):
    def get_span_context(self):
        raise RuntimeError


def test_ids_of_a_broken_span_are_none():
    assert ids_of(Broken(SpanContext(1, 2, is_remote=False))) == (None, 0, 0)
    assert ids_of(object()) == (None, 0, 0)
    with trace.use_span(Broken(SpanContext(1, 2, is_remote=False))):
        assert ambient().trace is None
        assert str(sidelight.emit("direct"))


def test_a_broken_parent_costs_the_span_and_is_counted(kept, monkeypatch):
    monkeypatch.setattr(EMITTER, "strict", False)
    with trace.use_span(Broken(SpanContext(1, 2, is_remote=False))):
        assert inside(lambda _: 5) == 5
    assert only(kept).trace is None
    assert EMITTER.losses.pop("span not begun") == 1


def test_disabled_there_is_nothing(kept):
    TRACING.configure({"OTEL_SDK_DISABLED": "true"})

    @emits("each")
    def each():
        yield trace.get_current_span()

    assert inside(lambda span: span) is trace.INVALID_SPAN
    assert list(each()) == [trace.INVALID_SPAN]
    parent = NonRecordingSpan(SpanContext(5, 6, is_remote=True, trace_flags=TraceFlags(1)))
    with trace.use_span(parent):
        assert inside(lambda span: span) is parent
    *_, (_, moment) = kept.records
    assert (int.from_bytes(moment.trace, "big"), moment.span_id, moment.flags & SPAN) == (5, 6, 0)


def test_it_reads_the_environment_at_the_first_call(monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    fresh = Tracing()
    assert not fresh.configured
    enter = fresh.begin(Emitter(), "work")
    assert not enter().flags & SAMPLED
    assert fresh.configured
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    assert not enter().flags & SAMPLED


def test_without_a_span_of_its_own():
    enter = begin_without_span(Emitter(), "work")
    span = enter()
    assert (span.trace, span.id, span.flags) == (b"", 0, 0)
    with trace.use_span(
        NonRecordingSpan(SpanContext(5, 6, is_remote=False, trace_flags=TraceFlags(1)))
    ):
        span = enter()
    assert (span.trace, span.id, span.flags) == ((5).to_bytes(16, "big"), 6, SAMPLED)
    assert span.token is None


def test_times():
    enter = Tracing().begin(Emitter(), "work")
    enter()
    before, call = time.time_ns(), time.perf_counter_ns()
    span = enter()
    assert before <= span.time <= time.time_ns()
    assert call <= span.call <= time.perf_counter_ns()
    assert 0 < span.cost < 1_000_000_000


# -- bind ----------------------------------------------------------------------------------------


def test_bind_fills_in(kept):
    @emits("named", artifact_id="own", organization_id="own")
    def named():
        pass

    with sidelight.bind(artifact_id="a", organization_id="o"):
        with sidelight.bind(artifact_id="inner"):
            inner()
            named()
            sidelight.emit("direct")
        inner()
    inner()
    assert [(m.artifact_id, m.organization_id) for _, m in kept.records] == [
        ("inner", "o"),
        ("own", "own"),
        ("inner", "o"),
        ("a", "o"),
        (None, None),
    ]


def test_bind_is_left_after_an_error_and_can_be_used_again():
    binding, before = sidelight.bind(artifact_id="a"), bound.get()
    for _ in range(2):
        with pytest.raises(ValueError, match="x"), binding:
            assert bound.get().artifact_id == "a"
            raise ValueError("x")
        assert bound.get() is before


# -- the adapter ---------------------------------------------------------------------------------


def test_what_is_private_in_opentelemetry_is_where_it_was():
    assert otel_api.PLAIN_CONTEXT
    assert otel_api.providers is trace
    assert otel_api.SPAN_KEY
    span = NonRecordingSpan(SpanContext(5, 6, is_remote=False))
    token = otel_api.set_context(otel_api.with_span(otel_api.get_context(), span))
    try:
        assert trace.get_current_span() is span
        assert otel_api.get_context() is otel_context.get_current()
    finally:
        otel_api.reset_context(token)


def test_suppression_is_what_instrumentation_looks_for():
    context = otel_api.suppressed()
    names = {key.rpartition("-")[0] or key: value for key, value in context.items()}
    assert any("suppress_instrumentation" in key for key in context)
    assert any("suppress_http_instrumentation" in key for key in context)
    assert all(value is True for value in names.values())
    assert not otel_context.get_current()
