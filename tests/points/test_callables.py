"""Every kind of callable can be decorated, keeps its contract, and stays what it was."""

import abc
import asyncio
import contextlib
import dataclasses
import functools
import inspect
import itertools
import keyword
import re
import types
import unittest.mock

import pytest
from tests.support.callable_kinds import BASIC, KINDS, OF_CLASSES, built, methods, passing

from sidelight import arg, emits, result
from sidelight.points import POINTS
from sidelight.points.templates import RESERVED
from sidelight.testing import capture


@pytest.fixture
def recorded():
    with capture() as recorded:
        yield recorded


def values(recorded):
    """The attributes of the only event, without their names."""
    return list(recorded.one().attributes.values())


# -- the contract of every kind -------------------------------------------------------------------

BY_POSITION = ("C function", "mock", "async mock")


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_of_every_kind(kind, recorded):
    field = arg[0] if kind in BY_POSITION else arg.n
    mode = "awaited" if len(kind) % 2 else "scheduled"
    _, call = built(kind, emits("done", start="begun", failure="bad", mode=mode, n=field))
    _, plain = built(kind, lambda function: function)
    assert call(1) == plain(1)
    assert recorded.types == ["begun", "done"]
    recorded.clear()
    with pytest.raises(ValueError) as caught:
        call(-1)
    with pytest.raises(ValueError) as expected:
        plain(-1)
    assert str(caught.value) == str(expected.value)
    assert recorded.types == ["begun", "bad"]
    assert [event.attributes for event in recorded] == [{"n": -1}, {"n": -1}]
    assert recorded.one("bad").error_type == "ValueError"
    assert len(recorded.spans) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_inspect_sees_every_kind_as_it_was(kind):
    made, _ = built(kind, emits("x"))
    plain, _ = built(kind, lambda function: function)
    for ask in (
        *(inspect.isfunction, inspect.ismethod, inspect.isbuiltin, callable),
        *(inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction),
        *(inspect.signature, lambda f: f.__class__),
        *(lambda f: getattr(f, "__name__", ""), lambda f: getattr(f, "__qualname__", "")),
    ):
        assert without_address(ask(made)) == without_address(ask(plain)), ask


def without_address(told):
    return re.sub(r"(at|id=).*", "", repr(told))


PHASES = [
    phases
    for count in (1, 2, 3)
    for phases in itertools.combinations(("start", "success", "failure"), count)
]


@pytest.mark.parametrize("kind", BASIC)
@pytest.mark.parametrize("span", [True, False], ids=["span", "no span"])
@pytest.mark.parametrize("mode", ["scheduled", "awaited"])
@pytest.mark.parametrize("phases", PHASES, ids="+".join)
def test_every_basic_kind_under_every_declaration(kind, span, mode, phases, recorded):
    named = {phase: phase for phase in phases}
    type_ = named.pop("success", None)
    if type_ is not None and kind != "async generator":
        named["artifact_id"] = result if phases == ("success",) else arg.n
    _, call = built(kind, emits(type_, mode=mode, span=span, **named))
    call(1)
    assert recorded.types == [phase for phase in phases if phase != "failure"]
    assert bool(recorded.spans) == span
    recorded.clear()
    with pytest.raises(ValueError, match="-1"):
        call(-1)
    assert recorded.types == [phase for phase in phases if phase != "success"]


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
    _value _item _now _cost _details _problem _head _emit _clock _bits _plain _bound _lost _place
    _artifact_id _attribute_0 _constant_1 _head_30 _MISSING _SCALARS _uncaptured _error_details
    args kwargs self cls type len id str range result error arg isinstance print Exception
    RecursionError arg_a match case _ __doc__ __name__ __builtins__ f
