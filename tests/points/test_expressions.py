"""What `arg`, `result` and `error` capture, and what they refuse to be."""

import copy
import enum
import functools
import inspect
import pickle
import uuid
from types import SimpleNamespace as Space

import pytest
import sqlalchemy

from sidelight import arg, choose, emits, error, result
from sidelight.exceptions import ExpressionError
from sidelight.points import Expression
from sidelight.testing import capture


def captured(value, *args, of=None, **kwargs):
    """What the attribute ``value`` is when a function is called with these arguments."""

    def identity(a=None, b=None, /, c=None, *rest, d=None, **options):
        return of

    with capture() as recorded:
        emits("happened", value=value)(identity)(*args, **kwargs)
    return recorded.one("happened").attributes.get("value", "left out")


# -- paths ----------------------------------------------------------------------------------------

SPEAKER = Space(name="Ada", tags=["x", "y"], more={"mail": {"home": "a@b"}, 3: "three"})


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        (arg.a.name, "Ada"),
        (arg.a.tags[0], "x"),
        (arg.a.tags[-1], "y"),
        (arg.a.tags[5], None),
        (arg.a.more["mail"]["home"], "a@b"),
        (arg.a.more[3], "three"),
        (arg.a.more["none"]["home"], None),
        (arg.a.nothing.at.all[0]["x"], None),
        (arg.a.name.nothing, None),
        (arg.a[0], None),
        (arg[0].name, "Ada"),
        (arg.a.tags, ["x", "y"]),
        (arg.a.__class__.__name__, "SimpleNamespace"),
        (arg.a.more[(1, 2)], None),
        (arg.a.more[None], None),
        (arg.a.tags[0:1], ["x"]),
    ],
    ids=repr,
)
def test_a_path_is_followed_as_far_as_it_goes(expression, value):
    assert captured(expression, SPEAKER) == value


def test_every_kind_of_parameter_can_be_named():
    def value(expression):
        return captured(expression, 1, 2, 3, 4, 5, d=6, e=7)

    assert [value(e) for e in (arg.a, arg.b, arg.c, arg.d)] == [1, 2, 3, 6]
    assert value(arg.rest) == [4, 5]
    assert value(arg.rest[1]) == 5
    assert value(arg.options["e"]) == 7
    assert value(arg.options) == {"e": 7}
    assert [value(arg[i]) for i in range(5)] == [1, 2, 3, 4, 5]
    assert value(arg[9]) is None


def test_an_argument_left_out_is_its_default():
    @emits("happened", mode_=arg.mode, size=arg.size)
    def f(mode="fast", *, size=3):
        return None

    with capture() as recorded:
        f()
    assert recorded.one().attributes == {"mode_": "fast", "size": 3}


def test_the_result_by_attribute_and_item():
    assert captured(result.id, of=Space(id="a1")) == "a1"
    assert captured(result["id"], of={"id": "a1"}) == "a1"
    assert captured(result[0][1], of=[(1, 2)]) == 2
    assert captured(result, of="whole") == "whole"
    assert captured(result.id, of=None) is None


def test_the_error_by_attribute():
    class Refused(Exception):
        code = 403

    @emits(failure="refused", code=error.code, kind=error.__class__.__name__, why=error.args[0])
    def f():
        raise Refused("too late") from KeyError("k")

    with capture() as recorded, pytest.raises(Refused):
        f()
    assert recorded.one("refused").attributes == {
        "code": 403,
        "kind": "Refused",
        "why": "too late",
    }


def test_attributes_of_any_name_can_be_recorded():
    names = (
        "items",
        "keys",
        "root",
        "_root",
        "_Expression__root",
        "_Expression__steps",
        "steps",
        "refuse",
        "types",
        "by",
        "name",
        "format",
    )
    thing = Space(**{name: f"the {name}" for name in names})
    for name in names:
        assert captured(getattr(arg.a, name), thing) == f"the {name}"


class Key(str):
    """A text whose ``repr`` is code."""

    __slots__ = ()

    def __repr__(self):
        return "exit()"


@pytest.mark.parametrize(
    "name",
    [
        "from",
        "None",
        "not a name",
        "x.y",
        "x] + [1",
        "'",
        "\N{LATIN SMALL LIGATURE FI}",
        Key("key"),
    ],
    ids=str,
)
def test_names_and_keys_are_never_read_as_code(name):
    thing = Space(**{name: "attribute"})
    assert captured(getattr(arg.a, name), thing) == "attribute"
    assert captured(arg.a[name], {name: "item"}) == "item"
    assert captured(arg.options[name], **{name: "option"}) == "option"
    assert captured(getattr(arg.a, name).more, thing) is None


def test_numbers_of_any_size_are_keys():
    for key in (0, -1, True, 1 << 70, 10**5000):
        assert captured(arg.a[key], {key: "item"}) == "item"


