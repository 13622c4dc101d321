"""Every kind of callable can be decorated, and stays what it was."""

import abc
import asyncio
import contextlib
import dataclasses
import functools
import inspect
import math
import types
import unittest.mock

import pytest
import wrapt

from sidelight import arg, emits, result
from sidelight.points.registry import POINTS
from sidelight.testing import capture


@pytest.fixture
def recorded():
    with capture() as recorded:
        yield recorded


def values(recorded):
    """The attributes of the only event, without their names."""
    return list(recorded.one().attributes.values())


# -- functions and their parameters ---------------------------------------------------------------


def test_positional_only_keyword_only_and_the_rest(recorded):
    @emits("called", a=arg.a, b=arg.b, rest=arg.rest, c=arg.c, more=arg.more["x"])
    def f(a, /, b, *rest, c, **more):
        return a, b, rest, c, more

    assert f(1, 2, 3, c=4, x=5, a=6) == (1, 2, (3,), 4, {"x": 5, "a": 6})
    assert values(recorded) == [1, 2, [3], 4, 5]


@pytest.mark.parametrize(
    "call",
    [
        lambda f: f(),
        lambda f: f(1, 2, 3),
        lambda f: f(1, b=2),
        lambda f: f(1, c=2, d=3),
        lambda f: f(a=1, c=2),
    ],
)
def test_wrong_calls_fail_as_without_the_decorator(call):
    def f(a, /, *, c):
        return None

    decorated = emits("called")(f)
    with capture() as recorded:
        with pytest.raises(TypeError) as plain:
            call(f)
        with pytest.raises(TypeError) as wrapped:
            call(decorated)
    qualname = "test_wrong_calls_fail_as_without_the_decorator.<locals>."
    assert str(wrapped.value).replace(qualname, "") == str(plain.value).replace(qualname, "")
    assert recorded.records == []


def test_a_mutable_default_stays_the_same_object():
    default, other = [], {}

    @emits("called")
    def f(a=default, *, b=other):
        a.append(1)
        return a, b

    with capture():
        assert f()[0] is default
        assert f()[1] is other
    assert default == [1, 1]
    assert f.__defaults__[0] is default
    assert f.__kwdefaults__["b"] is other


NAMES = """
    _span _enter _function _result _error _position _outer _inner _generator _resume _box _thrown
    _stop _value _item _now _cost _details _problem _head _emit _clock _bits _plain _bound _lost
    _wait _place _fine _add_cost _artifact_id _attribute_0 _constant_1 _head_30 _started _succeeded
    _failed _closed _detach _args _instance _original _made _continued _arrive _swap _MISSING
    _SCALARS _InstrumentationError _uncaptured _error_details args kwargs self cls type len id str
    range result error arg isinstance print Exception BaseException ValueError RecursionError
    arg_a match case _ __doc__ __name__ __builtins__ f
""".split()  # noqa: SIM905  # it reads better


FORMS = ["{0}", "*, {0}", "{0}, /", "*{0}", "**{0}"]


@pytest.mark.parametrize(("number", "name"), list(enumerate(NAMES)), ids=NAMES)
def test_parameters_of_any_name(number, name, recorded):
    kind, form = ("def", "async def")[number % 2], FORMS[number % len(FORMS)]
    scope = {}
    exec(f"{kind} f({form.format(name)}): return {name}", scope)
    decorated = emits("called", a=arg[name])(scope["f"])
    expected = {"**": {"k": "value"}, "*{": ("value",)}.get(form[:2], "value")
    if form == "**{0}":
        got = decorated(k="value")
    else:
        got = decorated(**{name: "value"}) if form == "*, {0}" else decorated("value")
    assert (asyncio.run(got) if number % 2 else got) == expected
    assert values(recorded) == [list(expected) if form == "*{0}" else expected]


@pytest.mark.parametrize("name", ["_span", "_box", "_generator", "_outer", "args", "StopIteration"])
def test_parameters_of_generators_of_any_name(name, recorded):
    scope = {}
    exec(f"def f({name}): yield {name}", scope)
    assert list(emits("called", a=getattr(arg, name))(scope["f"])("value")) == ["value"]
    assert values(recorded) == ["value"]


def test_the_default_of_a_parameter_that_is_called_as_one_of_ours(recorded):
    @emits("called", a=arg._span, b=arg.b, c=arg.rest, d=arg.more, e=arg[1])
    def f(_span=7, b=8, *rest, c=9, **more):
        return None

    f()
    f(1, 2, 3, c=4, x=5)
    f(b=6)
    assert [list(event.attributes.values()) for event in recorded] == [
        [7, 8, [], {}, 8],
        [1, 2, [3], {"x": 5}, 2],
        [7, 6, [], {}, 6],
    ]


