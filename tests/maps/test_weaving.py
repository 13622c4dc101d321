"""`weave`: functions wrapped without a change of their code, and unwrapped again."""

import importlib
import json
import shutil
import sys
import textwrap
import zlib

import pytest

import sidelight
from sidelight import emits
from sidelight.emission import EMITTER
from sidelight.exceptions import MapError
from sidelight.points.registry import POINTS
from sidelight.testing import capture

SHOP = """
class Desk:
    def receive(self, order):
        return order

    @classmethod
    def open(cls, hour):
        return hour

    @staticmethod
    def clean(room):
        return room

class Counter(Desk):
    pass

def send(order, size=1):
    return order

async def pack(order):
    return order

def weigh(order):
    return len(order)
"""


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A package that is not imported yet; the fixture unloads its modules afterwards."""
    package = tmp_path / "woven_shop"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "orders.py").write_text(SHOP)
    (package / "desk.py").write_text("from woven_shop.orders import send as sending, pack\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda name="orders": importlib.import_module(f"woven_shop.{name}")
    for name in [name for name in sys.modules if name.startswith("woven_shop")]:
        del sys.modules[name]
    POINTS.restore("woven_shop.orders:send", ())


@pytest.fixture
def mapped(tmp_path):
    """Writes a map and weaves it; the fixture unweaves it afterwards."""
    made = []

    def weave(text, **options):
        path = tmp_path / "sidelight.toml"
        path.write_text(textwrap.dedent(text))
        made.append(sidelight.weave(path, **options))
        return made[-1]

    yield weave
    for each in made:
        each.unweave()


SEND = """
    [[point]]
    function = "woven_shop.orders:send"
    success = "sent"
    artifact_id = "arg.order"
    attributes = { size = "arg.size", weight = { call = "woven_shop.orders:weigh" } }
