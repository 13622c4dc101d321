"""The light span: a full citizen of OpenTelemetry's context, and as harmless as none."""

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
from sidelight.emission.emitter import EMITTER, Emitter
from sidelight.emission.light_span import LightSpan
from sidelight.emission.tracing import TRACING, Tracing, ambient, begin_without_span, bound, ids_of
from sidelight.host import otel_api
from sidelight.record.format import RANDOM, REMOTE_PARENT, SAMPLED, SPAN, reseed
from sidelight.record.semconv import (
    MAX_SPAN_TEXT,
    exception_attributes,
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


def details(kept):
    ((_, moment),) = kept.records
    return moment.details or {}


# -- one of them ---------------------------------------------------------------------------------


def test_it_is_a_span():
    @emits("done")
    def work():
        span = trace.get_current_span()
        assert isinstance(span, trace.Span)
        assert type(span) is LightSpan
        assert span.is_recording()
        context = span.get_span_context()
        assert context.is_valid
        assert not context.is_remote
        assert context.trace_flags.sampled
        assert span.get_span_context() == context
        return context

    assert work().trace_id != work().trace_id


def test_it_can_be_used_as_a_context_manager(kept):
    @emits("done")
    def work():
        span = trace.get_current_span()
        with span as inner:
            assert inner is span
        with trace.use_span(span, end_on_exit=True):
            assert trace.get_current_span() is span
        span.end()
        span.end(end_time=5)
        assert span.is_recording()
        span.set_attribute("after", "the end that was none")

    work()
    assert details(kept) == {"attributes": {"after": "the end that was none"}}


@pytest.mark.parametrize("how", ["with", "use_span"])
def test_an_exception_that_leaves_it_is_noted(kept, how):
    @emits("done")
    def work():
        span = trace.get_current_span()
        with pytest.raises(KeyError), span if how == "with" else trace.use_span(span):
            raise KeyError("k")

    work()
    ((name, _, attributes),) = details(kept)["events"]
    assert (name, attributes["exception.type"]) == ("exception", "KeyError")
    assert details(kept)["status"] == [StatusCode.ERROR.value, "KeyError: 'k'"]


def test_what_comes_after_the_end_is_ignored(kept):
    @emits("done")
    def work():
        return trace.get_current_span()

    span = work()
    assert not span.is_recording()
    span.set_attribute("late", 1)
    span.set_attributes({"late": 1})
    span.add_event("late")
    span.add_link(SpanContext(1, 2, is_remote=False))
    span.set_status(StatusCode.ERROR)
    span.update_name("late")
    span.record_exception(ValueError())
    assert span.details is None
    assert details(kept) == {}
    assert span.get_span_context().is_valid


def test_one_that_is_not_sampled_keeps_nothing(kept):
    TRACING.configure({"OTEL_TRACES_SAMPLER": "always_off"})

    @emits("done")
    def work():
        span = trace.get_current_span()
        assert not span.is_recording()
        span.set_attribute("a", 1)
        return span.get_span_context().trace_flags

    assert not work().sampled
    ((_, moment),) = kept.records
    assert moment.details is None
    assert not moment.flags & (SPAN | SAMPLED)


def test_without_room_for_spans_events_go_on(kept):
    EMITTER.spans = False

    @emits("done")
    def work():
        return trace.get_current_span().is_recording()

    assert work() is False
    ((_, moment),) = kept.records
    assert moment.trace
    assert not moment.flags & SPAN


def test_values_are_copied(kept):
    value = [1, {"a": [2]}]

    @emits("done")
    def work():
        trace.get_current_span().set_attribute("value", value)
        value[1]["a"].append(3)
        value.append(4)

    work()
    assert details(kept)["attributes"]["value"] == [1, {"a": [2]}]


def test_long_text_is_cut(kept):
    @emits("done")
    def work():
        trace.get_current_span().set_attribute("long", "x" * (MAX_SPAN_TEXT + 1))
        trace.get_current_span().set_attribute("longest", "x" * MAX_SPAN_TEXT)

    work()
    kept_text = details(kept)["attributes"]
    assert len(kept_text["long"]) == len(kept_text["longest"]) == MAX_SPAN_TEXT
    assert kept_text["long"].endswith("…")


def test_two_threads_at_once(kept):
    @emits("done")
    def work():
        span = trace.get_current_span()

        def write(name):
            for index in range(500):
                span.set_attribute(f"{name} {index}", index)
                span.add_event(name)

        threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    work()
    found = details(kept)
    assert len(found["attributes"]) == len(found["events"]) == 128
    assert found["dropped"][1] >= 1500 - 128 - 5


def test_flags():
    assert w3c_flags(0) == 0
    assert w3c_flags(SPAN | SAMPLED | REMOTE_PARENT) == 1
    assert w3c_flags(RANDOM) == 2


def test_words_for_an_exception():
    told = ["package.module.Outer.<locals>.OurError", "why. not", [["f.py", 1, "g"]]]
    assert status_description(told) == "OurError: why. not"
    assert status_description(["ValueError", "", []]) == "ValueError: "
    assert exception_attributes(told)["exception.stacktrace"].endswith("OurError: why. not\n")


# -- where it stands -----------------------------------------------------------------------------


def parents(kept):
    """Span ids by the name of the function, and the parents."""
    records = [(s.span_name.rpartition(".")[2], m) for s, m in kept.records]
    return {name: (m.trace, m.span_id, m.parent_id) for name, m in records}


def test_nesting_and_what_is_left_behind(kept):
    @emits("inner_done")
    def inner():
        pass

    @emits("outer_done")
    def outer():
        inner()
        assert type(trace.get_current_span()) is LightSpan

    before = otel_context.get_current()
    outer()
    assert otel_context.get_current() is before
    found = parents(kept)
    assert found["inner"][0] == found["outer"][0]
    assert found["inner"][2] == found["outer"][1]
    assert found["outer"][2] == 0


def test_other_values_of_the_context_stay(kept):
    @emits("done")
    def work():
        return otel_context.get_value("colour")

    token = otel_context.attach(otel_context.set_value("colour", "red"))
    try:
        assert work() == "red"
    finally:
        otel_context.detach(token)


def test_a_thread_has_a_context_of_its_own(kept):
    @emits("inner_done")
    def inner():
        pass

    @emits("outer_done")
    def outer():
        copied = contextvars.copy_context()
        thread = threading.Thread(target=copied.run, args=(inner,))
        thread.start()
        thread.join()

    outer()
    found = parents(kept)
    assert found["inner"][2] == found["outer"][1]


def test_tasks_nest_under_what_made_them(kept):
    @emits("inner_done")
    async def inner():
        await asyncio.sleep(0)

    @emits("outer_done")
    async def outer():
        await asyncio.gather(asyncio.create_task(inner()), inner())

    asyncio.run(outer())
    outer_id = parents(kept)["outer"][1]
    assert [m.parent_id for _, m in kept.records] == [outer_id, outer_id, 0]


def test_the_context_of_somebody_else_is_left_alone(kept):
    """A coroutine begun in one task and closed in another: nothing raises, nothing stays."""

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
    parent = SpanContext(5, 6, remote, TraceFlags(flags), state)

    @emits("done")
    def work():
        return trace.get_current_span().get_span_context()

    with trace.use_span(NonRecordingSpan(parent)):
        context = work()
    assert context.trace_id == 5
    assert context.trace_flags == flags
    assert context.trace_state == state
    ((_, moment),) = kept.records
    assert moment.parent_id == 6
    assert bool(moment.flags & REMOTE_PARENT) == remote
    assert bool(moment.flags & SPAN) == bool(flags & 1)


def test_an_invalid_parent_is_none(kept):
    @emits("done")
    def work():
        pass

    with trace.use_span(trace.INVALID_SPAN):
        work()
    ((_, moment),) = kept.records
    assert moment.parent_id == 0
    assert moment.trace.strip(b"\0")
    assert moment.flags & SPAN


def test_ids_are_random_whatever_the_application_seeds(kept):
    @emits("done")
    def work():
        pass

    for _ in range(3):
        random.seed(1)
        work()
    reseed()
    work()
    assert len({m.trace for _, m in kept.records}) == len({m.span_id for _, m in kept.records}) == 4


def test_ids_of_a_broken_span_are_none():
    class Broken(NonRecordingSpan):
        def get_span_context(self):
            raise RuntimeError

    assert ids_of(Broken(SpanContext(1, 2, is_remote=False))) == (None, 0, 0)
    assert ids_of(object()) == (None, 0, 0)
    with trace.use_span(Broken(SpanContext(1, 2, is_remote=False))):
        assert ambient().trace is None
        assert str(sidelight.emit("direct"))


def test_a_broken_parent_costs_the_span_and_is_counted(kept, monkeypatch):
    class Broken(NonRecordingSpan):
        def get_span_context(self):
            raise RuntimeError("broken")

    monkeypatch.setattr(EMITTER, "strict", False)

    @emits("done")
    def work():
        return 5

    with trace.use_span(Broken(SpanContext(1, 2, is_remote=False))):
        assert work() == 5
    ((_, moment),) = kept.records
    assert moment.trace is None
    assert EMITTER.losses.pop("span not begun") == 1


def test_disabled_there_is_nothing(kept):
    TRACING.configure({"OTEL_SDK_DISABLED": "true"})

    @emits("done")
    def work():
        return trace.get_current_span()

    @emits("each")
    def each():
        yield trace.get_current_span()

    assert work() is trace.INVALID_SPAN
    assert list(each()) == [trace.INVALID_SPAN]
    parent = NonRecordingSpan(SpanContext(5, 6, is_remote=True, trace_flags=TraceFlags(1)))
    with trace.use_span(parent):
        assert work() is parent
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
    @emits("done")
    def work():
        pass

    @emits("named", artifact_id="own", organization_id="own")
    def named():
        pass

    with sidelight.bind(artifact_id="a", organization_id="o"):
        with sidelight.bind(artifact_id="inner"):
            work()
            named()
            sidelight.emit("direct")
        work()
    work()
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
