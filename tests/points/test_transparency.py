"""A decorated function is, to everybody who looks, the function that it was."""

import asyncio
import contextlib
import copy
import doctest
import functools
import gc
import inspect
import itertools
import linecache
import pickle
import pydoc
import re
import subprocess
import sys
import textwrap
import traceback
import typing
import weakref

import pytest
from tests.support.callable_kinds import BASIC, KINDS, built

from sidelight import arg, emits
from sidelight.points import codegen
from sidelight.testing import capture


@pytest.fixture(autouse=True)
def recorded():
    with capture() as recorded:
        yield recorded


class Note:
    """What functions here are annotated with."""


def plain(note: "Note", *, times: int = 2) -> "list[Note]":
    """Repeat a note."""
    return [note] * times


@emits("repeated", times=arg.times)
def decorated(note: "Note", *, times: int = 2) -> "list[Note]":
    """Repeat a note."""
    return [note] * times


class Shop:
    @emits("sold")
    def sell(self, price: int) -> int:
        """Sell it."""
        return price


# -- results and errors ---------------------------------------------------------------------------


def test_the_result_is_the_same_object():
    thing = object()
    assert emits("x")(lambda: thing)() is thing


@pytest.mark.parametrize(
    "error",
    [
        ValueError("v"),
        KeyboardInterrupt(),
        SystemExit(3),
        GeneratorExit(),
        StopIteration(5),
        StopAsyncIteration(),
        asyncio.CancelledError("why"),
        ExceptionGroup("several", [ValueError(1)]),
        type("Own", (BaseException,), {})(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_pass_as_they_were(error):
    cause, context = KeyError("cause"), KeyError("context")
    error.__cause__, error.__context__ = cause, context
    error.__suppress_context__ = False

    @emits("x", start="y", failure="z")
    def f():
        raise error

    with pytest.raises(BaseException) as caught:
        f()
    assert caught.value is error
    assert (error.__cause__, error.__context__) == (cause, context)
    assert not error.__suppress_context__


async def test_errors_of_coroutines_pass_as_they_were():
    for error in (ValueError("v"), asyncio.CancelledError("why"), StopAsyncIteration()):

        @emits("x", failure="z")
        async def f(error=error):
            await asyncio.sleep(0)
            raise error

        with pytest.raises(BaseException) as caught:
            await f()
        assert caught.value is error
        assert error.__context__ is None


def throw(generator):
    next(generator)
    generator.throw(ValueError("x"))


def frames(call):
    with pytest.raises(ValueError) as caught:
        call()
    return traceback.extract_tb(caught.value.__traceback__)


@pytest.mark.parametrize("kind", [*KINDS, "thrown into a generator"])
def test_errors_pass_with_one_frame_of_ours(kind):
    def call(decorate):
        if kind == "thrown into a generator":
            return lambda: throw(decorate(lambda: (yield))())
        return functools.partial(built(kind, decorate)[1], -1)

    without = frames(call(lambda f: f))
    found = frames(call(emits("x", start="y", failure="z")))
    ours = [frame for frame in found if frame.filename.startswith("<sidelight ")]
    rest = [frame for frame in found if frame not in ours]
    assert [frame.name for frame in rest] == [frame.name for frame in without]
    assert "sidelight/" not in "".join(frame.filename for frame in rest)
    if kind == "starts a task":
        assert ours == []  # the task has frames of its own
        return
    (frame,) = ours
    assert frame.line.startswith(("_result = ", "_box.append("))


def test_sources_survive_a_check_of_the_cache():
    error = frames(functools.partial(built("function", emits("x"))[1], -1))
    linecache.checkcache()
    assert linecache.getline(error[-2].filename, error[-2].lineno).strip() == error[-2].line


def test_two_functions_of_one_name_show_their_own_source():
    def make(*events):
        def f():
            raise ValueError("x")

        for event in events:
            f = emits(event, **{event: 1})(f)
        return f

    first, second = make("a"), make("a", "b", "c")
    for function in (first, second, make("a")):
        frame = next(f for f in frames(function) if f.filename.startswith("<sidelight "))
        assert frame.line == "_result = _function()"


def test_source_is_kept_as_long_as_its_function(monkeypatch):
    """Decorating at run time, again and again, takes no more and more memory."""

    def forget_the_latest():
        for n in range(16):  # as many sources are kept in any case
            codegen.define(f"def other(): {n}", {}, filename="<sidelight other>")
        gc.collect()

    def make(n):
        scope = {"__name__": __name__}
        exec(f"def varying(a, b{n}=0): raise ValueError('x')", scope)
        return emits("x", a=arg.a)(scope["varying"])

    def sources():
        return {name for name in linecache.cache if re.match(r"<sidelight .*:varying\b", name)}

    monkeypatch.delitem(sys.modules, "IPython", raising=False)  # autoreload needs it at once
    made = [make(n) for n in (0, 1, 2, 2)]
    assert not sources()  # it is written at the first call
    for n in range(4):
        frames(lambda n=n: made[n](1))
    assert len(sources()) == 3 + 1  # the functions of phases are the same
    kept = sources()
    for n in range(4):
        (frame,) = (f for f in frames(lambda n=n: made[n](1)) if f.filename in kept)
        assert frame.line.startswith("_result = ")
    del made[3]
    forget_the_latest()
    assert sources() == kept
    del made[1:], frame  # from Python 3.13 on, the summary of a frame has its code
    forget_the_latest()
    assert len(sources()) == 2
    made.clear()
    forget_the_latest()
    assert sources() == set()


def test_a_source_stays_when_its_last_older_code_goes_before_the_new_one_is_known():
    text, names = "def made(): raise ValueError", {}

    def make():
        return codegen.define(text, names, filename="<sidelight collected>")["made"]

    older = make()
    codegen.keep_source(older.__code__)
    made = make()
    del older
    gc.collect()
    codegen.keep_source(made.__code__)
    assert linecache.getline(made.__code__.co_filename, 1) == text
    del made
    for n in range(40):
        codegen.define(f"def made(): {n}", names, filename="<sidelight collected>")
    gc.collect()
    assert len([name for name in linecache.cache if name.startswith("<sidelight collected")]) <= 16


def test_an_interrupted_definition_does_not_keep_more_sources():
    """A `KeyboardInterrupt` at any line of the bookkeeping: later definitions catch up."""

    def define(n):
        codegen.define(f"def made(): {n}", {}, filename="<sidelight interrupted>")

    def interrupt(lines):
        def trace(frame, event, _):
            nonlocal lines
            if frame.f_code is codegen._registered.__code__ and event == "line":
                lines -= 1
                if lines == 0:
                    raise KeyboardInterrupt
            return trace

        return trace

    numbers, interrupted, before = itertools.count(), 0, sys.gettrace()
    for _ in range(16):
        define(next(numbers))
    for lines in range(1, 20):
        sys.settrace(interrupt(lines))
        try:
            define(next(numbers))
        except KeyboardInterrupt:
            interrupted += 1
        finally:
            sys.settrace(before)
    assert 5 < interrupted < 19
    for _ in range(16):
        define(next(numbers))
    assert len(codegen._latest) == 16


# -- what it looks like ---------------------------------------------------------------------------


def test_signatures():
    assert inspect.signature(decorated) == inspect.signature(plain)
    assert inspect.signature(Shop().sell) == inspect.signature(lambda price: 0).replace(
        parameters=[
            inspect.Parameter("price", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=int)
        ],
        return_annotation=int,
    )
    assert inspect.getfullargspec(decorated).kwonlyargs == ["times"]
    own = inspect.signature(decorated, follow_wrapped=False)
    assert list(own.parameters) == ["note", "times"]
    assert own.parameters["times"].default == 2


def test_attributes():
    for name in ("__doc__", "__module__", "__annotations__", "__defaults__", "__kwdefaults__"):
        assert getattr(decorated, name) == getattr(plain, name)
    assert (decorated.__name__, decorated.__qualname__) == ("decorated", "decorated")
    assert decorated.__wrapped__(Note, times=0) == []
    assert decorated.__code__.co_name == "decorated"
    assert typing.get_type_hints(decorated) == {
        "note": Note,
        "times": int,
        "return": list[Note],
    }


def test_attributes_that_others_set():
    def f():
        return None

    f.marked = [1]
    decorated = emits("x")(f)
    assert decorated.marked is f.marked
    decorated.more = 2
    assert not hasattr(f, "more")


def test_help_and_source():
    told = pydoc.plain(pydoc.render_doc(decorated))
    # Python 3.14 shows annotations without quotes.
    assert "decorated(note: Note, *, times: int = 2) -> list[Note]" in told.replace("'", "")
    assert "Repeat a note." in told
    assert inspect.getsource(decorated).endswith("return [note] * times\n")
    assert inspect.getsourcefile(inspect.unwrap(decorated)) == __file__
    assert inspect.getdoc(decorated) == "Repeat a note."
    assert "sell(self, price: int) -> int" in pydoc.plain(pydoc.render_doc(Shop))


@pytest.mark.parametrize("kind", BASIC)
def test_calls_return_the_same_kind_of_object(kind):
    got, expected = (built(kind, decorate)[0](1) for decorate in (emits("x"), lambda f: f))
    assert type(got) is type(expected)
    for name in ("__name__", "__qualname__"):
        assert getattr(got, name, "") == getattr(expected, name, "")
    for each in (got, expected):
        if inspect.iscoroutine(each):
            each.close()


cached = emits("x")(functools.lru_cache(lambda n: n))
cached.__wrapped__.__qualname__ = cached.__wrapped__.__name__ = "cached"
partial = emits("x", a=arg[0])(functools.partial(plain, times=1))


def documented(a: int) -> int:
    """Double a number.

    >>> documented(2)
    4
    """
    return 2 * a


bare_documented, documented = documented, emits("doubled")(documented)


def test_the_bare_function(recorded):
    assert documented.__wrapped__ is inspect.unwrap(documented) is bare_documented
    assert documented.__wrapped__(2) == 4
    assert recorded.types == []


def test_doctests_are_found(recorded):
    found = doctest.DocTestFinder().find(documented, module=sys.modules[__name__])
    assert [each.name for each in found] == ["documented"]
    assert len(found[0].examples) == 1
    assert doctest.DocTestRunner().run(found[0], clear_globs=False).failed == 0


def test_annotations_of_a_route_are_those_of_the_function():
    fastapi = pytest.importorskip("fastapi")
    testclient = pytest.importorskip("fastapi.testclient")
    app = fastapi.FastAPI()

    @app.get("/{number}")
    @emits("read", number=arg.number)
    async def read(number: int, request: fastapi.Request, page: "int" = 1):
        return {"number": number, "page": page, "path": request.url.path}

    with capture() as recorded, testclient.TestClient(app) as client:
        assert client.get("/7?page=2").json() == {"number": 7, "page": 2, "path": "/7"}
        assert client.get("/seven").status_code == 422
    assert recorded.one("read").attributes == {"number": 7}


def test_pickling():
    assert pickle.loads(pickle.dumps(decorated)) is decorated
    assert pickle.loads(pickle.dumps(Shop.sell)) is Shop.sell
    assert pickle.loads(pickle.dumps(Shop().sell))(5) == 5


def test_pickling_of_what_is_carried(recorded):
    again = pickle.loads(pickle.dumps(partial))
    assert again("n") == ["n"]
    assert recorded.one("x").attributes == {"a": "n"}


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda f: pickle.loads(pickle.dumps(f))]
)
def test_a_copy_emits_what_its_original_does(recorded, again):
    first = emits("first", a=arg[0])(functools.partial(plain, times=1))
    emits("second")(functools.partial(plain, times=1))
    copied = again(first)
    assert copied is not first
    assert copied("n") == ["n"]
    assert recorded.one("first").attributes == {"a": "n"}


def test_a_pickled_copy_with_a_field_that_cannot_be_pickled(recorded):
    original = emits("first", a=lambda note: note)(functools.partial(plain, times=1))
    assert pickle.loads(pickle.dumps(original))("n") == ["n"]
    assert recorded.one("first").attributes == {"a": "n"}


def test_copying(recorded):
    assert copy.copy(decorated) is decorated
    assert copy.deepcopy({"f": decorated})["f"] is decorated
    shop = Shop()
    shop.hook = partial
    again = copy.deepcopy(shop)
    assert again.hook is not partial
    assert again.hook("n") == ["n"]
    assert copy.copy(partial)("n") == ["n"]
    assert recorded.types == ["x", "x"]


def test_equality_and_hash():
    assert decorated == decorated
    assert hash(Shop().sell) != 0
    assert {decorated: 1}[decorated] == 1


def test_asyncio_in_debug_mode():
    @emits("x", mode="awaited")
    async def f():
        await asyncio.sleep(0)
        return 1

    @emits("y")
    async def g():
        yield await f()

    async def main():
        assert asyncio.get_running_loop().get_debug()
        return [i async for i in g()]

    assert asyncio.run(main(), debug=True) == [1]


def test_a_coroutine_that_nobody_awaits_is_reported_by_its_name():
    @emits("x")
    async def forgotten():
        return None

    with pytest.warns(RuntimeWarning, match=r"coroutine '.*forgotten' was never awaited"):
        forgotten()
        gc.collect()


def test_warnings_name_the_functions_module():
    """``stacklevel=2`` is the wrapper's frame: it says whose it is."""
    frame = emits("x")(lambda: sys._getframe(1))()
    assert frame.f_globals["__name__"] == __name__


# -- what it holds on to --------------------------------------------------------------------------


class Thing:
    """Something that can be weakly referred to."""


class Failure(Exception):
    """An error that can be."""


def test_nothing_is_held_after_a_call():
    @emits("x", a=arg.a, failure="y")
    def f(a, fail=False):
        if fail:
            raise Failure
        return Thing()

    gc.disable()
    try:
        argument = Thing()
        refs = [weakref.ref(argument), weakref.ref(f(argument))]
        try:
            f(argument, fail=True)
        except Failure as failure:
            refs.append(weakref.ref(failure))
        del argument
        assert [ref() for ref in refs] == [None] * 3
    finally:
        gc.enable()


def test_nothing_is_held_between_resumes():
    @emits("x")
    def f():
        while True:
            received = yield Thing()
            del received

    gc.disable()
    try:
        generator = f()
        yielded = weakref.ref(next(generator))
        assert yielded() is None
        sent, thrown = Thing(), Failure()
        refs = [weakref.ref(sent), weakref.ref(thrown)]
        generator.send(sent)
        with contextlib.suppress(Failure):
            generator.throw(thrown)
        del sent, thrown
        assert [ref() for ref in refs] == [None] * 2
    finally:
        gc.enable()


def test_a_generator_left_half_way_at_the_end_of_the_process_is_silent():
    program = """
        from sidelight import emits
        from sidelight.testing import capture
        import asyncio

        @emits("x")
        def generator():
            yield 1
            yield 2

        @emits("y")
        async def asynchronous():
            yield 1

        @emits("z")
        async def coroutine():
            await asyncio.sleep(0)

        with capture():
            half = generator()
            next(half)
            started = asynchronous().asend(None)
            try:
                started.send(None)
            except StopIteration:
                pass
            waiting = coroutine()
            waiting.send(None)
            import sys
            sys.modules["kept"] = [half, started, waiting]
    """
    ended = subprocess.run(
        [sys.executable, "-Werror", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
