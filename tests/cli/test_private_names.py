"""Points in classes with private names: one spelling is understood by all that reads a map."""

import importlib
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tests.support.commands import apart, sidelight

from sidelight import Store
from sidelight.maps.reader import read_map
from sidelight.maps.weaving import weave, weaving_errors
from sidelight.points import POINTS

#: By event type: the code, a call, the path as the source spells it, and as Python stores it.
KINDS = {
    "method": (
        """
        class Desk:
            EMITS
            def __book(self): return 1
            def book(self): return self.__book()
        """,
        "Desk().book()",
        "Desk.__book",
        "Desk._Desk__book",
    ),
    "nested": (
        """
        class Hall:
            class Desk:
                EMITS
                def __book(self): return 1
                def book(self): return self.__book()
        """,
        "Hall.Desk().book()",
        "Hall.Desk.__book",
        "Hall.Desk._Desk__book",
    ),
    "private_class": (
        """
        class Lobby:
            class __Desk:
                EMITS
                def book(self): return 1
            def book(self): return self.__Desk().book()
        """,
        "Lobby().book()",
        "Lobby.__Desk.book",
        "Lobby._Lobby__Desk.book",
    ),
    "both_private": (
        """
        class Attic:
            class __Desk:
                EMITS
                def __book(self): return 1
                def book(self): return self.__book()
            def book(self): return self.__Desk().book()
        """,
        "Attic().book()",
        "Attic.__Desk.__book",
        "Attic._Attic__Desk._Desk__book",
    ),
    "leading": (
        """
        class _Leading:
            EMITS
            def __book(self): return 1
            def book(self): return self.__book()
        """,
        "_Leading().book()",
        "_Leading.__book",
        "_Leading._Leading__book",
    ),
    "two_leading": (
        """
        class __Two:
            EMITS
            def __book(self): return 1
            def book(self): return self.__book()
        """,
        "__Two().book()",
        "__Two.__book",
        "__Two._Two__book",
    ),
    "underscores": (
        """
        class __:
            EMITS
            def __book(self): return 1
            def book(self): return self.__book()
        """,
        "__().book()",
        "__.__book",
        "__.__book",
    ),
    "inherited": (
        """
        class Base:
            EMITS
            def __book(self): return 1
            def book(self): return self.__book()
        class Child(Base): ...
        """,
        "Child().book()",
        "Base.__book",
        "Base._Base__book",
    ),
    "overridden": (
        """
        class Parent:
            def __book(self): return 1
            def book(self): return self.__book()
        class Heir(Parent):
            EMITS
            def __book(self): return 2
            def hire(self): return self.book() + self.__book()
        """,
        "Heir().hire()",
        "Heir.__book",
        "Heir._Heir__book",
    ),
    "renamed": (
        """
        class Renamed:
            EMITS
            def __book(self): return 1
            def book(self): return self.__book()
        Other = Renamed
        """,
        "Other().book()",
        "Renamed.__book",
        "Renamed._Renamed__book",
    ),
    "static": (
        """
        class Static:
            @staticmethod
            EMITS
            def __book(): return 1
            def book(self): return self.__book()
        """,
        "Static().book()",
        "Static.__book",
        "Static._Static__book",
    ),
    "of_the_class": (
        """
        class OfClass:
            @classmethod
            EMITS
            def __book(cls): return 1
            def book(self): return self.__book()
        """,
        "OfClass().book()",
        "OfClass.__book",
        "OfClass._OfClass__book",
    ),
    "coroutine": (
        """
        class Waits:
            EMITS
            async def __book(self): return 1
            def book(self): return asyncio.run(self.__book())
        """,
        "Waits().book()",
        "Waits.__book",
        "Waits._Waits__book",
    ),
    "generator": (
        """
        class Yields:
            EMITS
            def __book(self): yield 1
            def book(self): return list(self.__book())
        """,
        "Yields().book()",
        "Yields.__book",
        "Yields._Yields__book",
    ),
    "special": (
        """
        class Special:
            EMITS
            def __call__(self): return 1
        """,
        "Special()()",
        "Special.__call__",
        "Special.__call__",
    ),
    "spelt_out": (
        """
        class SpeltOut:
            EMITS
            def _SpeltOut__book(self): return 1
            def book(self): return self.__book()
        """,
        "SpeltOut().book()",
        "SpeltOut.__book",
        "SpeltOut._SpeltOut__book",
    ),
    "values": (
        """
        class Listed:
            def __of(it): return 3
        class Prices:
            @emits("values", artifact_id=arg.__item, price=Listed._Listed__of, size=arg.it.__n)
            def __book(self, __item, it): return __item
            def book(self): return self.__book("pen", Prices())
            __n = 1
        """,
        "Prices().book()",
        "Prices.__book",
        "Prices._Prices__book",
    ),
}
#: A property is an object that a map refuses to wrap: its decorator stands in the code.
PROPERTY = """
class Held:
    @property
    @emits("held")
    def __book(self): return 1
    def book(self): return self.__book
"""
UNDER_THE_MAP = ["-m", "sidelight", "run", "--map", "sidelight.toml", sys.executable]
HEAD = "import asyncio\nfrom sidelight import arg, emits\n\n"


