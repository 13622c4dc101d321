"""A map written into the code and taken out of it again: to the byte."""

import ast
import importlib
import itertools
import os
import sys
import textwrap

import pytest

from sidelight.exceptions import MapError
from sidelight.maps.codemod.files import Edit
from sidelight.maps.codemod.plan import Plan
from sidelight.maps.read import read_map
from sidelight.testing import capture

MAP = """
[[point]]
function = "written_shop.orders:send"
success = "order_sent"
artifact_id = "arg.order"
"""
#: Files with a function `send`; what stands above it in each, and how apply begins it.
HEADS = {
    "nothing": "",
    "a blank line": "\n",
    "docstring": '"""Orders."""\n\n\n',
    "tight docstring": '"""Orders."""\n',
    "long docstring": '"""Orders.\n\nAnd more.\n"""\n\n',
    "comment": "# Orders.\n",
    "comment apart": "# Orders.\n\n",
    "shebang": "#!/usr/bin/env python\n# -*- coding: utf-8 -*-\n\n\n",
    "latin": "# -*- coding: latin-1 -*-\nNAME = 'Zo\xeb'\n\n",
    "standard library": "import os\n\n\n",
    "tight standard library": "import os\n",
    "future": '"""Orders."""\n\nfrom __future__ import annotations\n\n\n',
    "future alone": "from __future__ import annotations\n",
    "others": "import os\n\nimport attr\nfrom zope import interface\n\n\n",
    "others before": "import os\n\nfrom attr import define\n\n\n",
    "one's own": "import os\n\nfrom written_shop import desk\n\n\n",
    "one's own alone": "from written_shop import desk\n\n\n",
    "one's own with a comment": "# Desks.\nfrom written_shop import desk\n\n\n",
    "relative": "from . import desk\n\n\n",
    "all kinds": (
        "from __future__ import annotations\n\nimport os\nfrom typing import Any\n\nimport attr\n"
        "from zope import a\n\nimport written_shop\nfrom written_shop import desk\n\n\n"
    ),
    "all mixed": "import os\nfrom . import desk\nimport sys\n\n\n",
    "for type checkers": (
        "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from sidelight import arg\n\n"
    ),
    "ours": "from sidelight import flush\n\n\nflush\n\n\n",
    "ours in lines": "from sidelight import (\n    bind,\n    flush,\n)\n\nbind, flush\n",
    "ours oddly": "from sidelight import (flush, bind)  # both\n\nbind, flush\n",
    "ours in part": "from sidelight import arg, flush\n\narg, flush\n",
    "ours as a module": "import sidelight\n\nsidelight.flush\n",
    "ours renamed": "from sidelight import emits as e, arg as a\n\ne, a\n",
    "a name that is taken": "import os\n\narg = emits = 1\n\n",
    "statements before": "x = 1\nimport os\n\n",
    "two in a line": "import os; import sys\n\n",
    "windows": "import os\r\n\r\n\r\n",
    "a mark": "\ufeffimport os\n\n\n",
    "tabs": "import os\n\nif os:\n\tos = 1\n\n",
}
FUNCTIONS = {
    "plain": "def send(order):\n    return order\n",
    "decorated": "# Sends.\n@other  # yes\n\n# no\n@another\ndef send(order): ...\n",
    "asynchronous": "async   def  send( order ) :\n  return  order ;\n",
    "no end": "def send(order): return order",
}


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A package on disk; `orders` is the file that the map is about."""
    folder = tmp_path / "written_shop"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "desk.py").write_text(
        "def weigh(order):\n    return 1\n\nclass Desk:\n    def weigh(order): ...\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    class Shop:
        orders = folder / "orders.py"
        toml = tmp_path / "sidelight.toml"

        def write(self, source, points=MAP):
            self.toml.write_text(textwrap.dedent(points))
            encoding = "latin-1" if "latin-1" in source else "utf-8"
            self.orders.write_bytes(source.encode(encoding))
            importlib.invalidate_caches()
            return self

        def edit(self, how):
            plan = Plan(read_map(self.toml))
            edits = getattr(plan, how)()
            assert [str(problem) for problem in plan.problems] == []
            for edit in edits:
                edit.write()
            return self.orders.read_bytes()

        def problems(self, how="applied"):
            plan = Plan(read_map(self.toml))
            getattr(plan, how)()
            return [str(problem).partition("sidelight.toml:")[2] for problem in plan.problems]

    yield Shop()
    for name in [each for each in sys.modules if each.partition(".")[0] == "written_shop"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("head", "function"), list(itertools.product(HEADS, FUNCTIONS)), ids=lambda name: name
)
def test_there_and_back(shop, head, function):
    body = FUNCTIONS[function]
    if head == "windows":
        body = body.replace("\n", "\r\n")
    source = HEADS[head] + body
    before = shop.write(source).orders.read_bytes()
    applied = shop.edit("applied")
    assert applied != before
    ast.parse(applied)
    assert applied.count(b"order_sent") == 1
    assert shop.edit("applied") == applied
    assert shop.edit("stripped") == before
    assert shop.edit("stripped") == before
    kept = iter(applied.splitlines())
    assert all(line in kept for line in before.splitlines() if b"sidelight" not in line)


@pytest.mark.parametrize(
    ("head", "imported"),
    [
        ("docstring", '"""Orders."""\n\nfrom sidelight import arg, emits\n\n\n'),
        ("standard library", "import os\n\nfrom sidelight import arg, emits\n\n\n"),
        ("one's own", "import os\n\nfrom sidelight import arg, emits\n\nfrom written_shop import"),
        (
            "others",
            "import attr\nfrom sidelight import arg, emits\nfrom zope import interface\n\n\n",
        ),
        ("others before", "from attr import define\nfrom sidelight import arg, emits\n\n\n"),
        ("relative", "from sidelight import arg, emits\n\nfrom . import desk\n\n\n"),
        ("nothing", "from sidelight import arg, emits\n\n\n@emits"),
        ("ours", "from sidelight import arg, emits, flush\n\n\n"),
        (
            "ours in lines",
            "from sidelight import (\n    arg,\n    bind,\n    emits,\n    flush,\n)\n",
        ),
        ("ours renamed", "from sidelight import emits as e, arg as a\n\ne, a\n@e("),
        (
            "a name that is taken",
            "from sidelight import arg as sidelight_arg, emits as sidelight_em",
        ),
        ("future", "annotations\n\nfrom sidelight import arg, emits\n\n\n"),
    ],
)
def test_where_the_import_goes(shop, head, imported):
    text = shop.write(HEADS[head] + FUNCTIONS["plain"]).edit("applied").decode()
    assert imported in text


def test_how_it_looks(shop):
    source = """\
        from written_shop.desk import Desk


        class Packer:
            # Comes first.
            @staticmethod
            @other
            def pack(order, status=None):  # a comment
                return order

            def plain(self, desk: Desk): ...
        """
    points = """
        [[point]]
        function = "written_shop.orders:Packer.pack"
        success = { choose = "arg.status", cases = { done = "order_done" }, otherwise = "changed" }
        failure = "order_failed"
        mode = "awaited"
        span = false
        artifact_id = "result.id"
        organization_id = "arg.order.candidates[0]['the key']"
        attributes.size = { call = "written_shop.desk:weigh" }
        attributes.desk = { call = "written_shop.desk:Desk.weigh" }
        attributes.quote = { value = "it's" }
        attributes."a.b" = true
        attributes.code = "error.code"
        attributes.large = inf

        [[point]]
        function = "written_shop.orders:Packer.pack"
        start = "packing"
        mode = "awaited"
        """
    shop.write(textwrap.dedent(source), points)
    before = shop.orders.read_bytes()
    assert shop.edit("applied").decode() == textwrap.dedent(
        """\
        from sidelight import arg, choose, emits, error, result

        from written_shop import desk
        from written_shop.desk import Desk


        class Packer:
            # Comes first.
            @staticmethod
            @emits(start="packing", mode="awaited")
            @emits(
                choose(arg.status, {"done": "order_done"}, otherwise="changed"),
                failure="order_failed",
                mode="awaited",
                span=False,
                artifact_id=result.id,
                organization_id=arg.order.candidates[0]["the key"],
                size=desk.weigh,
                desk=Desk.weigh,
                quote="it's",
                code=error.code,
                large=1e999,
                **{"a.b": True},
            )
            @other
            def pack(order, status=None):  # a comment
                return order

            def plain(self, desk: Desk): ...
        """
    )
    assert shop.edit("stripped") == before


def test_what_is_too_long_is_spread(shop):
    (shop.toml.parent / "pyproject.toml").write_text("[tool.ruff]\nline-length = 60\n")
    cases = ", ".join(f'case_{n} = "quite_a_long_type_{n}"' for n in range(3))
    points = MAP + f'failure = {{ choose = "arg.order", cases = {{ {cases} }} }}\n'
    shop.write(FUNCTIONS["plain"], points)
    text = shop.edit("applied").decode()
    assert max(map(len, text.splitlines())) <= 60
    assert '        {\n            "case_0": "quite_a_long_type_0",\n            "case_1"' in text
    assert shop.edit("stripped").decode() == FUNCTIONS["plain"]


@pytest.mark.parametrize(
    ("rest", "kept"),
    [
        ("x = arg\n", "from sidelight import arg\n"),
        ("def f(x: 'arg') -> \"emits\": ...\n", "from sidelight import arg, emits\n"),
        ("__all__ = ['send', 'arg']\n", "from sidelight import arg\n"),
        ("@emits('another')\ndef f(): ...\n", "from sidelight import emits\n"),
        ('def f():\n    """Of arg and emits."""\n', ""),
        ("def f(arg):\n    emits = arg\n    return emits\n", ""),
        ("def f():\n    return [emits for _ in ()]\n", "from sidelight import emits\n"),
        ("# arg, emits\n", ""),
    ],
    ids=[
        "used",
        "annotations",
        "all",
        "another decorator",
        "prose",
        "variables",
        "inside",
        "comment",
    ],
)
def test_strip_keeps_what_is_used_elsewhere(shop, rest, kept):
    source = (
        "from sidelight import arg, emits\n\n\n"
        f'@emits("order_sent", artifact_id=arg.order)\ndef send(order): ...\n\n\n{rest}'
    )
    text = shop.write(source).edit("stripped").decode()
    expected = f"def send(order): ...\n\n\n{rest}"
    assert text == (f"{kept}\n\n{expected}" if kept else expected)


def test_strip_keeps_comments_and_other_decorators(shop):
    source = (
        "from sidelight import (  # ours\n    arg,\n    emits,\n)\n\n"
        '# Above.\n@other\n# Before it.\n@emits("order_sent", artifact_id=arg.order)\n# Below.\n'
        "def send(order): ...\n"
    )
    text = shop.write(source).edit("stripped").decode()
    assert "@emits" not in text
    assert text.endswith("# Above.\n@other\n# Before it.\n# Below.\ndef send(order): ...\n")
    assert "# ours" in text  # an import that a comment goes with stays


@pytest.mark.parametrize(
    ("points", "source", "problem"),
    [
        ({"send": "sent"}, "def send(order): ...", "sent: it is not there; did you mean send?"),
        ({"orders:": "desk:"}, "from .desk import send", "desk:send: it is not there"),
        (
            {},
            "from written_shop.desk import weigh as send",
            "it is defined as written_shop.desk:weigh",
        ),
        ({}, "class send: ...", "it is a class; name its methods"),
        ({}, "send = print", "the source does not show what send is; leave it to sidelight.weave"),
        ({}, "if 1:\n  def send(order): ...\nelse:\n  def send(order): ...", "more than once"),
        ({"written_shop.orders:send": "shutil:copyfile"}, "", "is not below this directory"),
        ({"written_shop.orders:send": "zlib:crc32"}, "", "zlib has no Python source"),
        (
            {"arg.order": 'arg.order"\nattributes.mode = "arg.order'},
            "def send(order): ...",
            "an option",
        ),
        (
            {'"arg.order"': '{ call = "written_shop.orders:weigh" }'},
            "def send(order): ...\ndef weigh(order): ...",
            "written_shop.orders:weigh is defined below it; move it above, or elsewhere",
        ),
        (
            {},
            "from sidelight import emits\n@emits('order_sent')\ndef send(order): ...",
            "a decorator emits the same, and captures something else than the map says",
        ),
    ],
    ids=range(11),
)
def test_what_cannot_be_written_is_named(shop, points, source, problem):
    text = MAP
    for before, after in points.items():
        text = text.replace(before, after)
    shop.write(source, text)
    (said,) = shop.problems()
    assert said.startswith("2: ")
    assert problem in said


def test_what_the_map_says_twice_is_written_once(shop):
    shop.write(FUNCTIONS["plain"], MAP + MAP.replace("arg.order", "result"))
    (said,) = shop.problems()
    assert said.startswith("7: ")
    assert "another point of the map emits the same, which is not emitted twice; keep one" in said


def test_strip_leaves_what_the_map_does_not_say(shop):
    shop.write("from sidelight import emits\n@emits('order_sent')\ndef send(order): ...\n")
    (said,) = shop.problems("stripped")
    assert "captures something else than the map says; make them agree" in said


@pytest.mark.parametrize(
    "desk",
    ["from . import orders", "import written_shop.more", "from .more import x"],
    ids=["itself", "far", "by name"],
)
def test_no_import_that_goes_in_a_circle(shop, desk):
    shop.write(
        "def send(order): ...\n",
        MAP + 'attributes = { n = { call = "written_shop.desk:weigh" } }\n',
    )
    folder = shop.orders.parent
    (folder / "desk.py").write_text(f"{desk}\n\ndef weigh(order): ...\n")
    (folder / "more.py").write_text("from written_shop.orders import send as x\n")
    (said,) = shop.problems()
    assert "written_shop.desk imports written_shop.orders, which would import it" in said
    (folder / "more.py").write_text("def x(): import written_shop.orders\n")
    assert len(shop.problems()) == (desk == "from . import orders")


def test_names_that_a_class_has_taken(shop):
    source = "class Desk:\n    result = emits = 1\n\n    def send(self, order): ...\n"
    text = (
        shop.write(source, MAP.replace("orders:send", "orders:Desk.send")).edit("applied").decode()
    )
    assert text.startswith("from sidelight import arg, emits as sidelight_emits\n")
    assert '    @sidelight_emits("order_sent", mode="scheduled", artifact_id=arg.order)\n' in text
    assert shop.edit("stripped").decode() == source


def test_names_that_come_with_a_star(shop):
    """Of what is written in C nobody knows which names it gives."""
    source = (
        "from _socket import *\nfrom written_shop.star import *\n\n\n"
        "def send(order):\n    raise error\n"
    )
    points = MAP + 'failure = "order_lost"\nattributes = { why = "error", what = "result" }\n'
    (shop.orders.parent / "star.py").write_text("result = 1\n")
    text = shop.write(source, points).edit("applied").decode()
    for name in ("arg", "emits", "error", "result"):
        assert f"    {name} as sidelight_{name},\n" in text
    assert "why=sidelight_error" in text
    assert shop.edit("stripped").decode() == source


def test_overloads(shop):
    source = (
        "from typing import overload\n\n\n@overload\ndef send(order: int): ...\n@overload\n"
        "def send(order: str): ...\ndef send(order):\n    return order\n"
    )
    text = shop.write(source).edit("applied").decode()
    assert text.endswith(
        '@emits("order_sent", mode="scheduled", artifact_id=arg.order)\n'
        "def send(order):\n    return order\n"
    )
    assert shop.edit("stripped").decode() == source


def test_a_file_is_replaced_in_one_step(shop, monkeypatch):
    shop.write(FUNCTIONS["plain"])
    shop.orders.chmod(0o640)
    link = shop.orders.with_name("orders_link.py")
    link.symlink_to(shop.orders)
    shop.edit("applied")
    assert shop.orders.stat().st_mode & 0o777 == 0o640
    (edit,) = Plan(read_map(shop.toml)).stripped()
    applied = shop.orders.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(MapError, match=r"orders\.py: No space left"):
            edit.write()
    assert shop.orders.read_bytes() == applied
    assert sorted(path.name for path in shop.orders.parent.glob(".*")) == []
    shop.orders.write_bytes(applied + b"# more\n")
    with pytest.raises(MapError, match="somebody changed it meanwhile; try again"):
        edit.write()
    assert isinstance(edit, Edit)
    assert "-@emits(" in edit.diff("orders.py")


def test_what_was_written_runs(shop):
    shop.write(
        "class Desk:\n    @classmethod\n    def open(cls, hour):\n        return hour\n",
        """
        [[point]]
        function = "written_shop.orders:Desk.open"
        success = "opened"
        attributes = { hour = "arg.hour" }
        """,
    ).edit("applied")
    orders = importlib.import_module("written_shop.orders")
    with capture() as recorded:
        assert orders.Desk.open(9) == 9
    assert recorded.one("opened").attributes == {"hour": 9}
