"""Errors of the instrumentation are contained and counted; strict mode raises them."""

import asyncio
import functools
import gc
import signal
import threading

import pytest
from asyncpg.pgproto import pgproto
from opentelemetry import trace
from tests.support import acting
from tests.support.acting import Bites, raises
from tests.support.platforms import PLATFORM

from sidelight import arg, emit, emits
from sidelight.emission.emitter import EMITTER
from sidelight.exceptions import InstrumentationError
from sidelight.host.guard import is_interrupt
from sidelight.testing import capture


class Broken:
    """A spool that accepts no frame."""

    def __init__(self, error):
        self.error = error

    def write(self, frame):
        raise self.error

    append = write

    def position(self):
        return (0, 0)


class Thing(acting.Thing):
    """A value that has no hash."""

    __hash__ = None


FULL = OSError(28, "No space left on device")


@emits("x", failure="failed")
def function(error=None):
    if error:
        raise error
    return 5


@emits("x", failure="failed", mode="awaited")
async def coroutine(error=None):
    await asyncio.sleep(0)
    return function.__wrapped__(error)


@emits("x", failure="failed")
def generator(error=None):
    yield 1
    return function.__wrapped__(error)


@emits("x", failure="failed")
async def async_generator(error=None):
    yield function.__wrapped__(error)


async def drain(iterator):
    return [each async for each in iterator]


CALLS = {
    "function": lambda error=None: function(error),
    "coroutine": lambda error=None: asyncio.run(coroutine(error)),
    "generator": lambda error=None: list(generator(error)),
    "async generator": lambda error=None: asyncio.run(drain(async_generator(error))),
    "partial": lambda error=None: functools.partial(function, error)(),
}


# -- contained and counted -------------------------------------------------------------------------


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("problem", [FULL, ValueError("end"), RuntimeError("odd")])
def test_a_spool_that_fails_harms_no_call(call, problem, monkeypatch):
    with capture(strict=False) as recorded:
        monkeypatch.setattr(EMITTER, "spool", Broken(problem))
        without_error = call()
        error = KeyError("the application's")
        with pytest.raises(KeyError) as caught:
            call(error)
        assert sum(recorded.losses.values()) == 2
    assert without_error in (5, [1], [5])
    assert caught.value is error


def test_losses_by_reason():
    f = emits("x", a=arg.v.name, b=lambda v: v.name, c=arg.v.name.more)(lambda v: None)
    with capture(strict=False) as recorded:
        f(Thing(raises(ValueError("v"))))
        f(Thing(raises(Bites("b"))))
        assert recorded.losses == {
            "field a not captured": 2,
            "field b not captured": 2,
            "field c not captured": 2,
        }
        assert "Bites" in EMITTER.problems["field a not captured"]
        assert f"{__name__}:test_losses_by_reason" in EMITTER.problems["field a not captured"]
    assert recorded.types == ["x", "x"]


def test_a_value_that_raises_in_code_that_is_compiled():
    """Cython's frames look as if an interrupt had come before they began."""
    f = emits("x", a=arg.v.name)(lambda v: 5)
    with capture(strict=False) as recorded:
        assert f(Thing(lambda: pgproto.UUID("none"))) == 5
        assert recorded.losses == {"field a not captured": 1}


def test_an_error_whose_message_raises():
    class Untold(Exception):
        def __str__(self):
            raise Bites

    f = emits("x", a=arg.v.name)(lambda v: 5)
    with capture(strict=False) as recorded:
        assert f(Thing(raises(Untold()))) == 5
        assert recorded.losses == {"field a not captured": 1}
    with capture(strict=True), pytest.raises(InstrumentationError, match="while it was captured"):
        f(Thing(raises(Untold())))


def test_a_missing_step_of_an_expression_is_no_loss():
    f = emits("x", a=arg.v.no.such.thing, b=arg.v["k"][0])(lambda v: None)
    with capture() as recorded:
        f(None)
        f({"k": []})
        assert recorded.losses == {}


def test_an_error_of_a_callable_is_a_loss():
    f = emits("x", a=lambda v: v["k"])(lambda v: None)
    with capture(strict=False) as recorded:
        f({})
        assert recorded.losses == {"field a not captured": 1}


def test_the_context_is_restored_where_the_spool_fails(monkeypatch):
    with capture(strict=False) as recorded:
        monkeypatch.setattr(EMITTER, "spool", Broken(FULL))
        function()
        monkeypatch.setattr(EMITTER, "spool", recorded)
        function()
    assert [span.parent_id for span in recorded.spans] == [None]


