"""The code of a wrapper is written at its first call: what the caller sees is the same before."""

import asyncio
import gc
import inspect
import itertools
import sys
import threading

import pytest
from tests.support.switching import all_at_once

import sidelight
from sidelight import arg, emits
from sidelight.emission import EMITTER
from sidelight.exceptions import PointError
from sidelight.points import codegen, first_call
from sidelight.record import NO_COSTS

MODULES = [f"sidelight.points.{name}" for name in ("codegen", "first_call", "wrapper")]


def every(a, /, b, *rest, c, d=4, **more):
    return a, b, rest, c, d, more


async def awaited(a, *, b=2):
    return a, b


CALLS = [
    (every, (1, 2), {"c": 3}),
    (every, (1, 2, 8, 9), {"c": 3, "d": 5, "e": 6}),
    (every, (1,), {"b": 2, "c": 3, "a": 7}),
    (awaited, (1,), {}),
    (awaited, (1,), {"b": 3}),
]


@pytest.fixture(autouse=True)
def _no_notebook(monkeypatch):
    """Beside IPython code is written at decoration, because autoreload compares it at once."""
    monkeypatch.delitem(sys.modules, "IPython", raising=False)


def is_waiting(function):
    return function.__code__.co_filename == first_call._FILENAME


def result_of(function, *args, **kwargs):
    result = function(*args, **kwargs)
    return asyncio.run(result) if inspect.iscoroutine(result) else result


@pytest.mark.parametrize(("function", "args", "kwargs"), CALLS)
def test_every_argument_arrives(function, args, kwargs, sidelight_events):
    decorated = emits("called", value=arg.a)(function)
    assert is_waiting(decorated)
    for _ in range(2):
        assert result_of(decorated, *args, **kwargs) == result_of(function, *args, **kwargs)
        assert not is_waiting(decorated)
    assert [event.attributes["value"] for event in sidelight_events] == [1, 1]


@pytest.mark.parametrize("function", [every, awaited])
def test_it_looks_like_the_function(function):
    before = emits("called")(function)
    assert is_waiting(before)
    assert inspect.iscoroutinefunction(before) == inspect.iscoroutinefunction(function)
    assert inspect.signature(before, follow_wrapped=False) == inspect.signature(function).replace(
        return_annotation=inspect.Signature.empty
    )
    with pytest.raises(TypeError) as told:
        before()
    with pytest.raises(TypeError) as expected:
        function()
    assert str(told.value) == str(expected.value)


def test_mistakes_are_found_at_decoration():
    with pytest.raises(PointError, match="no parameter"):
        emits("called", value=arg.missing)(every)


@pytest.mark.parametrize("value", [[1], {"a": 1}])
def test_a_value_that_may_change_is_kept_at_decoration(value, sidelight_events):
    decorated = emits("called", value=value)(lambda: None)
    expected = value.copy()
    value.clear()
    decorated()
    (event,) = sidelight_events
    assert event.attributes["value"] == expected


def test_many_threads_may_be_the_first(sidelight_events):
    decorated, gate = emits("called", value=arg.a)(lambda a: a), threading.Barrier(8)
    results = []

    def call(number):
        gate.wait()
        results.append(decorated(number))

    all_at_once(call, range(8), every=1e-5)
    assert sorted(results) == sorted(e.attributes["value"] for e in sidelight_events) == [*range(8)]


def test_where_no_code_can_be_written_the_function_is_called(monkeypatch, sidelight_events):
    decorated = emits("called")(every)

    def fail(*_, **__):
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr("sidelight.points.codegen._compiled", fail)
        patched.setattr(EMITTER, "strict", False)
        assert decorated(1, 2, c=3) == every(1, 2, c=3)
    assert EMITTER.losses.pop("internal error") == 1
    EMITTER.problems.clear()
    assert decorated(1, 2, c=3) == every(1, 2, c=3)
    assert len(sidelight_events) == 1


def test_a_point_that_is_never_called_has_no_histogram(sidelight_events):
    def uncalled():
        pass

    path = f"{__name__}:{uncalled.__qualname__}"
    decorated = emits("called")(uncalled)
    assert EMITTER.costs[path] is NO_COSTS
    decorated()
    assert EMITTER.costs[path].count() == 1
    assert not NO_COSTS.count()
    assert sidelight.__version__


class Interruption(BaseException):
    """Ctrl-C, or what another thread sends."""


def interrupted_at(line, function):
    """Call a function, and interrupt it at so many lines of `points`; return whether it was.

    What is collected meanwhile is no part of it: its finalizers are lines of `points`, too.
    """
    lines = itertools.count()

    def at_each_line(frame, event, _):
        if event == "line" and next(lines) == line:
            raise Interruption
        return at_each_line

    def of_points(frame, *_):
        return at_each_line if frame.f_globals.get("__name__") in MODULES else None

    before = sys.gettrace()
    gc.disable()
    sys.settrace(of_points)
    try:
        function(1)
    except Interruption:
        return True
    finally:
        sys.settrace(before)
        gc.enable()
    return False


def test_after_an_interrupted_first_call_no_finalizer_runs_in_the_next(monkeypatch):
    """An exception from outside that arrived in a finalizer would be swallowed."""
    ran, kept = [], []
    monkeypatch.setattr(codegen, "_release", lambda *about: ran.append(about))
    for line in itertools.count(0, 3):
        decorated = emits("called", value=arg.a)(lambda a: a)
        kept.append(decorated)  # else its own finalizers run some time
        was_interrupted = interrupted_at(line, decorated)
        ran.clear()
        assert decorated(1) == 1
        assert ran == [], line
        if not was_interrupted:
            break
    assert line > 100