def test_mangled_names(recorded):
    class Vault:
        @emits("opened", code=arg.__code)
        def open(self, __code):
            return __code

    assert Vault().open(1234) == 1234
    assert values(recorded) == [1234]


def test_very_many_parameters(recorded):
    names = [f"p{n}" for n in range(700)]
    scope = {}
    exec(f"def f({', '.join(names)}): return p699", scope)
    assert emits("called", a=arg.p699)(scope["f"])(*range(700)) == 699
    assert values(recorded) == [699]


def test_names_that_are_no_words():
    with capture() as recorded:
        for name in ("<lambda>", "class", "a b", "_enter", "_function", "_succeeded", "é"):
            function = types.FunctionType((lambda a: a).__code__, globals(), name)
            function.__qualname__ = name
            assert emits("called", a=arg.a)(function)(3) == 3
    assert len(recorded) == 7


def test_nested_functions_keep_their_cells(recorded):
    def outer(n):
        @emits("inner", n=arg.m)
        def inner(m):
            nonlocal n
            n += m
            return n

        return inner

    first, second = outer(1), outer(10)
    assert (first(1), second(1), first(1)) == (2, 11, 3)
    assert recorded.types == ["inner"] * 3


def test_recursive_functions(recorded):
    @emits("called", n=arg.n)
    def factorial(n):
        return n * factorial(n - 1) if n else 1

    assert factorial(5) == 120
    assert [e.attributes["n"] for e in recorded] == [0, 1, 2, 3, 4, 5]
    spans = {span.span_id: span for span in recorded.spans}
    roots = [span for span in spans.values() if span.parent_id is None]
    assert len(roots) == 1
    assert all(span.parent_id in spans for span in spans.values() if span is not roots[0])


def test_an_exhausted_stack_is_the_functions_own_error():
    @emits("done", failure="failed", n=arg.n)
    def endless(n):
        return endless(n + 1)

    @emits("after")
    def after():
        return 1

    with capture(strict=False) as recorded:
        with pytest.raises(RecursionError):
            endless(0)
        assert after() == 1
    assert recorded.types[-1] == "after"
    assert {event.type for event in recorded} == {"failed", "after"}
    assert recorded.spans[-1].parent_id is None  # nothing was left in the context


# -- methods --------------------------------------------------------------------------------------


class Multiplier:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, number):
        return self.factor * number


class Base:
    def greet(self, name):
        return f"base {name}"


class Greeter(Base):
    @emits("greeted", name=arg.name, who=arg.self.title)
    def greet(self, name):
        return f"{self.title} {super().greet(name)}"

    title = "Dr"

    @emits("above", cls=arg.cls.__name__, a=arg.a)
    @classmethod
    def above_class(cls, a):
        return cls, a

    @classmethod
    @emits("below", cls=arg.cls.__name__, a=arg.a)
    def below_class(cls, a):
        return cls, a

    @emits("above", a=arg.a)
    @staticmethod
    def above_static(a):
        return a

    @staticmethod
    @emits("below", a=arg.a)
    def below_static(a):
        return a

    @property
    @emits("read", who=arg.self.title)
    def size(self):
        return 3

    @functools.cached_property
    @emits("read_once")
    def weight(self):
        return 5

    @emits("awaited")
    @emits("slept")
    async def sleep(self):
        await asyncio.sleep(0)
        return self

    @emits("counted")
    def count(self, n):
        yield from range(n)

    partial = emits("partially", b=arg.b, who=arg.self.title)(
        functools.partialmethod(lambda self, a, b: (self.title, a, b), 1)
    )

    @emits("cached", a=arg.a)
    @functools.lru_cache  # noqa: B019
    def cached(self, a):
        return [a]

    @emits("dispatched", a=arg.a)
    @functools.singledispatchmethod
    def dispatch(self, a):
        return f"any {a}"

    @dispatch.register
    def _(self, a: int):
        return f"int {a}"

    shared = emits("shared", n=arg[0])(Multiplier(3))
    c_function = emits("c")(len)


def test_a_method_with_super(recorded):
    assert Greeter().greet("Ada") == "Dr base Ada"
    assert Greeter.greet(Greeter(), name="Bob") == "Dr base Bob"
    assert [e.attributes for e in recorded] == [
        {"name": "Ada", "who": "Dr"},
        {"name": "Bob", "who": "Dr"},
    ]
    assert recorded.events[0].point.endswith(":Greeter.greet")


