"""Whatever value is captured, the call is unchanged, and the record stays small."""

import array
import collections
import datetime
import decimal
import enum
import fractions
import json
import math
import pathlib
import sys
import time
import types
import uuid

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidelight import arg, bind, choose, emit, emits, error, result
from sidelight.record.format import MAX_PAYLOAD
from sidelight.record.values import (
    MAX_ALL_TEXT,
    MAX_TEXT,
    MAX_VALUES,
    class_name,
    error_details,
    plain,
)
from sidelight.testing import capture


def captured(value):
    """Capture a value in a decorated call, and return its copy."""
    with capture() as recorded:
        assert emits("x", v=arg.v)(lambda v: v)(value) is value
    assert recorded.losses == {}
    return recorded.one().attributes["v"]


class Colour(enum.Enum):
    RED = "red"


class Size(enum.IntEnum):
    BIG = 3


class Name(str):
    def __len__(self):
        return 1

    def __str__(self):
        return "not this"

    def __getitem__(self, key):
        return "nor this"


class Number(int):
    def __index__(self):
        return 7

    def __repr__(self):
        return "not this"


Pair = collections.namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text", "text"),
        ("ünï ☃ 𝄞", "ünï ☃ 𝄞"),
        ("lone \ud800 surrogate", "lone \\ud800 surrogate"),
        ("x\x00y", "x␀y"),
        (1, 1),
        (2**63 - 1, 2**63 - 1),
        (2**64 - 1, 2**64 - 1),
        (-(2**63), -(2**63)),
        (2**64, "0x10000000000000000"),
        (-(2**80), "-0x100000000000000000000"),
        (10**5000, "<int of 16610 bits>"),
        (1.5, 1.5),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (True, True),
        (None, None),
        (Name("real"), "real"),
        (Number(5), 5),
        (Colour.RED, "red"),
        (Size.BIG, 3),
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (decimal.Decimal("1.50"), "1.50"),
        (fractions.Fraction(1, 3), "1/3"),
        (datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC), "2026-01-02T03:04:00+00:00"),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (datetime.time(3, 4), "03:04:00"),
        (datetime.timedelta(seconds=90), 90.0),
        (pathlib.PurePosixPath("/a/b"), "/a/b"),
        (b"abc", "<3 bytes>"),
        (bytearray(5), "<5 bytes>"),
        (memoryview(array.array("d", [1, 2])), "<16 bytes>"),
        ([1, "a", None], [1, "a", None]),
        ((1, (2, 3)), [1, [2, 3]]),
        ({1}, [1]),
        (frozenset(), []),
        (collections.deque([1, 2]), [1, 2]),
        (Pair(1, 2), [1, 2]),
        ({"a": {"b": [1]}}, {"a": {"b": [1]}}),
        ({1: "one", None: 2, (1, 2): 3}, {"1": "one", "None": 2, "[1, 2]": 3}),
        (collections.OrderedDict(a=1), {"a": 1}),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        (collections.ChainMap({"a": 1}), {"a": 1}),
        (int, "int"),
        (Colour, f"{__name__}.Colour"),
        (range(3), "range(0, 3)"),
        (complex(1, 2), "(1+2j)"),
        (types.SimpleNamespace(a=1), "namespace(a=1)"),
        ([[[[["too deep"]]]]], [[[["<list>"]]]]),
        ([math.nan, 2**70, "\ud800"], ["nan", "0x400000000000000000", "\\ud800"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_becomes_plain(value, expected):
    assert captured(value) == expected
    assert type(captured(value)) is type(expected)


def test_numbers_of_numpy():
    numpy = pytest.importorskip("numpy")
    assert captured(numpy.int16(5)) == 5
    assert captured(numpy.float32(0.5)) == 0.5
    assert captured(numpy.float64(math.nan)) == "nan"
    assert captured({"n": numpy.arange(2)}) == {"n": "array([0, 1])"}


# -- values whose code raises ---------------------------------------------------------------------


class Bites(BaseException):
    """An error that `except Exception` does not catch."""


BITES = [
    ValueError("v"),
    Bites("b"),
    SystemExit(1),
    GeneratorExit(),
    RecursionError(),
    MemoryError(),
]


def biting(*names):
    """Make a class whose methods of these names raise."""

    def make(bite):
        def raises(self, *args):
            raise bite

        return type("Biting", (), dict.fromkeys(names, raises))

    return make


@pytest.mark.parametrize("bite", BITES, ids=lambda bite: type(bite).__name__)
@pytest.mark.parametrize(
    "name",
    ["__repr__", "__str__", "__eq__", "__hash__", "__bool__", "__len__", "__getattribute__"],
)
def test_values_whose_methods_raise(bite, name):
    thing = biting(name)(bite)()
    told = captured(thing)
    assert isinstance(told, str)
    if name == "__repr__":
        assert told == f"<Biting: {type(bite).__name__} while it was captured>"


@pytest.mark.parametrize("bite", BITES, ids=lambda bite: type(bite).__name__)
def test_expressions_that_raise(bite):
    class Thing:
        @property
        def name(self):
            raise bite

        def __getitem__(self, key):
            raise bite

    @emits("x", a=arg.v.name, b=arg.v["k"], c=lambda v: v.name, d=1, e=result.name)
    def f(v):
        return v

    thing = Thing()
    with capture(strict=False) as recorded:
        assert f(thing) is thing
    assert recorded.one().attributes == {"a": None, "b": None, "c": None, "d": 1, "e": None}
    assert recorded.losses == {f"field {name} not captured": 1 for name in "abce"}


@pytest.mark.parametrize("bite", BITES, ids=lambda bite: type(bite).__name__)
def test_errors_whose_message_raises(bite):
    class Biting(Exception):
        def __str__(self):
            raise bite

        @property
        def code(self):
            raise bite

    @emits(failure="failed", code=error.code)
    def f():
        raise problem

    problem = Biting()
    with capture(strict=False) as recorded, pytest.raises(Biting) as caught:
        f()
    assert caught.value is problem
    assert recorded.one().error_message == f"<{type(bite).__name__} while it was captured>"


def test_classes_that_deny_their_class_or_have_no_repr():
    class Meta(type):
        @property
        def __module__(cls):
            raise Bites

        def __repr__(cls):
            raise Bites

        def __instancecheck__(cls, instance):
            raise Bites

        def __subclasscheck__(cls, subclass):
            raise Bites

    class Odd(metaclass=Meta):
        @property
        def __class__(self):
            raise Bites

        __slots__ = ()

    assert captured(Odd()).startswith(("<", "namespace"))
    assert captured(Odd) == class_name(Odd)

    class Liar:
        __class__ = dict

    assert captured(Liar()).startswith("<")

    class NoRepr:
        __repr__ = None

    class WrongRepr:
        def __repr__(self):
            return 5

    assert captured(NoRepr()) == "<NoRepr: TypeError while it was captured>"
    assert captured(WrongRepr()) == "<WrongRepr: TypeError while it was captured>"


def test_containers_that_lie():
    class Endless(list):
        def __iter__(self):
            while True:
                yield 1

        def __len__(self):
            raise Bites

    class Sly(dict):
        def items(self):
            raise Bites

        def __iter__(self):
            raise Bites

    class EndlessMapping(collections.abc.Mapping):
        def __getitem__(self, key):
            return key

        def __iter__(self):
            n = 0
            while True:
                n += 1
                yield n

        def __len__(self):
            return 10**9

    assert captured(Endless([1, 2])) == [1, 2]
    assert captured(Sly(a=1)) == {"a": 1}
    endless = captured(EndlessMapping())
    assert len(endless) == 65
    assert endless["1"] == 1
    assert endless["… 999999936 more"] == "…"


def nested(make, put):
    outer = make()
    put(outer, outer)
    return outer


class EndlessRepr:
    def __repr__(self):
        return repr(self)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (nested(list, list.append), [[[["<list>"]]]]),
        (
            nested(dict, lambda loop, inner: loop.update(self=inner)),
            {"self": {"self": {"self": {"self": "<dict>"}}}},
        ),
        (EndlessRepr(), "<EndlessRepr: RecursionError while it was captured>"),
    ],
    ids=["list", "dict", "repr"],
)
def test_a_value_that_contains_itself(value, expected):
    assert captured(value) == expected


