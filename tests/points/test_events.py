"""What a decorated call emits: when, in which mode, about what."""

import asyncio
import contextvars
import threading

import pytest

import sidelight
from sidelight import arg, bind, emits, result
from sidelight.emission.emitter import EMITTER
from sidelight.exceptions import InstrumentationError
from sidelight.testing import capture


@pytest.fixture
def recorded():
    with capture() as recorded:
        yield recorded


def nothing(*args, **kwargs):
    return None


# -- start, success, failure ----------------------------------------------------------------------


def test_success(recorded):
    assert emits("done", n=arg.n)(lambda n: n + 1)(1) == 2
    event = recorded.one("done")
    assert (event.outcome, event.mode, event.attributes) == ("succeeded", "scheduled", {"n": 1})
    assert event.duration_ns >= 0
    assert event.point.endswith(":test_success.<locals>.<lambda>")


def test_start_comes_before_the_work(recorded):
    seen = []
    emits("ended", start="began")(lambda: seen.extend(recorded.types))()
    assert seen == ["began"]
    assert recorded.types == ["began", "ended"]
    began, ended = recorded
    assert (began.outcome, began.duration_ns, ended.outcome) == ("started", None, "succeeded")
    assert began.trace_id == ended.trace_id
    assert began.span_id == ended.span_id
    assert began.event_id != ended.event_id
    assert [span.name for span in recorded.spans] == [recorded.spans[0].name]


def test_failure(recorded):
    @emits("done", start="began", failure="failed", artifact_id=arg.a)
    def f(a):
        raise ValueError("too small")

    with pytest.raises(ValueError, match="too small"):
        f("a1")
    assert recorded.types == ["began", "failed"]
    failed = recorded.one("failed")
    assert (failed.outcome, failed.artifact_id) == ("failed", "a1")
    assert (failed.error_type, failed.error_message) == ("ValueError", "too small")
    assert recorded.spans[0].error_type == "ValueError"


def test_a_failure_without_an_event_is_in_the_span(recorded):
    @emits("done")
    def f():
        raise KeyError("k")

    with pytest.raises(KeyError):
        f()
    assert recorded.types == []
    assert recorded.spans[0].error_type == "KeyError"


def test_an_error_of_the_applications_own_by_its_full_name(recorded):
    @emits(failure="failed")
    def f():
        raise InstrumentationError(point="p", reason="r", problem="x")

    with pytest.raises(InstrumentationError):
        f()
    assert recorded.one().error_type == "sidelight.exceptions.InstrumentationError"


def test_the_frames_of_a_failure_are_the_functions_own(recorded):
    def inner():
        raise ValueError

    @emits(failure="failed")
    def outer():
        inner()

    with pytest.raises(ValueError):
        outer()
    (_, moment), *_ = recorded.records
    kind, message, frames = moment.details["error"]
    assert (kind, message) == ("ValueError", "")
    assert [name.rpartition(".")[2] for _, _, name in frames] == ["outer", "inner"]
    assert all(file == __file__ for file, _, _ in frames)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_failures_that_are_no_exceptions(recorded, error):
    @emits(failure="failed")
    def f():
        raise error

    with pytest.raises(error):
        f()
    assert recorded.one("failed").error_type.endswith(error.__name__)


def test_spans_nest(recorded):
    inner = emits("inner")(nothing)
    emits("outer")(lambda: inner())()
    spans = {span.span_id: span for span in recorded.spans}
    below = recorded.one("inner")
    above = recorded.one("outer")
    assert spans[below.span_id].parent_id == above.span_id
    assert below.trace_id == above.trace_id
    assert spans[above.span_id].parent_id is None


def test_without_a_span_an_event_belongs_to_the_one_around_it(recorded):
    inner = emits("inner", failure="inner_failed", span=False)(nothing)
    emits("outer")(lambda: inner())()
    assert recorded.one("inner").span_id == recorded.one("outer").span_id
    assert len(recorded.spans) == 1


def test_without_a_span_a_phase_without_an_event_writes_nothing(recorded):
    emits(failure="failed", span=False)(nothing)()
    assert recorded.records == []


# -- several on one function ----------------------------------------------------------------------


def test_stacked(recorded):
    @emits("third", a=arg.a)
    @emits("second", start="second_began", failure="second_failed")
    @emits("first", mode="awaited")
    def f(a, fail=False):
        if fail:
            raise ValueError("no")
        return a

    assert f(1) == 1
    assert recorded.types == ["second_began", "first", "second", "third"]
    assert [e.mode for e in recorded] == ["scheduled", "awaited", "scheduled", "scheduled"]
    assert len({e.span_id for e in recorded}) == 1
    assert len(recorded.spans) == 1
    assert not hasattr(f.__wrapped__, "__wrapped__")
    recorded.clear()
    with pytest.raises(ValueError, match="no"):
        f(1, fail=True)
    assert recorded.types == ["second_began", "second_failed"]
    assert [e.error_type for e in recorded] == [None, "ValueError"]
    assert len(recorded.spans) == 1


