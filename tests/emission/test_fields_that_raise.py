"""What a field raises is the field's: its caller gets the function's outcome, and the loss counts.

An exception that ends coroutines and generators (CancelledError, GeneratorExit) is often raised by
a C function, without a Python ``raise``. Its traceback then looks like an interrupt's.
"""

import asyncio
import concurrent.futures
import signal

import pytest
from tests.support import acting
from tests.support.acting import Bites, raises
from tests.support.platforms import PLATFORM

from sidelight import arg, choose, emit, emits, error
from sidelight.testing import capture


def cancelled_task():
    async def main():
        task = asyncio.create_task(asyncio.sleep(9))
        task.cancel()
        await asyncio.wait([task])
        return task

    return asyncio.run(main())


def cancelled_future():
    loop = asyncio.new_event_loop()
    future = loop.create_future()
    future.cancel()
    loop.close()
    return future


def counting():
    yield 1
    yield 2


def started():
    generator = counting()
    next(generator)
    return generator


def thrown(error):
    return lambda: started().throw(error)


async def waiting():
    await asyncio.sleep(0)


def closed_coroutine():
    coroutine = waiting()
    coroutine.send(None)
    coroutine.throw(asyncio.CancelledError)


TASK, FUTURE, EXECUTED = cancelled_task(), cancelled_future(), concurrent.futures.Future()
EXECUTED.cancel()
WAYS = {
    "result of a cancelled task": TASK.result,
    "exception of a cancelled task": TASK.exception,
    "result of a cancelled future": FUTURE.result,
    "result of a cancelled future of a pool": EXECUTED.result,
    "GeneratorExit thrown in": thrown(GeneratorExit),
    "GeneratorExit thrown into a new generator": lambda: counting().throw(GeneratorExit),
    "CancelledError thrown in": thrown(asyncio.CancelledError),
    "CancelledError thrown into a coroutine": closed_coroutine,
    "ValueError thrown in": thrown(ValueError),
    **{
        f"raise {each.__name__}": raises(each)
        for each in (
            *(KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError, Bites),
            *(StopIteration, StopAsyncIteration, MemoryError, RecursionError, ValueError),
        )
    },
}
"""Ways to raise inside a field, and no signal or other thread is the cause of any."""


class Thing(acting.Thing):
    """A value whose property, `repr`, hash or comparison raises."""

    def __hash__(self):
        return self.act()

    def __eq__(self, other):
        return self.act()


class Failed(Exception):
    """An exception whose text and code raise."""

    def __init__(self, act):
        self.act = act

    def __str__(self):
        return self.act()

    @property
    def code(self):
        return self.act()


@pytest.mark.parametrize("act", WAYS.values(), ids=WAYS)
def test_what_a_field_raises_costs_that_field(act):
    fields = {"path": arg.v.name, "call": lambda v: v.act(), "told": arg.v, "kept": 1}
    f = emits("ended", start="began", failure="failed", **fields)(lambda v: 5)
    with capture(strict=False) as recorded:
        assert f(Thing(act)) == 5
    assert recorded.types == ["began", "ended"]
    assert recorded.losses == {"field path not captured": 2, "field call not captured": 2}
    for event in recorded:
        assert event.attributes["kept"] == 1
        assert event.attributes["told"].endswith("while it was captured>")


@pytest.mark.parametrize("act", WAYS.values(), ids=WAYS)
def test_what_an_exception_raises_does_not_replace_it(act):
    @emits(failure="failed", code=error.code, call=lambda error: error.act())
    def f():
        raise problem

    problem = Failed(act)
    with capture(strict=False) as recorded, pytest.raises(Failed) as caught:
        f()
    assert caught.value is problem
    assert recorded.losses == {"field code not captured": 1, "field call not captured": 1}
    assert recorded.one("failed").error_message.endswith("while it was captured>")


@pytest.mark.parametrize("act", WAYS.values(), ids=WAYS)
def test_what_a_choice_raises_leaves_the_other_events(act):
    by = choose(lambda v: v.act(), {"a": "a"}, otherwise="other")
    hashed = choose(arg.v, {"a": "a"}, otherwise="hashed")
    f = emits("ended")(emits(by)(emits(hashed)(lambda v: 5)))
    with capture(strict=False) as recorded:
        assert f(Thing(act)) == 5
    assert sorted(recorded.types) == ["ended", "hashed", "other"]


@pytest.mark.parametrize("act", WAYS.values(), ids=WAYS)
def test_what_a_value_of_emit_raises_costs_that_value(act):
    with capture(strict=False) as recorded:
        assert str(emit("x", told=Thing(act), kept=1))
    assert recorded.one("x").attributes["kept"] == 1
    assert recorded.one("x").attributes["told"].endswith("while it was captured>")


async def test_a_coroutine_is_not_cancelled_by_its_field():
    @emits("checked", failure="failed", answer=lambda task: task.result())
    async def check(task):
        return "checked"

    with capture(strict=False) as recorded:
        assert await check(TASK) == "checked"
    assert recorded.types == ["checked"]
    assert recorded.losses == {"field answer not captured": 1}


# -- an interrupt passes nevertheless --------------------------------------------------------------


def restores_itself(kind):
    """Make a handler that puts the default back before it raises, as some programs do."""

    def handle(number, frame):
        signal.signal(number, signal.SIG_DFL)
        raise kind

    return handle


@pytest.mark.skipif(PLATFORM == "windows", reason="Windows has no SIGUSR1: run it on Linux")
@pytest.mark.parametrize(
    "kind", [KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, SystemExit, ValueError]
)
@pytest.mark.parametrize(
    "field", [arg.v.name, arg.v, lambda v: v.act()], ids=["path", "repr", "call"]
)
def test_the_exception_of_a_handler_passes_although_it_is_not_installed_any_more(kind, field):
    before = signal.getsignal(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, restores_itself(kind))
    try:
        f = emits("x", a=field)(lambda v: 5)
        with capture(strict=False) as recorded, pytest.raises(kind):
            f(Thing(lambda: signal.raise_signal(signal.SIGUSR1)))
        assert recorded.losses == {}
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_ctrl_c_passes_where_a_field_computes():
    """The handler of Ctrl-C is a C function, and leaves no frame."""
    f = emits("x", a=lambda: signal.raise_signal(signal.SIGINT))(lambda: 5)
    with capture(strict=False), pytest.raises(KeyboardInterrupt):
        f()