@pytest.mark.parametrize("name", ["above_class", "below_class"])
@pytest.mark.parametrize("through", [Greeter, Greeter()], ids=["class", "instance"])
def test_classmethods(name, through, recorded):
    assert getattr(through, name)(1) == (Greeter, 1)
    assert values(recorded) == ["Greeter", 1]


def test_a_classmethod_in_a_subclass(recorded):
    class Sub(Greeter):
        pass

    assert Sub.above_class(a=2) == (Sub, 2)
    assert values(recorded) == ["Sub", 2]


@pytest.mark.parametrize("name", ["above_static", "below_static"])
@pytest.mark.parametrize("through", [Greeter, Greeter()], ids=["class", "instance"])
def test_staticmethods(name, through, recorded):
    assert getattr(through, name)(1) == 1
    assert values(recorded) == [1]
    assert isinstance(vars(Greeter)[name], staticmethod)


def test_properties_over_the_decorator(recorded):
    greeter = Greeter()
    assert (greeter.size, greeter.weight, greeter.weight) == (3, 5, 5)
    assert recorded.types == ["read", "read_once"]


def test_bound_methods(recorded):
    greet = emits("bound", name=arg.name, first=arg[0])(Base().greet)
    assert greet("Ada") == "base Ada"
    assert greet(name="Ada") == "base Ada"
    assert [e.attributes for e in recorded] == [{"name": "Ada", "first": "Ada"}] * 2
    assert inspect.ismethod(greet)
    assert str(inspect.signature(greet)) == "(name)"


async def test_asynchronous_methods(recorded):
    greeter = Greeter()
    assert await greeter.sleep() is greeter
    assert recorded.types == ["slept", "awaited"]


def test_generator_methods(recorded):
    assert list(Greeter().count(3)) == [0, 1, 2]
    assert recorded.types == ["counted"]


def test_partialmethods(recorded):
    assert Greeter().partial(2) == ("Dr", 1, 2)
    assert Greeter().partial(b=3) == ("Dr", 1, 3)
    assert [e.attributes for e in recorded] == [{"b": 2, "who": "Dr"}, {"b": 3, "who": "Dr"}]


def test_partialmethods_of_coroutine_functions(recorded):
    class C:
        async def f(self, a, b):
            await asyncio.sleep(0)
            assert recorded.types == []
            return a + b

        g = emits("added", b=arg.b)(functools.partialmethod(f, 1))

    assert asyncio.run(C().g(2)) == 3
    assert values(recorded) == [2]


def test_cached_methods(recorded):
    greeter = Greeter()
    assert greeter.cached(1) is greeter.cached(1)
    assert Greeter.cached(greeter, 1) is greeter.cached(1)
    assert [e.attributes["a"] for e in recorded] == [1] * 4
    assert Greeter.cached.cache_info().hits == 3


def test_single_dispatch_methods(recorded):
    assert Greeter().dispatch("x") == "any x"
    assert Greeter().dispatch(5) == "int 5"
    assert [e.attributes["a"] for e in recorded] == ["x", 5]


def test_what_does_not_bind_stays_unbound(recorded):
    assert Greeter().shared(2) == 6
    assert Greeter().c_function([1]) == 1
    assert recorded.types == ["shared", "c"]


# -- what is no function --------------------------------------------------------------------------


def test_partials(recorded):
    power = emits("powered", base=arg[0], exponent=arg.exponent)(
        functools.partial(lambda base, exponent, modulus: pow(base, exponent, modulus), modulus=7)
    )
    assert power(3, 2) == 2
    assert power(3, exponent=2) == 2
    assert [e.attributes for e in recorded] == [{"base": 3, "exponent": 2}] * 2
    assert isinstance(power, functools.partial)
    assert power.keywords == {"modulus": 7}
    assert str(inspect.signature(power)) == "(base, exponent, *, modulus=7)"


def test_an_argument_that_a_partial_gave(recorded):
    emits("called", b=arg.b)(functools.partial(lambda a, b: None, b=2))(1)
    assert values(recorded) == [2]


async def test_partials_of_coroutine_functions(recorded):
    async def fetch(a, b):
        await asyncio.sleep(0)
        assert recorded.types == []
        return a + b

    fetch_one = emits("fetched", b=arg.b)(functools.partial(fetch, 1))
    assert inspect.iscoroutinefunction(fetch_one)
    assert await fetch_one(2) == 3
    assert values(recorded) == [2]


