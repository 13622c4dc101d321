"""Code read without importing it: the same points as an import shows, or a remark."""

import importlib
import re
import sys
import textwrap

import pytest

from sidelight.maps.listing import listed_point
from sidelight.maps.static.decorated import read_points
from sidelight.maps.static.functions import FoundFunction, SourceFunctions, UnknownFunction
from sidelight.maps.static.names import Codebase
from sidelight.points.registry import POINTS

KINDS = {
    "types.py": """
        import enum
        LATE = "order_late"
        CASES = {"done": "order_done"}
        class Types:
            SENT = "order_sent"
        class Status(enum.StrEnum):
            DONE = "done"
        class Level(str, enum.Enum):
            HIGH = "high"
        def weigh(order):
            return len(order)
        class Scales:
            @staticmethod
            def size(order):
                return len(order)
    """,
    "watching.py": """
        from sidelight import emits as tell, arg as given
        from sidelight import *
        import sidelight.points.decorator as face
        watch = tell
    """,
    "orders.py": """
        import contextlib, functools
        import sidelight
        import sidelight as light
        from sidelight import arg, choose, emits, error, result
        from sidelight import emits as tells
        from . import types, watching
        from .types import CASES, LATE, Level, Scales, Status, Types, weigh
        from .watching import watch, tell
        SIZE = arg.order.size
        KEY = "a key"

        @emits("plain", start="started", failure="failed", mode="awaited", span=False)
        def plain(order): ...

        @sidelight.emits("by_module", artifact_id=sidelight.arg.order, key=sidelight.arg.order[KEY])
        @light.emits("by_alias", size=SIZE, weight=weigh, other=types.weigh, own=Scales.size)
        @functools.lru_cache
        def several(order): ...

        @tells(LATE, constant=-3, text="a", n=len, flag=True, ratio=0.5, level=Status.DONE)
        async def late(obj): ...

        @watching.watch(types.Types.SENT, transaction=arg.session)
        async def stream(session, order):
            yield order

        @watch(choose(arg.order, {Status.DONE: "done", Level.HIGH: Types.SENT, "x": LATE}))
        def choosing(order):
            def inner():
                return 1
            yield inner

        @watching.face.emits(
            choose(by=arg[0], cases=CASES, otherwise="other"),
            **{"a.b": 1},
            attributes={"mode": arg[0]},
        )
        @contextlib.contextmanager
        def opened(order):
            yield order

        @emits(choose(arg.order, {1: "one", None: "none"}), none=None, many=[1, 2])
        def by_number(order): ...

        if KEY:
            @emits("in_a_condition", what=error.args[0], failure="f")
            def conditional(): ...

        class Desk:
            @emits("sent")
            def send(self): ...

            class Inner:
                @classmethod
                @tell("cleaned", after_commit=watching.given.cls)
                def clean(cls): ...

            @staticmethod
            @emits(strict=True, transaction=arg.a, *["unseen"][:0], start=None, type_="x", \
failure=None) if False else emits("chosen")
            def chosen(a): ...
    """,
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that tests write: `read` reads its source, `imported` imports it."""
    name = "read_shop"
    folder = tmp_path / name
    monkeypatch.syspath_prepend(tmp_path)

    class Package:
        def write(self, files, init=""):
            """Write modules; no ``init`` makes a namespace package."""
            inits = {} if init is None else {"__init__.py": init}
            for path, source in (inits | files).items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_text(textwrap.dedent(source))
            return self

        def read(self, *below):
            names = [f"{name}.{each}" if each else name for each in below or ("",)]
            return read_points(Codebase([name]), names)

        def imported(self, module):
            importlib.import_module(f"{name}.{module}")
            return {p.path: listed_point(p) for p in POINTS if p.module.startswith(name)}

    yield Package()
    for module in [each for each in sys.modules if each.partition(".")[0] == name]:
        del sys.modules[module]
    for point in [each for each in POINTS if each.module.partition(".")[0] == name]:
        POINTS.restore(point.path, ())


def facts_of(point):
    declared = [(each.facts(), each.emitted, sorted(each.opaque)) for each in point.declarations]
    return point.kind, point.file, point.line, declared


def test_source_and_import_show_the_same(package):
    package.write(KINDS)
    reading = package.read()
    assert "read_shop.orders" not in sys.modules
    assert reading.problems == []
    found = {point.path: point for point in reading.points}
    imported = package.imported("orders")
    assert imported.keys() - found.keys() == {"read_shop.orders:Desk.chosen"}
    assert len(found) == 10
    for path, point in found.items():
        assert facts_of(point) == facts_of(imported[path]), path
    remark = r".*orders\.py:\d+: emits is no decorator here; import the code .*: --import"
    assert [bool(re.fullmatch(remark, each)) for each in reading.remarks] == [True, True]


EMITS = "from sidelight import emits\n@emits('sent')\ndef send(): ...\n"


HIDING = """
import enum, os
from functools import partial
from sidelight import arg, choose, emits
DEBUG = os.environ.get("DEBUG")
CASES = {"y": "b"}
TWICE = "a"
if DEBUG:
    TWICE = "b"
options, types = {}, ["sent"]
class Colour(enum.Enum):
    RED = "red"
def kind(): return "sent"
"""


@pytest.mark.parametrize(
    ("decorator", "name"),
    [
        ("emits(kind())", "success"),
        ("emits('a' if DEBUG else 'b')", "success"),
        ("emits(f'{DEBUG}_sent')", "success"),
        ("emits(TWICE)", "success"),
        ("emits(choose(arg.order, {DEBUG: 'a'}))", "success"),
        ("emits(choose(arg.order, {**CASES, 'x': 'a'}))", "success"),
        ("emits(choose(arg.order, kind()))", "success"),
        ("emits(choose(arg.order, {'x': 'a'}, otherwise=kind()))", "success"),
        ("emits('sent', mode=kind())", "mode"),
        ("emits('sent', span=DEBUG)", "span"),
        ("emits('sent', n=partial(len))", "attributes.n"),
        ("emits('sent', n=Colour.RED)", "attributes.n"),
        ("emits('sent', n=arg.order[DEBUG])", "attributes.n"),
        ("emits('sent', transaction=kind())", "transaction"),
        ("emits('sent', **options)", "**"),
        ("emits(*types)", "**"),
    ],
)
def test_values_that_the_source_does_not_show_are_named(package, decorator, name):
    package.write({"orders.py": f"{HIDING}@{decorator}\ndef send(order): ...\n"})
    (point,) = package.read().points
    (declared,) = point.declarations
    assert list(declared.opaque) == [name]
    assert declared.opaque[name].on_import
    assert "--import" in declared.opaque[name].reason


def test_decorators_of_other_libraries(package):
    package.write(
        {
            "orders.py": """
            import nowhere
            from nowhere import emits
            from dataclasses import dataclass
            from .itself import loop

            def local():
                from sidelight import emits
                @emits("sent")
                def inner(): ...
                return inner

            @emits("x")
            def a(): ...
            @nowhere.emits("x")
            def b(): ...
            @loop("x")
            def c(): ...
            @dataclass
            class D: ...
            """,
            "itself.py": "from read_shop.itself import loop\nround = around\naround = round\n",
        }
    )
    reading = package.read()
    assert [point.qualname for point in reading.points] == ["local.<locals>.inner"]
    assert "inside of a function" in reading.points[0].unnameable


def test_no_code_is_run(package):
    run = "raise SystemExit('it was run')"
    files = {"deep/__init__.py": run, "deep/orders.py": EMITS, "__main__.py": EMITS}
    package.write(files, init=run)
    assert [point.path for point in package.read().points] == ["read_shop.deep.orders:send"]
    assert len(package.read("deep.orders").points) == 1


def test_namespace_packages(package):
    package.write({"a/b/orders.py": EMITS}, init=None)
    for below in ("a.b.orders", "a.b"):
        (point,) = package.read(below).points
        assert point.path == "read_shop.a.b.orders:send"


def test_modules_that_cannot_be_read_are_named(package):
    package.write({"broken.py": "import sidelight\ndef f(:", "fine.py": EMITS})
    reading = package.read()
    assert [point.qualname for point in reading.points] == ["send"]
    assert reading.problems == ["cannot read read_shop.broken: line 2: invalid syntax"]
    assert read_points(Codebase([]), ["zlib", "sys", "nowhere.at.all"]).problems == [
        "there is no module nowhere.at.all; name it as in an import statement",
        "zlib has no Python source; import it to see it: --import",
        "sys has no Python source; import it to see it: --import",
    ]


def test_names_that_lead_in_circles(package):
    stars = "\n".join(f"from .m{n} import *" for n in range(12))
    files = {f"m{n}.py": stars for n in range(12)}
    package.write(
        {
            **files,
            "orders.py": f"""
            {"; ".join(stars.splitlines())}
            from sidelight import emits
            from .m1 import Desk

            class Desk(Desk):
                @emits("sent")
                def send(self): ...

            @unknown("x")
            def receive(): ...
            """,
        }
    )
    assert [point.qualname for point in package.read().points] == ["Desk.send"]
    functions = SourceFunctions(Codebase(["read_shop"]))
    assert isinstance(functions.find("read_shop.orders:Desk.send"), FoundFunction)
    assert isinstance(functions.find("read_shop.orders:Desk.bill"), UnknownFunction)


@pytest.mark.parametrize("depth", [600, 1200, 20_000])
def test_code_that_is_nested_too_deep_is_a_problem(package, depth):
    deep = "import sidelight\nx = " + " + ".join(["1"] * depth)
    package.write({"deep.py": deep, "fine.py": "x = 1"})
    reading = package.read()
    (problem,) = reading.problems
    assert problem.startswith("cannot read read_shop.deep: ")


def test_only_related_modules_are_parsed(package, monkeypatch):
    """A module that mentions neither sidelight nor a module that does has no point."""
    package.write(
        {
            "plain.py": "def f(:",
            "watching.py": "from sidelight import emits as watch",
            "far.py": "from .watching import watch as look",
            "farther.py": "from read_shop.far import look\n@look('a')\ndef a(): ...",
            "deep/__init__.py": "from ..farther import look",
            "deep/inside.py": "from . import look\n@look('b')\ndef b(): ...",
            "deep/plain.py": "x = 1",
        }
    )
    reading = package.read()
    assert [point.qualname for point in reading.points] == ["b", "a"]
    assert reading.problems == []