def test_a_value_that_emits_while_it_is_captured():
    class Announces:
        def __repr__(self):
            emit("from_repr")
            announce(1)
            return "told"

    announce = emits("inner")(lambda n: n)
    outer = emits("outer", v=arg.v)(lambda v: v)
    with capture() as recorded:
        outer(Announces())
    assert recorded.types == ["from_repr", "inner", "outer"]
    assert recorded.one("outer").attributes == {"v": "told"}


def test_a_value_that_is_captured_while_it_is_captured():
    class Recurses:
        @emits("told", v=arg.self)
        def __repr__(self):
            return "me"

    with capture(strict=False) as recorded:
        assert repr(Recurses()) == "me"
    assert set(recorded.types) == {"told"}


# -- values that are large ------------------------------------------------------------------------


def cost(value, times=5):
    """The shortest time that copying the value took (s)."""
    best = math.inf
    for _ in range(times):
        begun = time.perf_counter()
        plain(value)
        best = min(best, time.perf_counter() - begun)
    return best


class LongName(str):
    pass


@pytest.mark.parametrize(
    "make",
    [
        lambda n: "x" * n,
        lambda n: "é" * n,
        lambda n: LongName("x" * n),
        lambda n: b"x" * n,
        lambda n: [0] * n,
        lambda n: (0,) * n,
        lambda n: set(range(n)),
        lambda n: dict.fromkeys(range(n)),
        lambda n: collections.deque(range(n)),
        lambda n: {"x" * n: 1},
        lambda n: ["x" * n] * 100,
        lambda n: 1 << n,
    ],
    ids="ascii text subclass bytes list tuple set dict deque key texts int".split(),  # noqa: SIM905
)
def test_the_cost_does_not_grow_with_the_size(make):
    """Compare with a value that is a hundred times smaller, because machines differ in speed."""
    small, large = make(20_000), make(2_000_000)
    assert cost(large) < 20 * cost(small) + 0.0005