def test_an_expression_needs_a_known_root():
    with pytest.raises(ValueError, match="use arg, result, error"):
        Expression("arg, exit()")


def test_parameters_called_as_the_roots_are():
    @emits("happened", a=arg.result, b=arg.error, c=result.id, d=lambda result: result * 2)
    def f(result, error):
        return Space(id="returned")

    with capture() as recorded:
        f("argument", "mistake")
    assert recorded.one().attributes == {
        "a": "argument",
        "b": "mistake",
        "c": "returned",
        "d": "argumentargument",
    }


def test_expressions_show_as_they_were_written():
    assert repr(arg.a.b[0]["c"]) == "arg.a.b[0]['c']"
    assert repr(result) == "result"


def test_what_changes_during_the_call_is_seen_after_it():
    @emits("ended", start="began", n=arg.log.n)
    def f(log):
        log.n += 1

    with capture() as recorded:
        f(Space(n=1))
    assert [event.attributes["n"] for event in recorded] == [1, 2]


# -- what cannot be recorded ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "write",
    [
        lambda: arg.status == "done",
        lambda: arg.status != "done",
        lambda: arg.n > 3,
        lambda: arg.n + 1,
        lambda: 1 + arg.n,
        lambda: -arg.n,
        lambda: f"{arg.name}",
        lambda: str(arg.name),
        lambda: "{}".format(arg.name),  # noqa: UP032
        lambda: result.id or "none",
        lambda: not result.id,
        lambda: result.strip(),
        lambda: list(arg.items),
        lambda: len(arg.items),
        lambda: "x" in arg.items,
        lambda: setattr(arg.x, "y", 1),
        lambda: arg.x.__setitem__(0, 1),
        lambda: int(arg.n),
    ],
)
def test_what_would_be_a_constant_by_mistake_is_refused(write):
    with pytest.raises(
        (ExpressionError, AttributeError), match=r"^(arg|result)\..*give a callable"
    ):
        write()


@pytest.mark.parametrize(
    ("expression", "parameter"),
    [
        (arg.x, "x"),
        (arg.audio.seconds, "audio"),
        (arg["audio"], "audio"),
        (arg[0].seconds, "NAME"),
        (arg["a b"], "NAME"),
        (arg["class"], "NAME"),
        (arg, "NAME"),
        (result, "result"),
        (result.id, "result"),
        (error.code, "error"),
    ],
)
def test_a_refusal_shows_the_callable_with_the_parameter_that_it_needs(expression, parameter):
    with pytest.raises(ExpressionError, match=rf"give a callable: lambda {parameter}: …"):
        str(expression)


def test_other_protocols_see_nothing_in_an_expression():
    assert not hasattr(arg.x, "__wrapped__")
    assert inspect.unwrap(arg.x) is not None
    assert repr(copy.deepcopy(arg.x[0].y)) == "arg.x[0].y"
    assert repr(pickle.loads(pickle.dumps(arg.x[0].y))) == "arg.x[0].y"
    assert len({arg.x, arg.x}) == 2


# -- callables and constants ----------------------------------------------------------------------


def test_callables_are_given_what_their_parameters_name():
    @emits(
        "summed",
        total=lambda a, b: a + b,
        told=lambda result, b: f"{result} of {b}",
        only=lambda *, a: a,
        still=lambda a, factor=10: a * factor,
        nothing=lambda: 7,
    )
    def f(a, b=2):
        return "ok"

    with capture() as recorded:
        f(1)
    assert recorded.one().attributes == {
        "total": 3,
        "told": "ok of 2",
        "only": 1,
        "still": 10,
        "nothing": 7,
    }


def test_a_callable_can_ask_for_the_error():
    @emits(failure="failed", told=lambda error, a: f"{error} for {a}")
    def f(a):
        raise ValueError("no")

    with capture() as recorded, pytest.raises(ValueError, match="no"):
        f(1)
    assert recorded.one("failed").attributes == {"told": "no for 1"}


def test_callables_of_other_kinds():
    class Doubler:
        def __call__(self, a):
            return a * 2

        def method(self, a):
            return a * 3

    assert captured(Doubler(), 1) == 2
    assert captured(Doubler().method, 1) == 3
    assert captured(functools.partial(lambda factor, a: a * factor, 4), 1) == 4


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("constant", "plain"),
    [
        (1, 1),
        ("text", "text"),
        (2.5, 2.5),
        (True, True),
        (["a", 1], ["a", 1]),
        ({"a": {"b": 1}}, {"a": {"b": 1}}),
        (Colour.RED, "red"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (None, "left out"),
    ],
)
def test_constants(constant, plain):
    assert captured(constant) == plain