""".split()  # noqa: SIM905  # it reads better
FORMS = ["{0}", "*, {0}", "{0}, /", "*{0}", "**{0}"]
KEYWORDS = [("def", "return"), ("async def", "return"), ("def", "yield")]


@pytest.mark.parametrize("name", sorted({*NAMES, *RESERVED} - {*keyword.kwlist}))
def test_parameters_of_any_name(name):
    for number, (define, give) in enumerate(KEYWORDS, sum(map(ord, name))):
        form, scope = FORMS[number % len(FORMS)], {}
        exec(f"{define} f({form.format(name)}): {give} {name}", scope)
        value = {"**{0}": {"k": "value"}, "*{0}": ("value",)}.get(form, "value")
        keywords = {"**{0}": {"k": "value"}, "*, {0}": {name: "value"}}.get(form, {})
        with capture() as recorded:
            got = emits("called", a=arg[name])(scope["f"])(
                *(() if keywords else ("value",)), **keywords
            )
            if give == "yield":
                (got,) = got
            assert (asyncio.run(got) if define == "async def" else got) == value
        assert values(recorded) == [list(value) if form == "*{0}" else value]


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


def test_a_method_is_a_point_of_its_class(recorded):
    class Base:
        def greet(self, name):
            return f"base {name}"

    class Greeter(Base):
        title = "Dr"

        @emits("greeted", name=arg.name, who=arg.self.title)
        def greet(self, name):
            return f"{self.title} {super().greet(name)}"

    assert Greeter().greet("Ada") == "Dr base Ada"
    assert Greeter.greet(Greeter(), name="Bob") == "Dr base Bob"
    assert [list(e.attributes.values()) for e in recorded] == [["Ada", "Dr"], ["Bob", "Dr"]]
    assert recorded.events[0].point.endswith("Greeter.greet")


@pytest.mark.parametrize("name", [*OF_CLASSES, "partial"])
def test_arguments_of_methods(name, recorded):
    """By position and by keyword, through an instance and a class."""
    cls, subclass = methods(emits("called", n=arg.n))
    for through in (cls(), subclass(), *((cls, subclass) if name in OF_CLASSES else ())):
        assert getattr(through, name)(1) == 1
        assert getattr(through, name)(n=2) == 2
        assert [event.attributes["n"] for event in recorded] == [1, 2]
        recorded.clear()
    assert type(vars(cls)["below_static"]) is staticmethod


def test_properties_over_the_decorator(recorded):
    class Box:
        title = "Dr"

        @property
        @emits("read", who=arg.self.title)
        def size(self):
            return 3

        @functools.cached_property
        @emits("read_once")
        def weight(self):
            return 5

    box = Box()
    assert (box.size, box.weight, box.weight) == (3, 5, 5)
    assert recorded.types == ["read", "read_once"]


def test_bound_methods(recorded):
    cls, _ = methods(lambda function: function)
    method = emits("bound", n=arg.n, first=arg[0])(cls().method)
    assert (method(1), method(n=1)) == (1, 1)
    assert [e.attributes for e in recorded] == [{"n": 1, "first": 1}] * 2
    assert inspect.ismethod(method)


def test_what_does_not_bind_stays_unbound(recorded):
    class Box:
        c_function = emits("c")(len)
        shared = emits("shared", n=arg[0])(unittest.mock.Mock(return_value=6))

    assert Box().shared(2) == 6
    assert Box().c_function([1]) == 1
    assert recorded.types == ["shared", "c"]


# -- what is no function --------------------------------------------------------------------------


def test_attributes_of_what_is_wrapped(recorded):
    power = emits("powered", base=arg[0], exponent=arg.exponent, modulus=arg.modulus)(
        functools.partial(lambda base, exponent, modulus: pow(base, exponent, modulus), modulus=7)
    )
    assert power(3, 2) == power(3, exponent=2) == 2
    assert [list(e.attributes.values()) for e in recorded] == [[3, 2, 7]] * 2
    assert isinstance(power, functools.partial)
    assert power.keywords == {"modulus": 7}
    cached = emits("squared")(functools.lru_cache(lambda n: n * n))
    assert (cached(3), cached(3), cached.cache_info().hits) == (9, 9, 1)
    cls, _ = methods(lambda function: function)
    assert isinstance(emits("x")(cls()), cls)
    assert str(inspect.signature(cached)) == "(n)"


def test_c_functions(recorded):
    called = emits("called", a=arg[0])
    assert [called(len)([1, 2]), called(str.upper)("a"), called(", ".join)(["a", "b"])] == [
        *(2, "A", "a, b")
    ]
    assert emits("called", a=arg[1])(max)(1, 2) == 2
    assert [e.attributes["a"] for e in recorded] == [[1, 2], "a", ["a", "b"], 2]


# -- other people's decorators --------------------------------------------------------------------


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


@pytest.mark.parametrize("above", [True, False])
def test_context_managers(recorded, above):
    def manage(a):
        """Manage."""
        yield a

    decorate = emits("left", start="entered", failure="failed", a=arg.a)
    make = contextlib.contextmanager
    manager = decorate(make(manage)) if above else make(decorate(manage))
    assert (manager.__name__, manager.__doc__) == ("manage", "Manage.")
    assert str(inspect.signature(manager)) == "(a)"
    with manager(2) as entered:
        assert (entered, recorded.types) == (2, ["entered"])
    with pytest.raises(ValueError, match="x"), manager(3):
        raise ValueError("x")
    assert recorded.types == ["entered", "left", "entered", "failed"]
    with contextlib.suppress(ValueError), contextlib.ExitStack() as stack:
        stack.enter_context(manager(4))
    assert [event.attributes["a"] for event in recorded] == [2, 2, 3, 3, 4, 4]


@pytest.mark.parametrize("above", [True, False])
async def test_asynchronous_context_managers(recorded, above):
    async def manage(a):
        yield a

    decorate, make = emits("left", failure="failed", a=arg.a), contextlib.asynccontextmanager
    manager = decorate(make(manage)) if above else make(decorate(manage))
    async with manager(2) as entered:
        assert (entered, recorded.types) == (2, [])
    with pytest.raises(ValueError, match="x"):
        async with manager(3):
            raise ValueError("x")
    assert recorded.types == ["left", "failed"]


def test_decorators_above_a_context_manager_make_one_wrapper(recorded):
    class Shop:
        @emits("second", span=False)
        @emits("first")
        @contextlib.contextmanager
        def open(self):
            yield self

    shop = Shop()
    with shop.open() as entered:
        assert entered is shop
    assert recorded.types == ["first", "second"]
    assert len(recorded.spans) == 1

    @Shop().open()
    def decorated():
        return recorded.types[2:]

    assert decorated() == []


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


async def test_a_task_that_is_cancelled(recorded):
    async def endless():
        await asyncio.sleep(30)

    task = emits("done", failure="failed")(
        functools.wraps(endless)(lambda: asyncio.ensure_future(endless()))
    )()
    assert isinstance(task, asyncio.Task)
    await asyncio.sleep(0)
    assert recorded.types == []
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert recorded.types == ["failed"]


def test_a_generator_under_a_plain_wrapper_keeps_its_protocol(recorded):
    @emits("sync", a=arg.a)
    @passing
    def sync(a):
        yield a
        return "end"

    def delegating():
        assert (yield from sync(1)) == "end"

    assert list(delegating()) == [1]
    half = sync(3)
    assert next(half) == 3
    half.close()
    assert [span.outcome for span in recorded.spans] == ["succeeded", "closed"]


async def test_a_dispatch_that_is_asynchronous_for_some_types(recorded):
    @emits("handled")
    @functools.singledispatch
    async def handle(a):
        await asyncio.sleep(0)
        return "any"

    handle.register(int, lambda a: "at once")
    assert await handle("x") == "any"
    assert handle(1) == "at once"
    assert recorded.types == ["handled", "handled"]


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


def test_a_factory_that_names_new_events_for_ever_is_registered_within_bounds():
    for n in range(200):
        emits(f"kind_{n}")(lambda: None)
    path = f"{__name__}:test_a_factory_that_names_new_events_for_ever_is_registered_within_bounds"
    points = POINTS.all(f"{path}.<locals>.<lambda>")
    assert [point.declarations[0].success for point in points] == [
        f"kind_{n}" for n in range(136, 200)
    ]


def test_points_are_registered():
    @emits("second")
    @emits("first", mode="awaited")
    async def registered():
        return None

    point = POINTS.get(f"{__name__}:test_points_are_registered.<locals>.registered")
    assert [d.success for d in point.declarations] == ["first", "second"]
    assert POINTS.all(point.path) == (point,)
    assert (point.kind, point.file, point.span) == ("coroutine", __file__, True)
    assert point.line == registered.__wrapped__.__code__.co_firstlineno
