"""A map written into the code, and taken out again without a changed byte."""

import ast
import importlib
import itertools
import os
import sys
import textwrap

import pytest

from sidelight.exceptions import MapError
from sidelight.maps.codemod.edits import CodeEdits
from sidelight.maps.reader import read_map
from sidelight.testing import capture

MAP = """
[[point]]
function = "written_shop.orders:send"
success = "order_sent"
artifact_id = "arg.order"
"""
#: Text above the function `send`.
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
    """A package on disk; `orders` is the file of the map's function."""
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

        def edit(self, method):
            planned = CodeEdits(read_map(self.toml))
            edits = getattr(planned, method)()
            assert list(map(str, planned.problems)) == []
            for edit in edits:
                edit.write()
            return self.orders.read_bytes().decode("utf-8", "surrogateescape")

        def problems(self, method="applied"):
            planned = CodeEdits(read_map(self.toml))
            getattr(planned, method)()
            return [str(problem).partition("sidelight.toml:")[2] for problem in planned.problems]

    yield Shop()
    for name in [each for each in sys.modules if each.partition(".")[0] == "written_shop"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("head", "function"), list(itertools.product(HEADS, FUNCTIONS)), ids=lambda name: name
)
def test_strip_is_the_inverse_of_apply(shop, head, function):
    body = FUNCTIONS[function]
    if head == "windows":
        body = body.replace("\n", "\r\n")
    before = shop.write(HEADS[head] + body).orders.read_bytes()
    applied = shop.edit("applied")
    assert applied.count("order_sent") == 1
    ast.parse(applied.encode("utf-8", "surrogateescape"))
    assert shop.edit("applied") == applied
    kept = iter(shop.orders.read_bytes().splitlines())
    assert all(line in kept for line in before.splitlines() if b"sidelight" not in line)
    for _ in range(2):
        shop.edit("stripped")
        assert shop.orders.read_bytes() == before


OURS = "from sidelight import arg, emits\n"


@pytest.mark.parametrize(
    ("head", "imported"),
    [
        ("docstring", f'"""Orders."""\n\n{OURS}\n\n'),
        ("standard library", f"import os\n\n{OURS}\n\n"),
        ("one's own", f"import os\n\n{OURS}\nfrom written_shop import"),
        ("others", f"import attr\n{OURS}from zope import interface\n\n\n"),
        ("others before", f"from attr import define\n{OURS}\n\n"),
        ("relative", f"{OURS}\nfrom . import desk\n\n\n"),
        ("nothing", f"{OURS}\n\n@emits"),
        ("ours", "from sidelight import arg, emits, flush\n\n\n"),
        ("ours in lines", "import (\n    arg,\n    bind,\n    emits,\n    flush,\n)\n"),
        ("ours renamed", "from sidelight import emits as e, arg as a\n\ne, a\n@e("),
        ("a name that is taken", "import arg as sidelight_arg, emits as sidelight_em"),
        ("future", f"annotations\n\n{OURS}\n\n"),
    ],
)
def test_place_of_the_import(shop, head, imported):
    assert imported in shop.write(HEADS[head] + FUNCTIONS["plain"]).edit("applied")