def test_long_text_is_cut():
    for long in ("x" * 1_000_000, LongName("x" * 1_000_000), "é" * 1_000_000):
        told = captured(long)
        assert len(told) == MAX_TEXT
        assert told.endswith("…")
    assert captured("x" * MAX_TEXT) == "x" * MAX_TEXT


def test_long_containers_are_cut():
    assert captured(list(range(100)))[62:] == [62, 63, "… 36 more"]
    assert list(captured({n: n for n in range(100)}).items())[63:] == [
        ("63", 63),
        ("… 36 more", "…"),
    ]


def test_wide_and_deep_values_have_one_allowance():
    wide = [[[["x"] * 64] * 64] * 64] * 64
    assert sum(1 for _ in leaves(captured(wide))) <= 2 * MAX_VALUES
    texts = [["x" * MAX_TEXT] * 64] * 64
    assert len(json.dumps(captured(texts))) < 2 * MAX_ALL_TEXT
    keys = {f"{n}" + "k" * 10_000: {f"{m}" + "k" * 10_000: m for m in range(64)} for n in range(64)}
    assert len(json.dumps(captured(keys))) < MAX_PAYLOAD


LARGE = {
    "texts": ["漢" * MAX_TEXT] * 64,
    "nested": [[[["x" * MAX_TEXT] * 64] * 64] * 64] * 64,
    "keys": {f"{n}" + "k" * 10_000: n for n in range(64)},
    "text": "x" * 10_000,
    "numbers": [[[[1] * 64] * 64] * 64] * 64,
}