async def test_partials_of_generator_functions(recorded):
    def sync(a, b):
        yield a
        yield b

    async def asynchronous(a, b):
        yield a
        yield b

    first = emits("sync")(functools.partial(sync, 1))
    second = emits("asynchronous")(functools.partial(asynchronous, 1))
    assert inspect.isgeneratorfunction(first)
    assert inspect.isasyncgenfunction(second)
    assert list(first(2)) == [1, 2]
    assert [i async for i in second(2)] == [1, 2]
    assert recorded.types == ["sync", "asynchronous"]


class AsyncMultiplier(Multiplier):
    async def __call__(self, number):
        await asyncio.sleep(0)
        return self.factor * number


class DecoratedMultiplier(Multiplier):
    @emits("multiplied", n=arg.number)
    def __call__(self, number):
        return super().__call__(number)


async def test_callable_instances(recorded):
    double = emits("multiplied", n=arg.number)(Multiplier(2))
    assert (double(3), double.factor, isinstance(double, Multiplier)) == (6, 2, True)
    triple = emits("multiplied", n=arg.number)(AsyncMultiplier(3))
    assert await triple(number=3) == 9
    assert DecoratedMultiplier(4)(3) == 12
    assert [e.attributes["n"] for e in recorded] == [3, 3, 3]
    assert recorded.events[0].point == f"{__name__}:Multiplier"


def test_c_functions(recorded):
    assert emits("counted", a=arg[0])(len)([1, 2]) == 2
    assert emits("rooted", a=arg[0])(math.sqrt)(4) == 2
    assert emits("maximum", a=arg[1])(max)(1, 2) == 2
    assert emits("upper", a=arg[0])(str.upper)("a") == "A"
    assert emits("joined", a=arg[0])(", ".join)(["a", "b"]) == "a, b"
    captured = [list(event.attributes.values()) for event in recorded]
    assert captured == [[[1, 2]], [4], [2], ["a"], [["a", "b"]]]


def test_cached_functions(recorded):
    @emits("squared", n=arg.n)
    @functools.lru_cache
    def square(n):
        return n * n

    assert (square(3), square(3), square.cache_info().hits) == (9, 9, 1)
    square.cache_clear()
    assert recorded.types == ["squared", "squared"]
    assert str(inspect.signature(square)) == "(n)"


def test_single_dispatch(recorded):
    @emits("shown", a=arg.a)
    @functools.singledispatch
    def show(a):
        return f"any {a}"

    @show.register
    @emits("shown_int")
    def _(a: int):
        return f"int {a}"

    assert (show("x"), show(1)) == ("any x", "int 1")
    assert recorded.types == ["shown", "shown_int", "shown"]


def test_mocks(recorded):
    assert emits("mocked", a=arg[0])(unittest.mock.Mock(return_value=5))(1) == 5
    assert asyncio.run(emits("mocked")(unittest.mock.AsyncMock(return_value=6))()) == 6
    assert recorded.types == ["mocked", "mocked"]


async def test_generator_based_coroutines(recorded):
    @emits("slept", failure="failed")
    @types.coroutine
    def sleep(error=None):
        yield
        if error:
            raise error
        return 5

    assert inspect.isawaitable(sleep())
    assert await sleep() == 5
    with pytest.raises(KeyError):
        await sleep(KeyError())
    assert recorded.types == ["slept", "failed"]


# -- other people's decorators --------------------------------------------------------------------