def test_layout(shop):
    source = textwrap.dedent("""\
        from written_shop.desk import Desk


        class Packer:
            # Comes first.
            @staticmethod
            @other
            def pack(order, status=None):  # a comment
                return order

            def plain(self, desk: Desk): ...
        """)
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
        attributes.mode = "arg.status"
        attributes.code = "error.code"
        attributes.large = inf

        [[point]]
        function = "written_shop.orders:Packer.pack"
        start = "packing"
        mode = "awaited"
        """
    assert shop.write(source, points).edit("applied") == textwrap.dedent("""\
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
                attributes={"a.b": True, "mode": arg.status},
            )
            @other
            def pack(order, status=None):  # a comment
                return order

            def plain(self, desk: Desk): ...
        """)
    assert shop.edit("stripped") == source


def test_long_decorators_are_spread_over_lines(shop):
    (shop.toml.parent / "pyproject.toml").write_text("[tool.ruff]\nline-length = 60\n")
    cases = ", ".join(f'case_{n} = "quite_a_long_type_{n}"' for n in range(3))
    points = MAP + f'failure = {{ choose = "arg.order", cases = {{ {cases} }} }}\n'
    text = shop.write(FUNCTIONS["plain"], points).edit("applied")
    assert max(map(len, text.splitlines())) <= 60
    assert '        {\n            "case_0": "quite_a_long_type_0",\n            "case_1"' in text
    assert shop.edit("stripped") == FUNCTIONS["plain"]


@pytest.mark.parametrize(
    ("rest", "kept"),
    {
        "used": ("x = arg\n", "arg"),
        "annotations": ("def f(x: 'arg') -> \"emits\": ...\n", "arg, emits"),
        "all": ("__all__ = ['send', 'arg']\n", "arg"),
        "another decorator": ("@emits('another')\ndef f(): ...\n", "emits"),
        "prose": ('def f():\n    """Of arg and emits."""\n', ""),
        "variables": ("def f(arg):\n    emits = arg\n    return emits\n", ""),
        "inside": ("def f():\n    return [emits for _ in ()]\n", "emits"),
        "comment": ("# arg, emits\n", ""),
    }.values(),
)
def test_strip_keeps_imports_that_are_used_elsewhere(shop, rest, kept):
    decorator = '@emits("order_sent", artifact_id=arg.order)\n'
    source = f"{OURS}\n\n{decorator}def send(order): ...\n\n\n{rest}"
    imported = f"from sidelight import {kept}\n\n\n" if kept else ""
    text = shop.write(source).edit("stripped")
    assert text == f"{imported}def send(order): ...\n\n\n{rest}"


def test_strip_keeps_comments_and_other_decorators(shop):
    source = (
        "from sidelight import (  # ours\n    arg,\n    emits,\n)\n\n"
        '# Above.\n@other\n# Before it.\n@emits("order_sent", artifact_id=arg.order)\n# Below.\n'
        "def send(order): ...\n"
    )
    text = shop.write(source).edit("stripped")
    assert "@emits" not in text
    assert text.endswith("# Above.\n@other\n# Before it.\n# Below.\ndef send(order): ...\n")
    assert "# ours" in text  # removing the import would remove its comment


PLAIN = "def send(order): ..."
OTHER = "from sidelight import emits\n@emits('order_sent')\ndef send(order): ...\n"
SAME = "captures something else than the map; make them agree"


@pytest.mark.parametrize(
    ("change", "source", "problem"),
    [
        (
            ("send", "sent"),
            PLAIN,
            "orders:sent: it is not there; did you mean send?",
        ),
        (("orders:", "desk:"), "from .desk import send", "desk:send: it is not there"),
        (None, "from written_shop.desk import weigh as send", "defined as written_shop.desk:weigh"),
        (None, "class send: ...", "it is a class; name its methods"),
        (None, "send = print", "does not show what send is; leave it to sidelight.weave"),
        (None, "if 1:\n  def send(order): ...\nelse:\n  def send(order): ...", "more than once"),
        (("written_shop.orders:send", "shutil:copyfile"), "", "is not below this directory"),
        (("written_shop.orders:send", "zlib:crc32"), "", "zlib has no Python source"),
        (
            ('"arg.order"', '{ call = "written_shop.orders:weigh" }'),
            f"{PLAIN}\ndef weigh(order): ...",
            "written_shop.orders:weigh is defined below it; move it above the point",
        ),
        (None, OTHER, SAME),
    ],
    ids=range(10),
)
def test_points_that_cannot_be_written_are_named(shop, change, source, problem):
    shop.write(source, MAP.replace(*change) if change else MAP)
    (named,) = shop.problems()
    assert named.startswith("2: ")
    assert problem in named


def test_points_that_are_written_once(shop):
    shop.write(FUNCTIONS["plain"], MAP + MAP.replace("arg.order", "result"))
    (named,) = shop.problems()
    assert named.startswith("7: ")
    assert "another point of the map emits the same, which is not emitted twice; keep one" in named


def test_strip_leaves_decorators_that_state_something_else(shop):
    (named,) = shop.write(OTHER).problems("stripped")
    assert SAME in named


@pytest.mark.parametrize(
    "desk",
    ["from . import orders", "import written_shop.more", "from .more import x"],
    ids=["itself", "through a module", "through a name"],
)
def test_no_import_makes_a_circle(shop, desk):
    points = MAP + 'attributes = { n = { call = "written_shop.desk:weigh" } }\n'
    folder = shop.write("def send(order): ...\n", points).orders.parent
    (folder / "desk.py").write_text(f"{desk}\n\ndef weigh(order): ...\n")
    (folder / "more.py").write_text("from written_shop.orders import send as x\n")
    (named,) = shop.problems()
    assert "written_shop.desk imports written_shop.orders, which would import it" in named
    (folder / "more.py").write_text("def x(): import written_shop.orders\n")
    assert len(shop.problems()) == (desk == "from . import orders")


def test_names_that_a_class_binds(shop):
    source = "class Desk:\n    result = emits = 1\n\n    def send(self, order): ...\n"
    text = shop.write(source, MAP.replace("orders:send", "orders:Desk.send")).edit("applied")
    assert text.startswith("from sidelight import arg, emits as sidelight_emits\n")
    assert '    @sidelight_emits("order_sent", mode="scheduled", artifact_id=arg.order)\n' in text
    assert shop.edit("stripped") == source


def test_names_that_a_star_import_may_bind(shop):
    """The source does not show which names a module in C exports."""
    source = (
        "from _socket import *\nfrom written_shop.star import *\n\n\n"
        "def send(order):\n    raise error\n"
    )
    points = MAP + 'failure = "order_lost"\nattributes = { why = "error", what = "result" }\n'
    (shop.orders.parent / "star.py").write_text("result = 1\n")
    text = shop.write(source, points).edit("applied")
    for name in ("arg", "emits", "error", "result"):
        assert f"    {name} as sidelight_{name},\n" in text
    assert "why=sidelight_error" in text
    assert shop.edit("stripped") == source


def test_overloads(shop):
    source = (
        "from typing import overload\n\n\n@overload\ndef send(order: int): ...\n@overload\n"
        "def send(order: str): ...\ndef send(order):\n    return order\n"
    )
    assert (
        shop.write(source)
        .edit("applied")
        .endswith(
            '@emits("order_sent", mode="scheduled", artifact_id=arg.order)\n'
            "def send(order):\n    return order\n"
        )
    )
    assert shop.edit("stripped") == source


def test_a_file_is_replaced_in_one_step(shop, monkeypatch):
    shop.write(FUNCTIONS["plain"])
    shop.orders.chmod(0o640)
    shop.orders.with_name("orders_link.py").symlink_to(shop.orders)
    shop.edit("applied")
    assert shop.orders.stat().st_mode & 0o777 == 0o640
    (edit,) = CodeEdits(read_map(shop.toml)).stripped()
    assert "-@emits(" in edit.diff("orders.py")
    applied = shop.orders.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(MapError, match=r"orders\.py: No space left"):
            edit.write()
    assert shop.orders.read_bytes() == applied
    assert list(shop.orders.parent.glob(".*")) == []
    shop.orders.write_bytes(applied + b"# more\n")
    with pytest.raises(MapError, match="the file has changed since it was read; try again"):
        edit.write()


def test_written_decorators_emit(shop):
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