def test_stacked_failures_all_say_why(recorded):
    @emits(failure="outer_failed")
    @emits(failure="inner_failed")
    def f():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        f()
    assert [(e.type, e.error_message) for e in recorded] == [
        ("inner_failed", "no"),
        ("outer_failed", "no"),
    ]
    assert len(recorded.spans) == 1


def test_one_decorator_for_several_functions(recorded):
    announce = emits("happened", n=arg.n)
    f = announce(lambda n: None)
    g = announce(lambda m, n: None)
    f(1)
    g(0, 2)
    assert [event.attributes["n"] for event in recorded] == [1, 2]


# -- whose it is ----------------------------------------------------------------------------------


def test_ids(recorded):
    @emits("happened", artifact_id=result["id"], organization_id=arg.candidates[0]["org"])
    def f(candidates):
        return {"id": 17}

    f([{"org": "o1"}])
    f([])
    assert [(e.artifact_id, e.organization_id) for e in recorded] == [("17", "o1"), ("17", None)]


def test_bound_values_fill_in_what_an_event_does_not_name(recorded):
    named = emits("named", artifact_id=arg.a)(lambda a: None)
    silent = emits("silent")(nothing)
    with bind(artifact_id="bound", organization_id="o1"):
        named("own")
        named(None)
        silent()
        sidelight.emit("direct")
    silent()
    ids = [(e.type, e.artifact_id, e.organization_id) for e in recorded]
    assert ids == [
        ("named", "own", "o1"),
        ("named", "bound", "o1"),
        ("silent", "bound", "o1"),
        ("direct", "bound", "o1"),
        ("silent", None, None),
    ]


def test_binding_nests(recorded):
    f = emits("f")(nothing)
    with bind(artifact_id="a", organization_id="o"):
        with bind(artifact_id="b"):
            f()
            with bind(organization_id="p"):
                f()
        f()
    assert [(e.artifact_id, e.organization_id) for e in recorded] == [
        ("b", "o"),
        ("b", "p"),
        ("a", "o"),
    ]


def test_a_binding_can_be_entered_again_and_inside_itself(recorded):
    f = emits("f")(nothing)
    binding = bind(artifact_id="a")
    with binding, binding:
        f()
    with binding:
        f()
    f()
    assert [e.artifact_id for e in recorded] == ["a", "a", None]


def test_a_binding_ends_when_its_block_raises(recorded):
    f = emits("f")(nothing)
    with pytest.raises(ValueError, match="x"), bind(artifact_id="a"):
        raise ValueError("x")
    f()
    assert recorded.one().artifact_id is None


def test_a_binding_is_the_threads_own(recorded):
    f = emits("f")(lambda n: None)
    with bind(artifact_id="main"):
        plain = threading.Thread(target=f, args=(1,))
        copied = threading.Thread(target=contextvars.copy_context().run, args=(f, 2))
        for thread in (plain, copied):
            thread.start()
            thread.join()
    assert [e.artifact_id for e in recorded] == [None, "main"]


async def test_a_binding_is_the_tasks_own(recorded):
    @emits("f", n=arg.n)
    async def f(n):
        await asyncio.sleep(0)

    async def task(n):
        with bind(artifact_id=f"a{n}"):
            await asyncio.sleep(0)
            await f(n)

    with bind(organization_id="all"):
        await asyncio.gather(*(task(n) for n in range(5)))
    assert {(e.attributes["n"], e.artifact_id, e.organization_id) for e in recorded} == {
        (n, f"a{n}", "all") for n in range(5)
    }


def test_a_binding_left_in_another_context_harms_nobody():
    def generator():
        with bind(artifact_id="a"):
            yield 1

    made = generator()
    contextvars.copy_context().run(next, made)
    contextvars.copy_context().run(made.close)


# -- modes ----------------------------------------------------------------------------------------


class Waits:
    """Stands in for the store's progress and notes who waits."""

    def __init__(self, error=None):
        self.calls = []
        self.error = error

    def wait(self, position, seconds):
        self.calls.append("wait")
        if self.error:
            raise self.error
        return True

    async def arrive(self, position, seconds):
        self.calls.append("arrive")
        await asyncio.sleep(0)
        if self.error:
            raise self.error
        return True