def passing(function):
    """The usual decorator: hands everything on."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def test_over_a_decorator_that_passes_everything_on(recorded):
    @emits("called", a=arg.a, b=arg.b, c=arg.c, rest=arg.rest, more=arg.more)
    @passing
    def f(a, b=2, *rest, c=3, **more):
        return None

    f(1)
    f(1, 4, 5, c=6, d=7)
    f(b=1, a=2)
    assert [list(e.attributes.values()) for e in recorded] == [
        [1, 2, 3, [], {}],
        [1, 4, 6, [5], {"d": 7}],
        [2, 1, 3, [], {}],
    ]
    assert str(inspect.signature(f)) == "(a, b=2, *rest, c=3, **more)"


def test_under_a_decorator(recorded):
    @passing
    @emits("called", a=arg.a)
    def f(a):
        return a

    assert f(1) == 1
    assert values(recorded) == [1]


def test_between_two_of_ours_there_are_two_spans(recorded):
    @emits("outer")
    @passing
    @emits("inner")
    def f():
        return None

    f()
    assert recorded.types == ["inner", "outer"]
    assert len(recorded.spans) == 2


def test_over_a_decorator_with_parameters_of_its_own(recorded):
    def retried(function):
        @functools.wraps(function)
        def wrapper(first, *args, retries=3, **kwargs):
            return function(first, *args, **kwargs)

        return wrapper

    @emits("called", first=arg.first, a=arg.a, b=arg.b, retries=arg.retries)
    @retried
    def f(first, a, b=5):
        return None

    f(1, 2, retries=4)
    assert values(recorded) == [1, 2, 5, 4]


def test_over_a_decorator_with_a_signature_that_it_only_claims(recorded):
    def claiming(function):
        def wrapper(*args, **kwargs):
            return function(*args, **kwargs)

        wrapper.__signature__ = inspect.signature(function)
        return wrapper

    @emits("called", a=arg.a, b=arg.b)
    @claiming
    def f(a, b=2):
        return a, b

    assert f(1) == (1, 2)
    assert values(recorded) == [1, 2]
    assert str(inspect.signature(f)) == "(a, b=2)"


def test_mock_patch(recorded):
    @emits("called", a=arg.a)
    @unittest.mock.patch("math.sqrt")
    def f(a, sqrt):
        return a, sqrt

    assert f(1)[0] == 1
    assert isinstance(f(2)[1], unittest.mock.MagicMock)
    assert [e.attributes["a"] for e in recorded] == [1, 2]


def test_a_decorator_that_gives_an_argument_itself(recorded):
    """As click's pass_context does: the caller's first argument is the function's second."""

    def with_session(function):
        @functools.wraps(function)
        def wrapper(**kwargs):
            return function("session", **kwargs)

        return wrapper

    @emits("called", name=arg.name)
    @with_session
    def f(session, name):
        return session, name

    assert f(name="Ada") == ("session", "Ada")
    assert values(recorded) == ["Ada"]


def test_context_managers(recorded):
    @emits("entered_and_left")
    @contextlib.contextmanager
    def over(a):
        yield a

    @contextlib.contextmanager
    @emits("inside", failure="failed", a=arg.a)
    def under(a):
        yield a

    with over(1) as entered:
        assert (entered, recorded.types) == (1, ["entered_and_left"])
    with under(2) as entered:
        assert (entered, recorded.types) == (2, ["entered_and_left"])
    assert recorded.types == ["entered_and_left", "inside"]
    with pytest.raises(ValueError, match="x"), under(3):
        raise ValueError("x")
    assert recorded.types == ["entered_and_left", "inside", "failed"]
    with contextlib.suppress(ValueError), contextlib.ExitStack() as stack:
        stack.enter_context(under(4))


async def test_asynchronous_context_managers(recorded):
    @contextlib.asynccontextmanager
    @emits("inside", failure="failed", a=arg.a)
    async def under(a):
        yield a

    async with under(2) as entered:
        assert (entered, recorded.types) == (2, [])
    assert recorded.types == ["inside"]
    with pytest.raises(ValueError, match="x"):
        async with under(3):
            raise ValueError("x")
    assert recorded.types == ["inside", "failed"]


async def test_a_plain_wrapper_of_a_coroutine_function(recorded):
    @emits("fetched", failure="failed", a=arg.a, id=result.id, mode="awaited", start="began")
    @passing
    async def fetch(a, error=None):
        await asyncio.sleep(0)
        assert recorded.types[-1] == "began"
        if error:
            raise error
        return types.SimpleNamespace(id="r1")

    assert not inspect.iscoroutinefunction(fetch)
    made = fetch(1)
    assert inspect.iscoroutine(made)
    assert made.__name__ == "fetch"
    assert (await made).id == "r1"
    error = KeyError("x")
    with pytest.raises(KeyError) as caught:
        await asyncio.create_task(fetch(2, error))
    assert caught.value is error
    assert recorded.types == ["began", "fetched", "began", "failed"]
    assert recorded.one("fetched").attributes == {"a": 1, "id": "r1"}
    assert recorded.one("failed").error_type == "KeyError"
    assert len(recorded.spans) == 2


async def test_the_span_of_a_plain_wrapper_is_current_inside_and_nowhere_else(recorded):
    inner = emits("inner")(lambda: None)

    @emits("outer")
    @passing
    async def fetch():
        await asyncio.sleep(0)
        inner()

    made = fetch()
    emits("between")(lambda: None)()
    await made
    outer = recorded.one("outer")
    spans = {span.span_id: span for span in recorded.spans}
    assert spans[recorded.one("inner").span_id].parent_id == outer.span_id
    assert spans[recorded.one("between").span_id].parent_id is None


