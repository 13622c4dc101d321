"""Decorated generators: the same to their consumer, and a context of their own."""

import asyncio
import contextlib
import contextvars
import gc
import threading
import types

import pytest
from opentelemetry import baggage, context, trace

from sidelight import arg, bind, emits, result
from sidelight.testing import capture


@pytest.fixture(autouse=True)
def recorded():
    gc.collect()  # what other tests have left half way shall not end in here
    with capture() as recorded:
        yield recorded


def current():
    return trace.get_current_span().get_span_context().span_id


# -- when it emits --------------------------------------------------------------------------------


def test_an_iteration_is_one_call(recorded):
    @emits("ended", start="began", n=arg.n, result=result)
    def f(n):
        yield from range(n)
        return "all"

    made = f(2)
    assert recorded.types == []
    assert next(made) == 0
    assert recorded.types == ["began"]
    assert next(made) == 1
    with pytest.raises(StopIteration) as stop:
        next(made)
    assert stop.value.value == "all"
    assert recorded.one("ended").attributes == {"n": 2, "result": "all"}
    assert len(recorded.spans) == 1
    assert list(made) == []
    assert len(recorded.records) == 2


def test_a_generator_that_was_never_begun_emits_nothing(recorded):
    f = emits("ended", start="began")(lambda: (yield))
    f()
    f().close()
    with pytest.raises(ValueError, match="early"):
        f().throw(ValueError("early"))
    gc.collect()
    assert recorded.records == []


def until_two(how):
    try:
        yield 1
        if how == "raise":
            raise ValueError("x")
        yield 2
    except GeneratorExit:
        if how != "swallow":
            raise


ENDS = {
    "return": lambda made: list(made),
    "raise": lambda made: next(made),
    "close": lambda made: made.close(),
    "swallow": lambda made: made.close(),
    "throw": lambda made: made.throw(KeyError()),
    "collect": lambda made: None,
}


@pytest.mark.parametrize(
    ("how", "outcome"),
    [
        ("return", "succeeded"),
        ("raise", "failed"),
        ("close", "closed"),
        ("swallow", "succeeded"),
        ("throw", "failed"),
        ("collect", "closed"),
    ],
)
def test_every_way_to_end_half_way(how, outcome, recorded):
    """Closed it has neither succeeded nor failed; and the consumer's context is given back."""
    with trace.use_span(trace.NonRecordingSpan(span_context(99))):
        made = emits("ended", failure="failed")(until_two)(how)
        next(made)
        with contextlib.suppress(ValueError, KeyError):
            ENDS[how](made)
        del made
        gc.collect()
        assert current() == 99
    assert current() == 0
    assert recorded.types == {"succeeded": ["ended"], "failed": ["failed"]}.get(outcome, [])
    assert [span.outcome for span in recorded.spans] == [outcome]
    assert (recorded.spans[0].error_type is None) == (outcome != "failed")


# -- the same to its consumer (the whole protocol is in test_generators_compared) ------------


def test_running_already():
    def f():
        yield next(made)

    for function in (f, emits("x")(f)):
        made = function()
        with pytest.raises(ValueError, match="generator already executing"):
            next(made)


def test_the_body_sees_an_error_without_our_frames():
    seen = []

    def f():
        try:
            yield 1
        except ValueError as error:
            traceback, depth = error.__traceback__, 0
            while traceback is not None:
                depth, traceback = depth + 1, traceback.tb_next
            seen.append((depth, error.__context__))

    for function in (f, emits("x")(f)):
        made = function()
        next(made)
        with pytest.raises(StopIteration):
            made.throw(ValueError("x"))
    assert seen == [(1, None), (1, None)]


# -- its context ----------------------------------------------------------------------------------


def test_the_span_is_current_inside_and_nowhere_else():
    inside = []

    @emits("x")
    def f():
        for _ in range(3):
            inside.append(current())
            yield

    outside = [current() for _ in f()]
    assert len(set(inside)) == 1
    assert inside[0] != 0
    assert outside == [0, 0, 0]
    assert current() == 0


def test_what_the_body_attaches_stays_with_it():
    seen = []

    @emits("x")
    def f():
        own = current()
        with trace.use_span(trace.NonRecordingSpan(span_context(77))):
            token = context.attach(baggage.set_baggage("who", "body"))
            yield
            seen.append((current(), baggage.get_baggage("who")))
            yield
            seen.append((current(), baggage.get_baggage("who")))
            context.detach(token)
        assert current() == own

    for _ in f():
        assert (current(), baggage.get_baggage("who")) == (0, None)
    assert seen == [(77, "body")] * 2


def span_context(span_id):
    return trace.SpanContext(1, span_id, is_remote=False, trace_flags=trace.TraceFlags(1))


def test_what_the_consumer_attaches_stays_with_it():
    f = emits("x")(lambda: ((yield), (yield)))
    made = f()
    next(made)
    with trace.use_span(trace.NonRecordingSpan(span_context(88))):
        next(made)
        assert current() == 88
        made.close()
        assert current() == 88
    assert current() == 0


def test_calls_inside_are_children_and_calls_between_are_not(recorded):
    child = emits("child")(lambda: None)
    sibling = emits("sibling")(lambda: None)

    @emits("parent")
    def f():
        child()
        yield
        child()
        yield

    for _ in f():
        sibling()
    parent = recorded.one("parent")
    spans = {span.span_id: span for span in recorded.spans}
    parents = [(e.type, spans[e.span_id].parent_id) for e in recorded]
    assert parents == [
        ("child", parent.span_id),
        ("sibling", None),
        ("child", parent.span_id),
        ("sibling", None),
        ("parent", None),
    ]


