"""Points written as a map: the map means the same, and names what it cannot express."""

import enum
import functools
import tomllib
from pathlib import Path

import pytest

from sidelight import arg, choose, emits, error, result
from sidelight.maps.declarations import Opaque
from sidelight.maps.listing import listed_point
from sidelight.maps.reader import parse_map
from sidelight.maps.writer import map_text, omissions
from sidelight.points.registry import POINTS


class Status(enum.StrEnum):
    DONE = "done"


class Colour(enum.Enum):
    RED = "red"


def size(order):
    return len(order)


class Scales:
    @staticmethod
    def weigh(order):
        return len(order)


def send(order, status, *rest, session=None, **more):
    return order


def listed(*arguments, **options):
    """This module's `send`, decorated and listed."""
    path = f"{__name__}:send"
    before = POINTS.all(path)
    try:
        emits(*arguments, **options)(send)
        return listed_point(POINTS.get(path))
    finally:
        POINTS.restore(path, before)


def mapped(point):
    """The points of the map that is written for a point."""
    return parse_map(map_text([point]), Path("sidelight.toml")).points


NUMBERS = {"a": 3, "b": -0.5, "c": True, "f": 1e300, "g": float("inf")}
TEXTS = {"d": "arg.x", "e": 'a "b"\n\\c\x7f\x1b', "a.b c": "ä", "with-hyphen": "x"}
VALUES = {"n": size, "weight": Scales.weigh, "first": arg[0], "last": arg.rest[-1].x}


@pytest.mark.parametrize(
    ("type_", "options"),
    [
        ("sent", {}),
        ("sent", {"start": "a", "failure": "b", "mode": "awaited", "span": False}),
        ("sent", {"transaction": arg.session, "strict": True}),
        ("sent", {"after_commit": arg.more["session"]}),
        ("sent", {"artifact_id": result.id, "organization_id": "north"}),
        (choose(arg.status, {"done": "a", "in progress": "b"}, otherwise="c"), {}),
        (choose(arg.status, {Status.DONE: "a"}), {"failure": choose(error.code, {"x": "y"})}),
        (choose(size, {f"case {n}": f"quite_a_long_type_{n}" for n in range(9)}), {}),
        ("sent", VALUES),
        ("sent", NUMBERS),
        ("sent", TEXTS),
        ("sent", {"key": result["a.b"]["it's"]}),
        ("sent", {f"attribute_number_{n}": arg.order for n in range(9)}),
    ],
    ids=range(13),
)
def test_a_map_states_the_same(type_, options):
    point = listed(type_, **options)
    (read,) = mapped(point)
    assert read.function == point.path
    (declared,) = point.declarations
    assert "function" not in declared.facts()
    assert read.facts() == declared.facts()
    assert read.emitted == declared.emitted
    assert list(omissions([point])) == []
    assert max(map(len, map_text([point]).splitlines())) <= 100


def test_layout():
    point = listed(
        choose(arg.status, {"done": "order_done"}, otherwise="changed"),
        artifact_id=result.id,
        size=arg.order.size,
        n=size,
        kind="express",
    )
    assert (
        map_text([point])
        == f"""\
[[point]]
function = "{__name__}:send"
success = {{ choose = "arg.status", cases = {{ done = "order_done" }}, otherwise = "changed" }}
mode = "scheduled"
artifact_id = "result.id"
attributes.size = "arg.order.size"
attributes.n = {{ call = "{__name__}:size" }}
attributes.kind = {{ value = "express" }}
"""
    )


@pytest.mark.parametrize(
    ("value", "source", "reason"),
    [
        (lambda order: len(order), "<lambda>", "give the function a name"),
        (functools.partial(size), "partial", "give the function a name"),
        ([1, 2], "[1, 2]", "a text, a number, true or false"),
        (Colour.RED, "<Colour.RED: 'red'>", "a text, a number"),
        (Path("a"), "PosixPath('a')", "a text, a number"),
        (None, "None", "TOML has no None"),
        ("\ud800", "'\\ud800'", "a text, a number"),
        (arg.order[1, 2], "arg.order[(1, 2)]", "keys that are texts or whole numbers"),
        (getattr(arg.order, "from"), "arg.order.from", "a map has identifiers"),
        (getattr(arg.order, "a()"), "arg.order.a()", "a map has identifiers"),
    ],
    ids=[
        "lambda",
        "partial",
        "list",
        "enum",
        "path",
        "none",
        "lone surrogate",
        "key",
        "keyword",
        "call",
    ],
)
def test_values_that_a_map_cannot_express(value, source, reason):
    point = listed("sent", artifact_id=arg.order, n=value)
    text = map_text([point])
    assert f"# attributes.n = {source}  # not in the map: " in text
    tomllib.loads(text)
    (read,) = mapped(point)
    assert read.attributes == {}
    (omitted,) = omissions([point])
    assert omitted.startswith(f"{point.path}: attributes.n = {source}: ")
    assert reason in omitted


@pytest.mark.parametrize("keys", [(1, 2), (Colour.RED,), (None, "done")], ids=repr)
def test_a_choice_by_other_values_than_texts(keys):
    point = listed(choose(arg.status, dict.fromkeys(keys, "a"), otherwise="b"))
    (declared,) = point.declarations
    assert isinstance(declared.success, Opaque)
    assert declared.types("success") == ("a", "b")
    assert mapped(point) == ()
    assert "a map chooses by texts" in next(omissions([point]))


def test_a_point_whose_transaction_is_opaque_is_left_out():
    """Without the transaction the map would emit events of work that was rolled back."""
    point = listed("sent", transaction=lambda session: session)
    assert "# not in the map" in map_text([point])
    assert mapped(point) == ()
    assert next(omissions([point])).endswith("so the point is not in the map")


def test_a_function_without_a_path():
    @emits("sent")
    def inner(order):
        return order

    point = listed_point(POINTS.get(f"{__name__}:{inner.__qualname__}"))
    assert mapped(point) == ()
    (omitted,) = omissions([point])
    assert "<locals>.inner is not in the map: it is made inside of a function" in omitted