def test_losses_of_several_threads():
    f = emits("x", a=lambda: 1 / 0)(lambda: None)
    with capture(strict=False) as recorded:
        threads = [threading.Thread(target=lambda: [f() for _ in range(50)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(recorded) == 200
    assert recorded.losses == {"field a not captured": 200}


# -- raised in strict mode ------------------------------------------------------------------------


def test_strict_mode_raises_the_error_of_field():
    f = emits("x", a=arg.v.name)(lambda v: None)
    problem = ValueError("v")
    with capture(strict=True), pytest.raises(InstrumentationError) as caught:
        f(Thing(raises(problem)))
    assert caught.value.__cause__ is problem
    assert str(caught.value) == (
        f"strict mode: the instrumentation of {__name__}:test_strict_mode_raises_the_error_of_field"
        ".<locals>.<lambda> failed (field a not captured): v"
    )


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_strict_mode_raises_the_error_of_the_spool(call, monkeypatch):
    with capture(strict=True):
        monkeypatch.setattr(EMITTER, "spool", Broken(FULL))
        with pytest.raises(InstrumentationError, match="No space left"):
            call()
        with pytest.raises(InstrumentationError) as caught:
            call(KeyError("the application's"))
    assert isinstance(root(caught.value), KeyError)


def root(error):
    """Find the application's error in the chain."""
    seen = []
    while error is not None:
        seen.append(error)
        error = error.__context__
    return next((each for each in seen if isinstance(each, KeyError)), seen[-1])


def test_strict_mode_raises_from_direct_emission(monkeypatch):
    with capture(strict=True):
        monkeypatch.setattr(EMITTER, "spool", Broken(FULL))
        with pytest.raises(InstrumentationError):
            emit("x")


def test_an_instrumentation_error_of_the_function_itself_passes():
    error = InstrumentationError(point="p", reason="r", problem="x")
    with capture(strict=False), pytest.raises(InstrumentationError) as caught:
        function(error)
    assert caught.value is error


# -- interrupts pass -------------------------------------------------------------------------------


class TimeLimit(Exception):
    """The exception of a job queue's alarm."""


class Handlers:
    """Signal handlers in every form that an application may install."""

    def method(self, number, frame):
        raise TimeLimit

    @staticmethod
    def function(number, frame):
        raise TimeLimit

    @staticmethod
    def deep(number, frame):
        Handlers.function(number, frame)

    @staticmethod
    def quits(number, frame):
        raise SystemExit(3)


HANDLERS = {
    "function": (Handlers.function, TimeLimit),
    "method": (Handlers().method, TimeLimit),
    "partial": (functools.partial(Handlers.function), TimeLimit),
    "lambda": (lambda *args: Handlers.function(*args), TimeLimit),
    "deep": (Handlers.deep, TimeLimit),
    "exit": (Handlers.quits, SystemExit),
}


@pytest.fixture
def alarm():
    """Install a handler for SIGALRM, and restore the previous one."""
    if PLATFORM == "windows":
        pytest.skip("Windows has no SIGALRM")
    before = signal.getsignal(signal.SIGALRM)
    gc.disable()  # an exception in a callback of the collector is lost
    yield lambda handler: signal.signal(signal.SIGALRM, handler)
    signal.signal(signal.SIGALRM, before)
    gc.enable()


def rings():
    signal.raise_signal(signal.SIGALRM)
    return "told"


FIELDS = {"path": arg.v.name, "repr": arg.v, "callable": lambda v: v.name}


@pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)
@pytest.mark.parametrize(("handler", "error"), HANDLERS.values(), ids=HANDLERS)
def test_the_exception_of_a_signal_handler_passes(field, handler, error, alarm):
    alarm(handler)
    f = emits("x", a=field)(lambda v: None)
    with capture(strict=False) as recorded:
        with pytest.raises(error):
            f(Thing(rings))
        assert recorded.losses == {}


def test_the_exception_of_a_value_is_contained_where_a_handler_is_installed(alarm):
    alarm(Handlers.function)
    f = emits("x", a=arg.v.name)(lambda v: 5)
    with capture(strict=False) as recorded:
        assert f(Thing(raises(TimeLimit()))) == 5
        assert f(Thing(raises(SystemExit()))) == 5
    assert recorded.losses == {"field a not captured": 2}


@pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)
def test_ctrl_c_passes(field):
    def press():
        signal.raise_signal(signal.SIGINT)

    f = emits("x", a=field)(lambda v: None)
    with capture(strict=False), pytest.raises(KeyboardInterrupt):
        f(Thing(press))


def test_a_signal_during_a_write_or_a_wait(alarm, monkeypatch):
    class Rings(Broken):
        def write(self, frame):
            rings()

        append = write

    class Watermark:
        def wait(self, position, seconds):
            rings()

    alarm(Handlers.function)
    with capture(strict=False):
        monkeypatch.setattr(EMITTER, "watermark", Watermark())
        with pytest.raises(TimeLimit):
            emits("x", mode="awaited")(lambda: None)()
        monkeypatch.setattr(EMITTER, "spool", Rings(None))
        with pytest.raises(TimeLimit):
            emits("x")(lambda: None)()


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize("kind", ["function", "generator", "coroutine"])
def test_an_alarm_at_any_moment_passes_and_leaves_nothing_behind(kind, alarm):
    """The caller gets the exception, and no span stays current."""
    fields = {"artifact_id": arg.a, "b": lambda a: a, "c": "constant"}

    @emits("x", start="y", **fields)
    def function(a):
        return a

    @emits("x", start="y", **fields)
    def generator(a):
        yield a

    @emits("x", start="y", **fields)
    async def coroutine(a):
        return a

    def run(coroutine):
        try:
            coroutine.send(None)
        except StopIteration:
            return

    call = {
        "function": lambda: function("a"),
        "generator": lambda: list(generator("a")),
        "coroutine": lambda: run(coroutine("a")),
    }[kind]
    alarm(Handlers.function)
    swallowed = 0
    with capture(strict=False) as recorded:
        for round_ in range(150):
            try:
                signal.setitimer(signal.ITIMER_REAL, 50e-6 + round_ * 1.7e-6)
                for _ in range(20_000):
                    call()
                swallowed += 1
            except TimeLimit:
                pass
            assert trace.get_current_span() is trace.INVALID_SPAN
            recorded.clear()
        assert (swallowed, recorded.losses) == (0, {})


def test_is_interrupt_with_a_long_traceback_and_odd_handlers(alarm):
    def descend(n):
        if n:
            descend(n - 1)
        raise ValueError("deep")

    alarm(type("Callable", (), {"__call__": lambda self, *args: None})())
    try:
        descend(300)
    except ValueError as error:
        assert not is_interrupt(error)
    assert is_interrupt(KeyboardInterrupt())