def test_interleaved_generators(recorded):
    @emits("x", n=arg.n)
    def f(n):
        own = current()
        for _ in range(3):
            yield n
            assert current() == own

    assert list(zip(f(1), f(2), strict=True)) == [(1, 2)] * 3
    assert current() == 0
    assert len(recorded) == 2


def test_closed_by_another_thread(recorded):
    made = emits("x")(lambda: ((yield), (yield)))()
    next(made)
    thread = threading.Thread(target=made.close)
    thread.start()
    thread.join()
    assert [span.outcome for span in recorded.spans] == ["closed"]
    assert current() == 0


def test_resumed_in_other_contexts(recorded):
    own = []

    @emits("x")
    def f():
        for _ in range(3):
            own.append(current())
            yield

    made = f()
    for _ in range(3):
        contextvars.copy_context().run(next, made)
    contextvars.copy_context().run(lambda: list(made))
    assert len(set(own)) == 1
    assert own[0]
    assert recorded.types == ["x"]
    assert current() == 0


def test_without_a_span_the_context_is_left_alone():
    @emits("x", span=False)
    def f():
        context.attach(baggage.set_baggage("leaks", "as ever"))
        yield current()

    ran = contextvars.copy_context()
    ran.run(lambda: list(f()))
    assert ran.run(baggage.get_baggage, "leaks") == "as ever"

    def consumer():
        made = f()
        with trace.use_span(trace.NonRecordingSpan(span_context(55))):
            assert next(made) == 55

    contextvars.copy_context().run(consumer)


# -- async generators -----------------------------------------------------------------------------


async def test_async_iteration(recorded):
    @emits("ended", start="began", n=arg.n)
    async def f(n):
        for i in range(n):
            await asyncio.sleep(0)
            yield i

    assert [i async for i in f(3)] == [0, 1, 2]
    assert recorded.types == ["began", "ended"]
    assert len(recorded.spans) == 1


async def test_async_context():
    inside = []

    @emits("x")
    async def f():
        for _ in range(2):
            inside.append(current())
            await asyncio.sleep(0)
            inside.append(current())
            with trace.use_span(trace.NonRecordingSpan(span_context(66))):
                yield current()
            inside.append(current())

    async for each in f():
        assert (each, current()) == (66, 0)
        await asyncio.sleep(0)
    assert len(set(inside)) == 1
    assert inside[0]


async def test_closed_by_another_task(recorded):
    @emits("x")
    async def f():
        try:
            yield 1
        finally:
            await asyncio.sleep(0)

    made = f()
    await anext(made)
    await asyncio.create_task(made.aclose())
    assert [span.outcome for span in recorded.spans] == ["closed"]
    assert current() == 0


async def test_cancelled_in_the_body(recorded):
    @emits("x", failure="failed")
    async def f():
        yield 1
        await asyncio.sleep(30)

    async def consume():
        async for _ in f():
            entered.set()

    entered = asyncio.Event()
    task = asyncio.create_task(consume())
    await entered.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert recorded.one("failed").error_type == "asyncio.exceptions.CancelledError"


@pytest.mark.parametrize("decorate", [lambda f: f, emits("x")], ids=["plain", "decorated"])
def test_an_event_loop_that_ends_closes_each_generator_once(decorate, recorded):
    log, problems = [], []

    async def f(n):
        try:
            yield n
        finally:
            await asyncio.sleep(0)
            log.append(n)

    decorated = decorate(f)

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, told: problems.append(told))
        kept.extend(decorated(n) for n in range(20))
        for each in kept:
            await anext(each)
        await anext(decorated(-1))  # collected at once: the loop closes that one too
        for _ in range(5):
            await asyncio.sleep(0)

    kept = []
    asyncio.run(main())
    assert sorted(log) == [-1, *range(20)]
    assert problems == []
    outcomes = {span.outcome for span in recorded.spans}
    assert outcomes <= {"closed"}


async def test_async_generators_running_already():
    @emits("x")
    async def f():
        await asyncio.sleep(0)
        yield 1

    made = f()
    first = made.asend(None)
    first.send(None)
    with pytest.raises(RuntimeError, match="asynchronous generator is already running"):
        await made.asend(None)
    assert await drive(first) == 1


@types.coroutine
def drive(awaitable):
    try:
        while True:
            yield awaitable.send(None)
    except StopIteration as stop:
        return stop.value


async def test_coroutines_closed_half_way(recorded):
    @emits("x", failure="failed", mode="awaited")
    async def f():
        await asyncio.sleep(0)

    made = f()
    made.send(None)
    made.close()
    assert recorded.types == []
    assert [span.outcome for span in recorded.spans] == ["closed"]
    assert current() == 0


async def test_tasks_have_contexts_of_their_own(recorded):
    @emits("inner", n=arg.n)
    async def inner(n):
        await asyncio.sleep(0)

    @emits("outer", n=arg.n)
    async def outer(n):
        await asyncio.sleep(0)
        await inner(n)
        await asyncio.sleep(0)

    await asyncio.gather(*(outer(n) for n in range(10)))
    spans = {span.span_id: span for span in recorded.spans}
    for n in range(10):
        mine = [e for e in recorded if e.attributes["n"] == n]
        inner_event, outer_event = mine
        assert spans[inner_event.span_id].parent_id == outer_event.span_id
        assert inner_event.trace_id == outer_event.trace_id
    assert len({e.trace_id for e in recorded}) == 10


def test_a_binding_around_a_generator(recorded):
    f = emits("x")(lambda: (yield))
    with bind(artifact_id="a"):
        list(f())
    assert recorded.one().artifact_id == "a"
