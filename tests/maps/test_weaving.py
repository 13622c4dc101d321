"""`weave`: functions wrapped without a change of their code, and unwrapped again."""

import importlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
import zlib

import pytest
from tests.support.commands import sidelight as command
from tests.support.commands import wrong
from tests.support.platforms import needs_spool_files

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


# -- names that a module has besides its own -------------------------------------------------------

LAZY = """import importlib.util as u, sys; spec = u.find_spec("aka_real")
    spec.loader = u.LazyLoader(spec.loader)
    sys.modules["aka_real"] = module = u.module_from_spec(spec)
    spec.loader.exec_module(module)""".replace("\n    ", "; ")
ALIASES = {
    "alias, imported": ("os.path:join", "import os.path", "os.path.join('a', 'b')"),
    "alias of a package": ("aka.orders:send", "import aka.orders", "aka.orders.send(1)"),
    "alias, later": ("aka_later:send", "import makes_later, aka_later", "aka_later.send(1)"),
    "another object": ("aka_object:send", "import aka_object", "aka_object.send(1)"),
    "slots": ("aka_slots:Desk.send", "import aka_slots", "aka_slots.Desk().send(1)"),
    "re-export": ("aka:sent", "import aka", "aka.sent(1)"),
    "re-export, defined": ("aka:sent", "import aka, aka_real", "aka_real.send(1)"),
    "lazy re-export": ("aka_lazy:send", "import aka_lazy", "aka_lazy.send(1)"),
    "lazy module": ("aka_real:send", LAZY, "module.send(1)"),
    "namespace": ("aka_space.orders:send", "import aka_space.orders", "aka_space.orders.send(1)"),
}
FILES = {
    "aka_real.py": "def send(order):\n    return order\n",
    "aka/__init__.py": """
        import sys, aka_real
        from aka_real import send as sent
        sys.modules["aka.orders"] = orders = aka_real
    """,
    "makes_later.py": "import sys, aka_real\nsys.modules['aka_later'] = aka_real\n",
    "aka_object.py": """
        import sys
        class Proxy:
            def send(self, order):
                return order
        sys.modules[__name__] = Proxy()
    """,
    "aka_slots.py": """
        class Desk:
            __slots__ = ()
            def send(self, order):
                return order
    """,
    "aka_lazy.py": """
        def __getattr__(name):
            import aka_real
            return getattr(aka_real, name)
    """,
    "aka_space/orders.py": "def send(order):\n    return order\n",
}
#: A process for each row.
PROGRAM = """
import json, os, sys
import sidelight
from sidelight.testing import capture

for path, before, after in json.loads(sys.argv[1]):
    if os.fork():
        os.wait()
        continue
    with open("sidelight.toml", "w") as file:
        file.write(f"[[point]]\\nfunction = '{path}'\\nsuccess = 'x'\\n")
    exec(before)
    with sidelight.weave("sidelight.toml") as weaving, capture() as recorded:
        exec(after)
        print(json.dumps([path, before, *weaving.woven, *recorded.types]), flush=True)
    os._exit(0)
"""


@pytest.fixture(scope="module")
def aliases(tmp_path_factory):
    directory = tmp_path_factory.mktemp("aliases")
    for name, text in FILES.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(textwrap.dedent(text))
    return directory


BEFORE = ("alias, imported", "alias of a package", "another object", "lazy re-export")


def test_a_point_is_woven_by_every_name_of_its_module(aliases):
    rows = [
        (path, "", f"{imports}; {call}")
        for name, (path, imports, call) in ALIASES.items()
        if name != "alias, later"
    ]
    rows += [
        (path, imports, call)
        for name, (path, imports, call) in ALIASES.items()
        if name in {*BEFORE, "alias, later"}
    ]
    done = python(aliases, "-c", PROGRAM, json.dumps(rows))
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert told == [[path, before, path, "x"] for path, before, _ in rows], done.stderr


def test_the_check_sees_what_weaving_sees(aliases):
    paths = [path for path, _, _ in ALIASES.values()]
    text = "".join(point(path, success="x") for path in dict.fromkeys(paths))
    (aliases / "sidelight.toml").write_text(text)
    done = python(aliases, "-m", "sidelight", "points", "--check", "sidelight.toml", "--import")
    assert "aka_later:send: No module named 'aka_later'" in done.stdout, done.stderr
    assert len(done.stdout.splitlines()) == 1


@needs_spool_files
def test_a_point_whose_module_no_import_brings_is_told(aliases):
    (aliases / "sidelight.toml").write_text(point("aka_later:send", success="x"))
    program = "import sidelight; sidelight.weave('sidelight.toml'); import makes_later, aka_later"
    done = python(aliases, "-c", program)
    assert "aka_later:send is not woven: no import brings aka_later" in done.stderr
    assert "call sidelight.weave after that, or name aka_real:send" in done.stderr
    url = f"sqlite:///{aliases / 'events.db'}"
    assert command("relay", "--once", "--store", url).code == 0
    with sidelight.Store(url) as store:
        assert [(loss.reason, loss.count) for loss in store.losses()] == [("point not woven", 1)]


@needs_spool_files
def test_losses_of_a_process_that_emits_nothing_reach_the_store(tmp_path):
    (tmp_path / "shop.py").write_text("def send(order):\n    return order\n")
    (tmp_path / "app.py").write_text("import shop\nshop.send(1)\nprint('done')\n")
    (tmp_path / "sidelight.toml").write_text(point("shop:sendd", success="x"))
    run = ("run", "--lenient", "--", sys.executable, "app.py")
    assert "done" in python(tmp_path, "-m", "sidelight", *run).stdout
    url = f"sqlite:///{tmp_path / 'events.db'}"
    assert command("relay", "--once", "--store", url).code == 0
    with sidelight.Store(url) as store:
        assert [(loss.reason, loss.count) for loss in store.losses()] == [("point not woven", 1)]
    assert "point not woven" in wrong("losses", "--store", url)


def python(directory, *arguments):
    """Run an interpreter in a directory, with a store there."""
    environment = {**os.environ, "SIDELIGHT_STORE": f"sqlite:///{directory / 'events.db'}"}
    environment |= {"PYTHONPATH": os.pathsep.join([os.fspath(directory), *sys.path])}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
