"""Points written down: a map of them means the same, and what it cannot say is named."""

import enum
import functools
import tomllib
from pathlib import Path

import pytest

from sidelight import arg, choose, emits, error, result
from sidelight.maps.described import Unsaid, of_code, of_map
from sidelight.maps.read import parse_map
from sidelight.maps.write import losses, written
from sidelight.points.expressions import Expression
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


def described(*arguments, **options):
    """A point of this module's `send`, as it is written down."""
    path = f"{__name__}:send"
    before = POINTS.get(path)
    try:
        emits(*arguments, **options)(send)
        return of_code(POINTS.get(path))
    finally:
        POINTS.restore(path, before)


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["sent"], {}),
        (["sent"], {"start": "a", "failure": "b", "mode": "awaited", "span": False}),
        (["sent"], {"transaction": arg.session, "strict": True}),
        (["sent"], {"after_commit": arg.more["session"]}),
        (["sent"], {"artifact_id": result.id, "organization_id": "north"}),
        ([choose(arg.status, {"done": "a", "in progress": "b"}, otherwise="c")], {}),
        ([choose(arg.status, {Status.DONE: "a"})], {"failure": choose(error.code, {"x": "y"})}),
        ([choose(size, {f"case {n}": f"quite_a_long_type_{n}" for n in range(9)})], {}),
        (["sent"], {"n": size, "weight": Scales.weigh, "first": arg[0], "last": arg.rest[-1].x}),
        (
            ["sent"],
            {"a": 3, "b": -0.5, "c": True, "d": "arg.x", "e": 'a "b"\n\\c\x7f\x1b', "f": 1e300},
        ),
        (
            ["sent"],
            {"g": float("inf"), "key": result["a.b"]["it's"], "with space".replace(" ", "-"): 1},
        ),
        (["sent"], {f"attribute_number_{n}": arg.order for n in range(9)}),
        (["sent"], {"a.b c": "ä"}),
    ],
    ids=range(13),
)
def test_a_map_says_the_same(arguments, options):
    point = described(*arguments, **options)
    text = written([point])
    (mapped,) = parse_map(text, Path("sidelight.toml")).points
    assert mapped.function == point.path
    (declaration,) = point.declarations
    assert of_map(mapped).facts() == declaration.facts()
    assert of_map(mapped).emitted == declaration.emitted
    assert list(losses([point])) == []
    assert max(map(len, text.splitlines())) <= 100


def test_how_it_looks():
    point = described(
        choose(arg.status, {"done": "order_done"}, otherwise="changed"),
        artifact_id=result.id,
        size=arg.order.size,
        n=size,
        kind="express",
    )
    assert (
        written([point])
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
    ("name", "value", "source", "why"),
    [
        ("n", lambda order: len(order), "<lambda>", "give it one"),
        ("n", functools.partial(size), "partial", "give it one"),
        ("n", [1, 2], "[1, 2]", "a text, a number, true or false"),
        ("n", Colour.RED, "<Colour.RED: 'red'>", "a text, a number"),
        ("n", Path("a"), "PosixPath('a')", "a text, a number"),
        ("n", None, "None", "TOML has no None"),
        ("n", "\ud800", "'\\ud800'", "a text, a number"),
        (
            "n",
            Expression("arg", (("attribute", "order"), ("item", (1, 2)))),
            "arg.order[(1, 2)]",
            "keys are",
        ),
    ],
    ids=["lambda", "partial", "list", "enum", "path", "none", "half a character", "key"],
)
def test_what_a_map_cannot_say(name, value, source, why):
    point = described("sent", artifact_id=arg.order, **{name: value})
    text = written([point])
    assert f"# attributes.n = {source}  # not in the map: " in text
    tomllib.loads(text)
    (mapped,) = parse_map(text, Path("sidelight.toml")).points
    assert mapped.attributes == {}
    (said,) = losses([point])
    assert said.startswith(f"{point.path}: attributes.n = {source}: ")
    assert why in said


@pytest.mark.parametrize("keys", [(1, 2), (Colour.RED,), (None, "done")], ids=repr)
def test_a_choice_by_what_is_no_text(keys):
    point = described(choose(arg.status, dict.fromkeys(keys, "a"), otherwise="b"))
    (declaration,) = point.declarations
    assert isinstance(declaration.success, Unsaid)
    assert declaration.types("success") == ("a", "b")
    assert parse_map(written([point]), Path("sidelight.toml")).points == ()
    assert "a map chooses by texts" in next(losses([point]))


def test_a_point_whose_transaction_cannot_be_said_is_left_out():
    """Without it the map would emit what was rolled back."""
    point = described("sent", transaction=lambda session: session)
    text = written([point])
    assert "# not in the map" in text
    assert parse_map(text, Path("sidelight.toml")).points == ()
    assert next(losses([point])).endswith("so the point is not in the map")


def test_a_function_that_has_no_name():
    @emits("sent")
    def inner(order):
        return order

    point = of_code(POINTS.get(f"{__name__}:{inner.__qualname__}"))
    text = written([point])
    assert parse_map(text, Path("sidelight.toml")).points == ()
    assert "<locals>.inner is not in the map: it is made inside of a function" in next(
        losses([point])
    )