def code(*, decorated):
    """The module with a class of each kind."""
    text = HEAD if decorated else HEAD.replace("from sidelight import arg, emits\n", "")
    for name, (source, *_) in KINDS.items():
        lines = textwrap.dedent(source).replace("EMITS", f'@emits("{name}", mode="scheduled")')
        text += lines if decorated else re.sub(r" *@emits\(.*\)\n", "", lines)
    return text


def by_path(text, column):
    """A map with its paths in the spelling of a column of `KINDS`."""
    for *_, source, stored in KINDS.values():
        text = text.replace(f'"shop:{source}"', f'"shop:{(source, stored)[column]}"')
    return text


@pytest.fixture
def shop(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    shop = tmp_path / "shop.py"
    shop.write_text(code(decorated=True))
    yield shop
    sys.modules.pop("shop", None)


def emitted(tmp_path, *command):
    """The event types of a program that makes every call, and its events on values."""
    calls = "".join(f"shop.{call}\n" for _, call, *_ in KINDS.values())
    (tmp_path / "app.py").write_text(f"import shop, sidelight\n{calls}assert sidelight.flush(30)\n")
    store = tmp_path / f"{len(list(tmp_path.glob('*.db')))}.db"
    done = subprocess.run(
        [sys.executable, *command, "app.py"],
        env={**os.environ, "SIDELIGHT_STORE": f"sqlite:///{store}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    with Store(f"sqlite:///{store}") as opened:
        events = list(opened.events())
    valued = [each for each in events if each.type == "values"]
    assert [(each.artifact_id, each.attributes) for each in valued] == [
        ("pen", {"price": 3, "size": 1})
    ]
    return sorted(each.type for each in events)


@pytest.mark.parametrize("column", [0, 1], ids=["as spelt", "as stored"])
def test_each_spelling_is_accepted_by_all(shop, tmp_path, column):
    printed = sidelight("points", "shop", "--toml")
    assert (printed.code, printed.err) == (0, ""), printed.err
    assert printed.out == apart("points", "shop", "--toml", "--import", cwd=tmp_path).out
    assert printed.out.count("[[point]]") == len(KINDS)
    Path("sidelight.toml").write_text(by_path(printed.out, column))
    every = sorted(KINDS)

    def fits():
        checked = sidelight("points", "--check", "sidelight.toml")
        assert (checked.code, checked.out) == (0, "")
        checked = apart("points", "--check", "sidelight.toml", "--import", cwd=tmp_path)
        assert (checked.code, checked.out) == (0, ""), checked.err

    fits()
    assert emitted(tmp_path, *UNDER_THE_MAP) == every

    stripped = sidelight("strip")
    assert (stripped.code, stripped.err) == (0, ""), stripped.err
    assert "@emits" not in shop.read_text()
    fits()
    assert emitted(tmp_path, *UNDER_THE_MAP) == every

    applied = sidelight("apply")
    assert (applied.code, applied.err) == (0, ""), applied.err
    assert shop.read_text().count("@emits") == len(KINDS)
    fits()
    assert emitted(tmp_path) == every
    assert sidelight("apply").err == "there is nothing to change\n"


@pytest.mark.parametrize("column", [0, 1], ids=["as spelt", "as stored"])
def test_woven_and_taken_out(shop, column):
    paths = [f"shop:{names[column]}" for _, _, *names in KINDS.values()]
    shop.write_text(code(decorated=False))
    text = "".join(f'[[point]]\nfunction = "{each}"\nsuccess = "x"\n' for each in paths)
    Path("sidelight.toml").write_text(text)
    before = len(POINTS)
    imported = importlib.import_module("shop")

    held = vars(imported.Desk)["_Desk__book"]
    with weave(read_map("sidelight.toml")) as weaving:
        assert list(weaving.woven) == paths
        assert vars(imported.Desk)["_Desk__book"] is not held
        with weave(read_map("sidelight.toml")) as again:  # it emits the same already
            assert again._changes == []
    assert vars(imported.Desk)["_Desk__book"] is held
    assert len(POINTS) == before


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("Desk.__bok", "__book"),
        ("Hall.Desk.__bok", "__book"),
        ("Lobby.__Dsk.book", "__Desk"),
        ("Lobby._Lobby__Dsk.book", "__Desk"),
        ("Child.__book", "_Base__book"),
        ("_Leading.__bok", "__book"),
    ],
)
def test_a_name_that_is_not_there(shop, tmp_path, path, meant):
    """What is meant is spelt as a map can have it."""

    def errors(name):
        Path("sidelight.toml").write_text(f'[[point]]\nfunction = "shop:{name}"\nsuccess = "new"\n')
        checked = sidelight("points", "--check", "sidelight.toml")
        return checked.out, [str(error) for _, error in weaving_errors(read_map("sidelight.toml"))]

    importlib.import_module("shop")
    checked, [refused] = errors(path)
    assert f"it is not there; did you mean {meant}?" in checked
    assert refused.endswith(f"is not there; did you mean {meant}?")
    imported = apart("points", "--check", "sidelight.toml", "--import", cwd=tmp_path)
    assert imported.code == 1
    assert errors(right(path, meant)) == ("", [])


def right(path, meant):
    """The path with what is meant in the place of the private name that is not there."""
    return re.sub(r"(?<=\.)_(_|Lobby__)\w+", meant, path, count=1)


def test_a_private_property(shop, tmp_path):
    """The point in the code is listed, and a map that repeats it is no more than a repetition."""
    shop.write_text(HEAD + PROPERTY)
    Path("sidelight.toml").write_text(sidelight("points", "shop", "--toml").out)
    for spelling in ("__book", "_Held__book"):
        text = Path("sidelight.toml").read_text().replace("__book", spelling)
        Path("stored.toml").write_text(text)
        for options in ([], ["--import"]):
            checked = apart("points", "--check", "stored.toml", *options, cwd=tmp_path)
            assert (checked.code, checked.out) == (0, ""), checked.out
    for command in ("apply", "strip"):
        assert "it is a property" in sidelight(command).err


def test_values_outside_of_their_class(shop, tmp_path):
    """A decorator outside of a class calls a private function as Python stores it."""
    shop.write_text(
        "class Desk:\n    @staticmethod\n    def __price(item): return 3\n\n"
        "def book(item): return item\n\n"
        "class Till:\n    def __book(self, item): return item\n"
    )
    point = '[[point]]\nfunction = "shop:{}"\nsuccess = "new"\n'
    call = 'attributes.price = {{ call = "shop:Desk.{}" }}\n'
    for spelling in ("__price", "_Desk__price"):
        text = "".join((point + call).format(path, spelling) for path in ("book", "Till.__book"))
        Path("sidelight.toml").write_text(text)
        bare = shop.read_text()
        for options in ([], ["--import"]):
            checked = apart("points", "--check", "sidelight.toml", *options, cwd=tmp_path)
            assert (checked.code, checked.out) == (0, ""), checked.out
        assert sidelight("apply").code == 0
        assert shop.read_text().count("price=Desk._Desk__price") == 2
        printed = apart("points", "shop", "--toml", "--import", cwd=tmp_path).out
        assert printed == sidelight("points", "shop", "--toml").out
        assert printed.count('call = "shop:Desk.__price"') == 2
        assert sidelight("strip").code == 0
        assert shop.read_text() == bare


@pytest.mark.parametrize("name", ["price", "__price"])
def test_a_value_of_a_class_that_is_not_complete(shop, name):
    """`apply` refuses a decorator that would end the import with a NameError."""
    shop.write_text(
        f"class Desk:\n    def {name}(item): return 3\n\n    def book(self, item): ...\n"
    )
    bare = shop.read_text()
    text = '[[point]]\nfunction = "shop:Desk.book"\nsuccess = "new"\n'
    Path("sidelight.toml").write_text(f'{text}attributes.price = {{ call = "shop:Desk.{name}" }}\n')
    applied = sidelight("apply")
    assert applied.code == 1
    assert f"shop:Desk.{name} cannot be named before its class is complete" in applied.err
    assert shop.read_text() == bare