@pytest.mark.parametrize("value", LARGE.values(), ids=LARGE)
@pytest.mark.parametrize("number", [1, 5, 20, 200])
@pytest.mark.parametrize("door", ["emits", "emit", "bind"])
def test_the_values_of_an_event_have_one_allowance(door, number, value):
    names = [f"a{n}" for n in range(number)]
    with capture() as recorded:
        if door == "emits":
            emits("x", **dict.fromkeys(names, arg.v))(lambda v: None)(value)
        elif door == "emit":
            emit("x", **dict.fromkeys(names, value))
        else:
            with bind(**dict.fromkeys(names, value)):
                emit("x")
    kept = recorded.one().attributes
    assert kept.keys() == set(names) or kept == {"sidelight.truncated": True}
    assert sum(1 for _ in leaves(kept)) <= 9 * MAX_VALUES
    assert len(json.dumps(kept, ensure_ascii=False)) < 4 * MAX_ALL_TEXT


def leaves(value):
    if isinstance(value, list):
        for each in value:
            yield from leaves(each)
    elif isinstance(value, dict):
        yield from leaves([*value.values()])
    else:
        yield value


def test_an_event_with_too_much_keeps_its_ids_and_loses_its_attributes():
    many = {f"a{n}": lambda v: v for n in range(100)}
    f = emits("large", artifact_id="a1", **many)(lambda v: None)
    with capture() as recorded:
        f("漢" * MAX_TEXT)
        assert recorded.losses == {"attributes too large": 1}
    event = recorded.one()
    assert (event.artifact_id, event.attributes) == ("a1", {"sidelight.truncated": True})


def test_ids_are_made_plain_too():
    f = emits("x", artifact_id=arg.a, organization_id=arg.o)(lambda a, o: None)
    with capture() as recorded:
        f(uuid.UUID(int=1), "\ud800")
        f(2**70, b"abc")
        f(["a"], "x" * 10_000)
        with bind(artifact_id=uuid.UUID(int=2)):
            f(None, None)
    ids = [(e.artifact_id, e.organization_id) for e in recorded]
    assert ids[0] == ("00000000-0000-0000-0000-000000000001", "\\ud800")
    assert ids[1] == ("0x400000000000000000", "<3 bytes>")
    assert ids[2][0] == '["a"]'
    assert 100 < len(ids[2][1].encode()) < 3000  # as long as a key may be
    assert ids[2][1].startswith("x" * 100)
    assert ids[3] == ("00000000-0000-0000-0000-000000000002", None)


def test_choosing_by_something_hostile():
    f = emits(choose(arg.v, {1: "one"}, otherwise="other"))(lambda v: None)
    with capture(strict=False) as recorded:
        for bite in BITES:
            f(biting("__hash__")(bite)())
            f(biting("__eq__", "__hash__")(bite)())
        f(math.nan)
        f("x" * 50_000_000)
    assert set(recorded.types) == {"other"}


# -- errors ---------------------------------------------------------------------------------------


def test_frames_nearest_to_the_error_are_kept():
    def descend(n):
        if n == 0:
            raise ValueError("deep")
        descend(n - 1)

    with pytest.raises(ValueError, match="deep") as caught:
        descend(200)
    kind, message, frames = error_details(caught.value)
    assert (kind, message, len(frames)) == ("ValueError", "deep", 64)
    assert frames[-1][2].endswith("descend")
    source = pathlib.Path(__file__).read_text(encoding="utf-8").splitlines()
    assert source[frames[-1][1] - 1].strip() == 'raise ValueError("deep")'


# -- anything at all ------------------------------------------------------------------------------

anything = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(st.characters()),
        st.binary(),
        st.datetimes(),
        st.timedeltas(),
        st.uuids(),
        st.decimals(),
        st.fractions(),
        st.complex_numbers(),
    ),
    lambda inner: st.one_of(
        st.lists(inner),
        st.tuples(inner, inner),
        st.dictionaries(st.one_of(st.text(), st.integers(), st.none()), inner),
    ),
    max_leaves=30,
)


@settings(max_examples=50, deadline=None)
@given(anything)
def test_anything_becomes_json_and_stays_as_it_is(value):
    once = plain(value)
    json.dumps(once, allow_nan=False)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(once)) == once
    assert plain(once) == once
    assert sys.getsizeof(json.dumps(once)) < MAX_PAYLOAD