def test_attributes_may_have_any_name_that_is_not_taken():
    names = {"http.status": 1, "class": 2, "a b": 3, "_span": 4, "'": 5, "{failed}": 6, "é": 7}

    with capture() as recorded:
        emits("happened", **names)(lambda: None)()
    assert recorded.one().attributes == names


def test_attributes_of_a_span_beside_an_event_that_waits_for_its_commit():
    names = {"custom_attribute_1": 1, "_attribute_0": 2}
    with capture() as recorded, sqlalchemy.create_engine("sqlite://").begin() as connection:
        emits("happened", after_commit=arg.it, **names)(lambda it: None)(connection)
    assert [moment.attributes for _, moment in recorded.records] == [names, names]


# -- choose ---------------------------------------------------------------------------------------


class Status(enum.Enum):
    DONE = "done"
    LOST = "lost"


class Odd:
    def __init__(self, problem):
        self.problem = problem

    def __hash__(self):
        raise self.problem


def chosen(value, cases, **otherwise):
    with capture(strict=False) as recorded:
        emits(choose(arg.status, cases, **otherwise))(lambda status: None)(value)
    return recorded.types


@pytest.mark.parametrize(
    ("value", "types"),
    [
        ("done", ["completed"]),
        ("lost", ["failed"]),
        (Status.DONE, ["completed"]),
        ("other", ["changed"]),
        (None, ["changed"]),
        ([], ["changed"]),
        (Space(value="done"), ["changed"]),
        (Odd(TypeError()), ["changed"]),
        (Odd(ValueError()), ["changed"]),
        (Odd(SystemExit()), ["changed"]),
        ("x" * 10_000_000, ["changed"]),
    ],
    ids=lambda v: type(v).__name__,
)
def test_choose_by_value(value, types):
    cases = {"done": "completed", "lost": "failed"}
    assert chosen(value, cases, otherwise="changed") == types


def test_choose_by_enum_member():
    assert chosen(Status.DONE, {Status.DONE: "completed"}) == ["completed"]


def test_a_case_for_none_is_for_none_alone():
    assert chosen(None, {None: "unset"}, otherwise="set") == ["unset"]
    assert chosen("x", {None: "unset"}, otherwise="set") == ["set"]


def test_without_a_match_there_is_no_event_but_the_span():
    with capture() as recorded:
        emits(choose(arg.status, {"done": "completed"}))(lambda status: None)("other")
    assert recorded.types == []
    assert len(recorded.spans) == 1


def test_without_a_match_and_without_a_span_there_is_nothing():
    with capture() as recorded:
        emits(choose(arg.status, {"done": "completed"}), span=False)(lambda status: None)("other")
    assert recorded.records == []


def test_a_second_choice_without_a_match_adds_nothing():
    nothing = emits(choose(arg.status, {"never": "never"}))
    with capture() as recorded:
        nothing(emits("always")(lambda status: None))("other")
    assert [static.type for static, _ in recorded.records] == ["always"]


def test_choose_by_result_and_by_callable():
    with capture() as recorded:
        emits(choose(result.ok, {True: "yes", False: "no"}))(lambda: Space(ok=False))()
        emits(choose(lambda n: n > 3, {True: "many", False: "few"}))(lambda n: None)(7)
    assert recorded.types == ["no", "many"]


def test_choose_for_start_and_failure():
    @emits(
        start=choose(arg.kind, {"a": "a_began"}, otherwise="began"),
        failure=choose(error.args[0], {"late": "timed_out"}, otherwise="failed"),
    )
    def f(kind, why):
        raise ValueError(why)

    with capture() as recorded:
        for call in (("a", "late"), ("b", "else")):
            with pytest.raises(ValueError, match=call[1]):
                f(*call)
    assert recorded.types == ["a_began", "timed_out", "began", "failed"]


LIKE_GENERATED = [
    *("custom_attribute_1", "_attribute_0", "attribute_0", "known", "_known", "custom_known"),
    *(
        "_plain",
        "_clock",
        "_emit",
        "_head",
        "_problem",
        "_bound",
        "_constant",
        "_function",
        "_point",
    ),
    *("_mapped", "_choose", "_uncaptured", "_details", "_span", "_result", "_artifact_id"),
]


def test_names_like_those_of_generated_code_are_names_only():
    """Attributes, parameters and keys that are named as variables of the wrapper."""
    namespace = {}
    exec(f"def function({', '.join(LIKE_GENERATED)}): return None", namespace)
    fields = {name: getattr(arg, name) for name in LIKE_GENERATED}
    decorated = emits("x", attributes=fields)(namespace["function"])
    values = {name: f"value of {name}" for name in LIKE_GENERATED}
    with capture() as recorded:
        decorated(**values)
    assert recorded.one().attributes == values
