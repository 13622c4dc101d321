"""Each special method of a value, its class or an exception may fail: only that field is lost.

The table is every special method, each way to fail, and each place that captures a value; the
short form has each pair of method, way and kind of value.
"""

import asyncio

import pytest
from opentelemetry import trace
from tests.support.pairs import each_pair

from sidelight import arg, bind, choose, emit, emits, error, result
from sidelight.testing import capture


class Bites(BaseException):
    """An error that `except Exception` does not catch."""


def raises(kind):
    def method(self, *args, **kwargs):
        raise kind

    return method


def recurses(self, *args, **kwargs):
    return recurses(self, *args, **kwargs)


WAYS = {
    "raises ValueError": raises(ValueError),
    "raises Bites": raises(Bites),
    "raises KeyboardInterrupt": raises(KeyboardInterrupt),
    "raises CancelledError": raises(asyncio.CancelledError),
    "raises AttributeError": raises(AttributeError),
    "returns an object": lambda self, *args, **kwargs: object(),
    "recurses": recurses,
}
METHODS = """
    repr str bytes format hash bool eq ne lt le gt ge len length_hint iter next reversed contains
    getitem missing getattribute getattr dir sizeof call enter exit index int float complex round
    trunc floor ceil neg pos abs invert add radd sub mul truediv and or fspath reduce reduce_ex
    getstate copy deepcopy get set await aiter anext buffer instancecheck subclasscheck
"""
ATTRIBUTES = "class dict doc module name mro traceback cause"
PROPERTIES = tuple(f"__{name}__" for name in ATTRIBUTES.split())
NAMES = (*(f"__{name}__" for name in METHODS.split()), *PROPERTIES)


def members(name, way):
    return {name: property(WAYS[way]) if name in PROPERTIES else WAYS[way]}


def a_value(name, way):
    return type("Value", (), members(name, way))()


def of_a_class(name, way):
    """A value whose class has a metaclass that fails."""
    return object.__new__(type("Meta", (type,), members(name, way))("Value", (), {}))


def a_class(name, way):
    return type("Meta", (type,), members(name, way))("Value", (), {})


def a_text(name, way):
    return type("Value", (str,), members(name, way))("text")


def a_mapping(name, way):
    return {"key": a_value(name, way), "items": [a_value(name, way)]}


def an_exception(name, way):
    return Exception.__new__(type("Value", (Exception,), members(name, way)))


def an_exception_of_a_class(name, way):
    kind = type("Meta", (type,), members(name, way))("Value", (Exception,), {})
    return Exception.__new__(kind)


VALUES = {
    each.__name__: each
    for each in (
        *(a_value, of_a_class, a_class, a_text, a_mapping),
        *(an_exception, an_exception_of_a_class),
    )
}
CASES = [(name, way) for name in NAMES for way in WAYS]


@pytest.fixture(params=VALUES)
def made(request, full):
    """Yield values of a kind with their method and its way to fail."""
    every = each_pair(VALUES, NAMES, [*WAYS], full=full)
    return (
        (name, way, VALUES[kind](name, way)) for kind, name, way in every if kind == request.param
    )


def test_a_field_of_a_call(made):
    fields = {"told": arg.v, "call": lambda v: v, "path": arg.v.name, "kept": 1}
    plain = emits("ended", start="began", back=result, artifact_id=arg.v, **fields)(lambda v: v)
    chosen = emits(choose(arg.v, {"a": "a"}, otherwise="other"), kept=1)(lambda v: v)
    for name, way, value in made:
        with capture(strict=False) as recorded:
            assert plain(value) is value, (name, way)
            assert chosen(value) is value, (name, way)
        assert [each.type for each in recorded] == ["began", "ended", "other"], (name, way)
        assert all(each.attributes["kept"] == 1 for each in recorded), (name, way)
        assert {*recorded.losses} <= {
            *("field path not captured", "field choose not captured"),
            *("field told not captured", "field artifact_id not captured"),
        }, (name, way, recorded.losses)


def test_values_of_emit_and_bind_and_a_span(made):
    @emits("call")
    def call(value):
        span = trace.get_current_span()
        span.set_attribute("told", value)
        span.set_attributes({"told_too": value})
        span.add_event("event", {"told": value})
        return value

    for name, way, value in made:
        with capture(strict=False) as recorded:
            assert str(emit("direct", told=value, artifact_id=value, kept=1)), (name, way)
            with bind(artifact_id=value, bound=value):
                assert call(value) is value, (name, way)
        assert [each.type for each in recorded] == ["direct", "call"], (name, way)
        assert recorded.one("direct").attributes["kept"] == 1
        assert recorded.losses == {}, (name, way, recorded.losses)


@pytest.mark.parametrize("make", [an_exception, an_exception_of_a_class])
def test_the_exception_of_a_function(make):
    @emits(failure="failed", told=error, code=error.code, kept=1)
    def function(problem):
        raise problem

    @emits(failure="failed", kept=1)
    def generator(problem):
        try:
            yield
        finally:
            pass

    @emits(failure="failed", kept=1)
    async def coroutine(problem):
        raise problem

    bare = function.__wrapped__

    @emits("ended", v=lambda problem: bare(problem))
    def with_a_field(problem):
        return problem

    def thrown_in(problem):
        resumed = generator(problem)
        next(resumed)
        resumed.throw(problem)

    ways = {
        "function": function,
        "generator": thrown_in,
        "coroutine": lambda problem: coroutine(problem).send(None),
    }
    for name, way in CASES:
        if name == "__subclasscheck__" and make is an_exception_of_a_class:
            continue  # Python itself then raises another exception
        with capture(strict=False) as recorded:
            for kind, call in ways.items():
                problem = make(name, way)
                assert raised_by(call, problem) is problem, (name, way, kind)
            assert with_a_field(problem) is problem, (name, way)
        assert recorded.types == ["failed", "failed", "failed", "ended"], (name, way)
        for event in recorded.of("failed"):
            assert event.attributes["kept"] == 1
            assert event.error_type.endswith("Value")
        assert recorded.losses.keys() - {"field code not captured"} == {"field v not captured"}


def raised_by(call, problem):
    try:
        call(problem)
    except BaseException as error:
        return error
    return None