"""


def test_before_the_import(shop, mapped):
    weaving = mapped(SEND)
    assert weaving.woven == ()
    with capture() as recorded:
        assert shop().send("o1", size=3) == "o1"
    assert recorded.one("sent").artifact_id == "o1"
    assert recorded.one("sent").attributes == {"size": 3, "weight": 2}
    assert weaving.woven == ("woven_shop.orders:send",)
    assert POINTS.get("woven_shop.orders:send") is not None


def test_after_the_import_under_other_names_too(shop, mapped):
    orders, desk = shop(), shop("desk")
    before = orders.send
    with mapped(SEND) as weaving, capture() as recorded:
        assert desk.sending is orders.send is not before
        desk.sending("o1")
        orders.send("o2")
        assert weaving.woven
    assert [event.artifact_id for event in recorded] == ["o1", "o2"]
    assert desk.sending is orders.send is before
    assert POINTS.get("woven_shop.orders:send") is None
    with capture() as recorded:
        desk.sending("o3")
    assert recorded.types == []


def point(function, **values):
    lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
    return f'[[point]]\nfunction = "{function}"\n{lines}'


def test_methods(shop, mapped):
    orders = shop()
    before = dict(vars(orders.Desk))
    names = ("receive", "open", "clean")
    weaving = mapped("".join(point(f"woven_shop.orders:Desk.{n}", success=n) for n in names))
    with capture() as recorded:
        assert orders.Desk().receive("o1") == "o1"
        assert orders.Desk.open(9) == orders.Desk().open(9) == 9
        assert orders.Desk.clean("r") == orders.Counter().clean("r") == "r"
    assert recorded.types == ["receive", "open", "open", "clean", "clean"]
    weaving.unweave()
    assert dict(vars(orders.Desk)) == before


def test_an_inherited_method_is_woven_where_the_map_says(shop, mapped):
    orders = shop()
    weaving = mapped(point("woven_shop.orders:Counter.receive", success="x"))
    with capture() as recorded:
        orders.Desk().receive("o1")
        assert recorded.types == []
        orders.Counter().receive("o1")
    assert recorded.types == ["x"]
    weaving.unweave()
    assert "receive" not in vars(orders.Counter)


async def test_coroutines(shop, mapped):
    mapped(point("woven_shop.orders:pack", start="a", success="b"))
    with capture() as recorded:
        assert await shop("desk").pack("o1") == "o1"
    assert recorded.types == ["a", "b"]


def test_several_points_of_one_function(shop, mapped):
    mapped(SEND + SEND.replace('"sent"', '"sent_again"'))
    with capture() as recorded:
        shop().send("o1")
    assert recorded.types == ["sent", "sent_again"]


def test_third_parties_and_functions_in_c(mapped, tmp_path):
    copied = point("shutil:copyfile", success="copied", artifact_id="arg.dst")
    weaving = mapped(copied + point("zlib:crc32", success="summed", artifact_id="result"))
    (tmp_path / "a").touch()
    with capture() as recorded:
        shutil.copyfile(tmp_path / "a", tmp_path / "b")
        assert zlib.crc32(b"abc") == 891568578
    assert recorded.types == ["copied", "summed"]
    assert recorded.one("summed").artifact_id == "891568578"
    weaving.unweave()
    with capture() as recorded:
        shutil.copyfile(tmp_path / "a", tmp_path / "b")
    assert recorded.types == []


def test_a_decorator_and_a_map_emit_an_event_once(shop, mapped):
    orders = shop()
    orders.send = emits("sent", artifact_id="mine")(orders.send)
    mapped(SEND)
    with capture() as recorded:
        orders.send("o1")
    assert recorded.one("sent").artifact_id == "mine"
    mapped(SEND.replace('"sent"', '"sent_too"'))
    with capture() as recorded:
        orders.send("o1")
    assert recorded.types == ["sent", "sent_too"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("orders:send", "orders:sent"), "orders:sent is not there; did you mean send?"),
        (("orders:send", "orders:Desk.sweep"), "Desk.sweep is not there; name its successor"),
        (("orders:send", "orders:Desk"), "it is a class; decorate its methods"),
        (("arg.size", "arg.seize"), "send has no parameter seize; did you mean size?"),
        (("orders:weigh", "orders:weight"), "it cannot be called: .*weight"),
        (
            ("woven_shop.orders:weigh", "nowhere:f"),
            "it cannot be called: No module named 'nowhere'",
        ),
    ],
)
def test_a_map_that_does_not_fit(shop, mapped, change, message):
    orders = shop()
    before = dict(vars(orders))
    with pytest.raises(MapError, match=message) as caught:
        mapped(SEND.replace(*change))
    assert "sidelight.toml:2: " in str(caught.value)
    assert dict(vars(orders)) == before


def test_a_map_that_does_not_fit_fails_the_import(shop, mapped):
    mapped(SEND.replace("arg.size", "arg.seize"))
    with pytest.raises(MapError, match="no parameter seize"):
        shop()


def test_an_event_of_a_hidden_wrapper_is_emitted_once(shop, mapped, tmp_path):
    (tmp_path / "woven_shop" / "hidden.py").write_text(
        textwrap.dedent("""
        import click
        from sidelight import emits

        class Desk:
            @property
            @emits("sent")
            def size(self):
                return 1

        @click.command()
        @emits("sent")
        def send(): ...
        """)
    )
    hidden = shop("hidden")
    before = hidden.send
    paths = ("woven_shop.hidden:send", "woven_shop.hidden:Desk.size")
    mapped("".join(point(path, success="sent") for path in paths))
    with capture() as recorded:
        assert hidden.Desk().size == 1
    assert hidden.send is before
    assert recorded.types == ["sent"]


def test_lenient_weaving_counts_and_logs_a_point_that_does_not_fit(shop, mapped, caplog):
    stale = SEND.replace("orders:send", "orders:sent") + SEND.replace("arg.size", "arg.seize")
    weaving = mapped(stale + SEND, lenient=True)
    orders = shop()
    assert EMITTER.losses == {"point not woven": 2}
    with capture() as recorded:
        orders.send("o1")
    assert recorded.types == ["sent"]
    assert weaving.woven == ("woven_shop.orders:send",)
    problems = [str(error) for error in weaving.skipped]
    assert [each.partition("sidelight.toml:")[2][:2] for each in problems] == ["2:", "8:"]
    assert caplog.messages == [f"not instrumented: {each}" for each in problems]


def test_points_of_several_modules_that_differ_in_the_module_only(shop, mapped):
    """Expressions refuse comparison, so weaving must not compare points."""
    paths = ("woven_shop.late:f", "woven_shop.orders:send")
    mapped("".join(point(path, success="sent", artifact_id="arg.order") for path in paths))
    with capture() as recorded:
        shop().send("o1")
    assert recorded.types == ["sent"]


def test_disabled(shop, mapped, monkeypatch):
    monkeypatch.setenv("SIDELIGHT_DISABLED", "1")
    before = shop().send
    mapped(SEND)
    assert shop().send is before


def test_unwoven_before_the_import(shop, mapped):
    mapped(SEND).unweave()
    with capture() as recorded:
        shop().send("o1")
    assert recorded.types == []