def test_a_plain_wrapper_that_runs_the_coroutine_itself(recorded):
    def runs(function):
        @functools.wraps(function)
        def wrapper(*args):
            return asyncio.run(function(*args))

        return wrapper

    @emits("fetched", a=arg.a, mode="awaited")
    @runs
    async def fetch(a):
        await asyncio.sleep(0)
        return a

    assert fetch(5) == 5
    assert values(recorded) == [5]


async def test_a_plain_wrapper_that_starts_a_task(recorded):
    def starts(function):
        @functools.wraps(function)
        def wrapper(*args):
            return asyncio.ensure_future(function(*args))

        return wrapper

    @emits("fetched", failure="failed", a=arg.a)
    @starts
    async def fetch(a):
        await asyncio.sleep(0)
        if a is None:
            raise KeyError
        return a

    task = fetch(5)
    assert isinstance(task, asyncio.Task)
    assert recorded.types == []
    assert await task == 5
    assert values(recorded) == [5]
    with pytest.raises(KeyError):
        await fetch(None)
    cancelled = fetch(6)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    await asyncio.sleep(0)
    assert recorded.types == ["fetched", "failed", "failed"]
    assert len(recorded.spans) == 3


async def test_plain_wrappers_of_generator_functions(recorded):
    @emits("sync", a=arg.a)
    @passing
    def sync(a):
        yield a
        return "end"

    @emits("asynchronous", a=arg.a)
    @passing
    async def asynchronous(a):
        yield a

    def delegating():
        assert (yield from sync(1)) == "end"

    assert list(delegating()) == [1]
    assert [i async for i in asynchronous(2)] == [2]
    assert recorded.types == ["sync", "asynchronous"]
    half = sync(3)
    assert next(half) == 3
    half.close()
    assert [span.outcome for span in recorded.spans] == ["succeeded", "succeeded", "closed"]


async def test_single_dispatch_of_coroutine_functions(recorded):
    @emits("handled")
    @functools.singledispatch
    async def handle(a):
        await asyncio.sleep(0)
        return "any"

    @handle.register
    def _(a: int):
        return "at once"

    assert await handle("x") == "any"
    assert handle(1) == "at once"
    assert recorded.types == ["handled", "handled"]


def test_wrapt_decorators(recorded):
    @wrapt.decorator
    def noting(wrapped, instance, args, kwargs):
        return type(instance).__name__, wrapped(*args, **kwargs)

    class C:
        @emits("over", a=arg.a)
        @noting
        def over(self, a):
            return a

        @noting
        @emits("under", a=arg.a)
        def under(self, a):
            return a

        @emits("over_class", a=arg.a)
        @noting
        @classmethod
        def over_class(cls, a):
            return a

    assert C().over(1) == ("C", 1)
    assert C().under(2) == ("C", 2)
    assert C.over_class(3) == ("type", 3)
    assert [e.attributes["a"] for e in recorded] == [1, 2, 3]


def test_dataclass_methods_and_abstract_methods():
    @dataclasses.dataclass
    class Order(abc.ABC):
        n: int

        @emits("placed")
        @abc.abstractmethod
        def place(self):
            """Place it."""

    with pytest.raises(TypeError, match="abstract"):
        Order(1)


# -- switched off ---------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["1", "true", "yes"])
def test_disabled(monkeypatch, value):
    def f(a):
        return a

    monkeypatch.setenv("SIDELIGHT_DISABLED", value)
    assert emits("called", a=arg.a)(f) is f
    static = staticmethod(f)
    assert emits("called")(static) is static


@pytest.mark.parametrize("value", ["", "0", "false", "No"])
def test_not_disabled(monkeypatch, value):
    monkeypatch.setenv("SIDELIGHT_DISABLED", value)
    assert emits("called")(f := lambda: 1) is not f


def test_points_are_registered():
    @emits("second")
    @emits("first", mode="awaited")
    async def registered():
        return None

    point = POINTS.get(f"{__name__}:test_points_are_registered.<locals>.registered")
    assert [d.success for d in point.declarations] == ["first", "second"]
    assert (point.kind, point.file, point.span) == ("coroutine", __file__, True)
    assert point.line == registered.__wrapped__.__code__.co_firstlineno