@pytest.fixture
def waits(monkeypatch):
    waits = Waits()
    monkeypatch.setattr(EMITTER, "watermark", waits)
    return waits


def test_scheduled_never_waits(recorded, waits):
    emits("done", start="began", failure="failed")(nothing)()
    assert waits.calls == []


def test_awaited_waits_for_each_of_its_phases(recorded, waits):
    emits("done", start="began", mode="awaited")(nothing)()
    assert waits.calls == ["wait", "wait"]
    emits(failure="failed", mode="awaited")(nothing)()
    assert waits.calls == ["wait", "wait"]


def test_several_awaited_events_make_one_wait(recorded, waits):
    emits("b", mode="awaited")(emits("a", mode="awaited")(nothing))()
    assert waits.calls == ["wait"]


def test_only_the_awaited_of_several_makes_a_wait(recorded, waits):
    emits(start="began", mode="awaited")(emits("done")(nothing))()
    assert waits.calls == ["wait"]


async def test_a_coroutine_awaits(recorded, waits):
    @emits("done", start="began", failure="failed", mode="awaited")
    async def f(error=None):
        await asyncio.sleep(0)
        if error:
            raise error
        return 5

    assert await f() == 5
    assert waits.calls == ["arrive", "arrive"]
    with pytest.raises(KeyError):
        await f(KeyError())
    assert waits.calls == ["arrive"] * 4
    assert recorded.types == ["began", "done", "began", "failed"]


async def test_generators_wait(recorded, waits):
    @emits("done", start="began", mode="awaited")
    def sync():
        yield 1

    @emits("done", start="began", mode="awaited")
    async def asynchronous():
        yield 1

    assert list(sync()) == [1]
    assert waits.calls == ["wait", "wait"]
    assert [i async for i in asynchronous()] == [1]
    assert waits.calls == ["wait", "wait", "arrive", "arrive"]


async def test_a_wait_that_breaks_is_a_loss_and_no_error(waits):
    @emits("done", mode="awaited")
    async def f():
        return 1

    @emits("done", mode="awaited")
    def g():
        return 2

    waits.error = RuntimeError("the relay is gone")
    with capture(strict=False) as recorded:
        assert await f() == 1
        assert g() == 2
    assert recorded.types == ["done", "done"]
    assert sum(recorded.losses.values()) == 2


def test_a_lost_event_is_not_awaited(waits, monkeypatch):
    with capture(strict=False):
        f = emits("done", mode="awaited")(nothing)
        monkeypatch.setattr(EMITTER, "spool", Broken())
        f()
    assert waits.calls == []


class Broken:
    """A spool that takes nothing."""

    def write(self, frame):
        raise OSError(28, "No space left on device")

    append = write

    def position(self):
        return (0, 0)


# -- cancelled while it waits ---------------------------------------------------------------------


class Stuck(Waits):
    """A store that never answers: the wait takes as long as it may."""

    def __init__(self):
        super().__init__()
        self.entered = asyncio.Event()

    async def arrive(self, position, seconds):
        self.entered.set()
        await asyncio.sleep(30)


async def cancelled_in_its_wait(monkeypatch, **events):
    stuck = Stuck()
    monkeypatch.setattr(EMITTER, "watermark", stuck)
    ran = []

    @emits(**events, mode="awaited")
    async def f():
        ran.append(1)

    task = asyncio.create_task(f())
    await stuck.entered.wait()
    task.cancel("stop")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    return ran


async def test_cancelled_before_it_began(recorded, monkeypatch):
    ran = await cancelled_in_its_wait(monkeypatch, start="began")
    assert ran == []
    assert recorded.spans[0].error_type.endswith("CancelledError")


async def test_a_cancellation_after_the_work_arrives(recorded, monkeypatch):
    @emits("done", mode="awaited")
    async def f():
        return 1

    stuck = Stuck()
    monkeypatch.setattr(EMITTER, "watermark", stuck)
    arrived = []

    async def caller():
        try:
            await f()
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            arrived.append("cancelled")
            raise

    task = asyncio.create_task(caller())
    await stuck.entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert arrived == ["cancelled"]
    assert recorded.types == ["done"]


async def test_a_timeout_during_the_last_wait_leaves_no_cancellation_behind(recorded, monkeypatch):
    @emits("done", mode="awaited")
    async def f():
        return 1

    monkeypatch.setattr(EMITTER, "watermark", Stuck())
    try:
        async with asyncio.timeout(0.01):
            await f()
    except TimeoutError:
        pass
    assert asyncio.current_task().cancelling() == 0
    await asyncio.sleep(0.001)  # were the cancellation still pending it would come now
