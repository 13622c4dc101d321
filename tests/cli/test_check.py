"""`sidelight points --check`: one line for each difference, and exit code 1."""

import importlib
import json
import re
import sys
import textwrap
from pathlib import Path

import pytest
import yaml
from tests.docs.pages import ROOT
from tests.support.commands import apart, sidelight

CODE = {
    "shop/__init__.py": "",
    "shop/orders.py": """
        from __future__ import annotations
        from typing import TYPE_CHECKING
        import sidelight
        from sidelight import arg, emits
        if TYPE_CHECKING:
            from sqlalchemy.orm import Session

        class Desk:
            def receive(self, order, *, status): ...

        class Counter(Desk): ...

        class Strange(type("Base", (), {"receive": print})): ...

        def weigh(order): ...

        def send(session: Session, order, size=1):
            sidelight.emit("order_mailed")

        @emits("order_billed", artifact_id=arg.order)
        def bill(order): ...
    """,
    "shop/events.py": """
        from pydantic import BaseModel
        from sidelight import catalogue

        @catalogue.event("order_received")
        @catalogue.event("order_changed")
        @catalogue.event("order_sent")
        @catalogue.event("order_lost")
        @catalogue.event("order_mailed")
        @catalogue.event("order_billed")
        @catalogue.event("order_paid", emitted_by="bank:pay")
        class AnOrder(BaseModel): ...
    """,
    "sidelight.toml": """
        [[point]]
        function = "shop.orders:Counter.receive"
        success.choose = "arg.status"
        success.cases = { new = "order_received" }
        success.otherwise = "order_changed"
        artifact_id = "arg.order"

        [[point]]
        function = "shop.orders:send"
        success = "order_sent"
        failure = "order_lost"
        artifact_id = "arg.order"
        transaction = "arg.session"
        attributes = { size = "arg.size", weight = { call = "shop.orders:weigh" } }
    """,
}
MAP, ORDERS = "sidelight.toml", "shop/orders.py"
POINT = '[[point]]\nfunction = "shop.orders:send"'


def before_send(line):
    """A change that puts a further point before the one of `send`."""
    return (MAP, POINT, f"{line}\n{POINT}")


def factory(value):
    """The change that adds a function with a decorated method inside."""
    made = f"""
def make():
    class Till:
        @emits("order_billed", artifact_id={value})
        def ring(self, order): ...

"""
    return "\ndef weigh", f"{made}def weigh"


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """Writes the shop with texts replaced, and checks it; imports need a process of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def check(*changes, options=()):
        for path, source in CODE.items():
            text = textwrap.dedent(source)
            for changed, before, after in changes:
                if changed == path:
                    assert before in text
                    text = text.replace(before, after)
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_text(text)
        importlib.invalidate_caches()
        if "--import" in options:
            return apart("points", "--check", MAP, *options, cwd=tmp_path)
        return sidelight("points", "--check", MAP, *options)

    return check


def test_a_map_that_fits(shop):
    checked = shop()
    assert (checked.code, checked.out) == (0, ""), checked.out
    assert checked.err.strip() == "sidelight.toml: 2 points, and all of it fits"
    assert shop((ORDERS, *factory("arg.order")), options=["--import"]).code == 0


EXPECTED = """
[[expect]]
after = "order_billed"
one_of = {}
within = "1h"
"""


@pytest.mark.parametrize(
    ("ends", "told"),
    [
        ('["order_lost", "order_returned"]', "2 points, 1 expectation, and all of it fits"),
        ('["order_snet"]', "emit has the type order_snet; did you mean order_sent?"),
    ],
)
def test_an_expected_type_that_looks_misspelt_is_named(shop, ends, told):
    """One that occurs elsewhere, or nowhere yet, is none."""
    checked = shop(before_send(EXPECTED.format(ends)))
    assert (checked.code, told in checked.err) == (int("fits" not in told), True)


def test_an_expectation_that_no_code_meets_is_noted(shop):
    """Another program may emit what it waits for, so this is no difference."""
    checked = shop(before_send(EXPECTED.format('["order_flown"]')))
    assert (checked.code, checked.out) == (0, "")
    assert "order_billed → order_flown: no point, catalogue or emit has the type" in checked.err
    assert "no wait ends" in checked.err
    begins = EXPECTED.format('["order_lost"]').replace("order_billed", "zebra")
    assert "the type zebra; unless code that was not read does, no wait begins" in (
        " ".join(shop(before_send(begins)).err.split())
    )


TWICE = '[[point]]\nfunction = "shop.orders:send"\nsuccess = "order_sent"\n'
BILL = '[[point]]\nfunction = "shop.orders:bill"\nsuccess = "order_billed"\n'
WITHOUT_SUCCESS = (
    (MAP, 'success = "order_sent"\n', 'start = "order_sent"\n'),
    (MAP, 'transaction = "arg.session"\n', ""),
)
#: Changes, and the differences that they make; MAP:9 stands for the place of `send` in the map.
DIFFERENCES = {
    "function gone": (
        (ORDERS, "def send", "def dispatch"),
        "MAP:9: shop.orders:send: it is not there; name its successor",
    ),
    "function renamed": (
        (ORDERS, "def send", "def sent"),
        "MAP:9: shop.orders:send: it is not there; did you mean sent?",
    ),
    "module gone": (
        (MAP, "shop.orders:send", "shop.order:send"),
        "MAP:9: shop.order:send: there is no module shop.order; name its successor",
    ),
    "class gone": (
        (MAP, "Counter.receive", "Count.receive"),
        "MAP:2: shop.orders:Count.receive: it is not there; did you mean Counter?",
    ),
    "method gone": (
        (MAP, "Counter.receive", "Counter.receives"),
        "MAP:2: shop.orders:Counter.receives: it is not there; did you mean receive?",
    ),
    "a class": (
        (MAP, "Counter.receive", "Counter"),
        "MAP:2: shop.orders:Counter: shop.orders:Counter is a class; name its methods",
    ),
    "renamed arguments": (
        (ORDERS, "order, size=1", "parcel, sizes=1"),
        """MAP:9: shop.orders:send: it has no parameter order; it has session, parcel, sizes
        MAP:9: shop.orders:send: it has no parameter size; did you mean sizes?""",
    ),
    "renamed argument of a choice": (
        (ORDERS, "*, status", "*, state"),
        "MAP:2: shop.orders:Counter.receive: it has no parameter status; did you mean state?",
    ),
    "renamed transaction": (
        (ORDERS, "session: Session", "db: Session"),
        "MAP:9: shop.orders:send: it has no parameter session; it has db, order, size",
    ),
    "called function gone": (
        (ORDERS, "def weigh", "def weight"),
        """MAP:9: shop.orders:send: it calls shop.orders:weigh: it is not there; did you mean
        weight?""",
    ),
    "called function with another parameter": (
        (ORDERS, "def weigh(order)", "def weigh(parcel)"),
        "MAP:9: shop.orders:send: it has no parameter parcel; it has session, order, size",
    ),
    "unknown event type": (
        (MAP, '"order_lost"', '"order_lots"'),
        """MAP:9: shop.orders:send: order_lots is not in the catalogue; did you mean order_lost?
        shop/events.py:8: order_lost: nothing emits it; EMIT""",
    ),
    "emitted by a decorator only": (
        (ORDERS, "order_billed", "order_built"),
        """shop/orders.py:21: shop.orders:bill: order_built is not in the catalogue; did you mean
        order_billed?
        shop/events.py:10: order_billed: nothing emits it; EMIT""",
    ),
    "emitted by a decorator only, and less like a type that nothing emits": (
        (ORDERS, "order_billed", "order_given"),
        """shop/orders.py:21: shop.orders:bill: order_given is not in the catalogue; declare it
        shop/events.py:10: order_billed: nothing emits it; EMIT""",
    ),
    "like a type that another point emits": (
        (ORDERS, '@emits("order_billed"', '@emits("order_opened")\n@emits("order_billed"'),
        "shop/orders.py:21: shop.orders:bill: order_opened is not in the catalogue; declare it",
    ),
    "almost a type that another point emits": (
        (ORDERS, '@emits("order_billed"', '@emits("order_bileld")\n@emits("order_billed"'),
        """shop/orders.py:21: shop.orders:bill: order_bileld is not in the catalogue; did you mean
        order_billed?""",
    ),
    "emitted nowhere": (
        (ORDERS, 'sidelight.emit("order_mailed")', "..."),
        "shop/events.py:9: order_mailed: nothing emits it; EMIT",
    ),
    "scheduled without an event on success": (
        *WITHOUT_SUCCESS,
        """MAP:9: shop.orders:send: it is scheduled, and has no event on success; name one, or use
        mode = "awaited\"""",
    ),
    "awaited inside of a transaction": (
        (MAP, 'transaction = "arg.session"', 'mode = "awaited"'),
        """MAP:9: shop.orders:send: it is awaited inside of a transaction (session: Session), whose
        locks are held meanwhile; use mode = "scheduled\"""",
    ),
    "the same event twice": (
        before_send(f"{TWICE}\n{TWICE}"),
        """MAP:13: shop.orders:send: another point of the map emits the same, which is not emitted
        twice; keep one""",
    ),
    "a decorator in a factory": (
        (ORDERS, *factory("arg.order")),
        "",
    ),
    "a decorator in a factory, with an argument that is not there": (
        (ORDERS, *factory("arg.orde")),
        """shop/orders.py:18: shop.orders:make.<locals>.Till.ring: it has no parameter orde; did you
        mean order?""",
    ),
    "the same event with more values, which is woven as well": (before_send(TWICE), ""),
    "a decorator that captures something else": (
        before_send(BILL),
        """MAP:9: shop.orders:bill: its decorator says another artifact_id; see
        shop/orders.py:21""",
    ),
}


@pytest.mark.parametrize("case", DIFFERENCES.values(), ids=DIFFERENCES)
def test_each_difference_is_one_line(shop, case):
    *changes, text = case
    checked = shop(*changes)
    text = text.replace("EMIT", "emit it, or name the function that does: emitted_by=")
    assert checked.out.split() == text.replace("MAP:", f"{MAP}:").split()
    assert checked.code == bool(text)


REGISTRARS = """
import atexit, functools, functools as ft
import click, pytest
from celery import Celery, shared_task
from fastapi import FastAPI as Api
from .api import app
tasks = Celery()
local = Api()

@click.group()
def cli(): ...
@cli.group()
def sub(): ...
@functools.singledispatch
def show(value): ...
{decorators}
def f(order): ...
"""


@pytest.mark.parametrize(
    "decorator",
    [
        *(
            "app.get('/')",
            "local.post('/')",
            "cli.command()",
            "sub.command('x')",
            "click.command()",
        ),
        *("tasks.task", "tasks.task(bind=True)", "shared_task", "pytest.fixture()"),
        *("show.register", "show.register(int)", "atexit.register"),
    ],
)
def test_points_that_a_framework_calls_past(tmp_path, monkeypatch, decorator):
    """A framework calls the function that its decorator has seen, which a wrapper above is not."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    folder = tmp_path / "registering"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "api.py").write_text("from fastapi import FastAPI\napp = FastAPI()\n")

    def check(*decorators, points=""):
        lines = "\n".join(f"@{each}" for each in decorators)
        source = "from sidelight import emits\n" + REGISTRARS.format(decorators=lines)
        (folder / "orders.py").write_text(source)
        Path(MAP).write_text(points)
        importlib.invalidate_caches()
        return sidelight("points", "--check", MAP, "registering")

    emits = 'emits("sent")'
    refused = check(emits, "staticmethod", decorator)
    assert f"@emits stands above @{decorator}, which hands the bare function" in refused.out
    assert "put @emits below it" in refused.out
    listed = sidelight("points", "registering")
    assert (listed.code, f"@emits stands above @{decorator}" in listed.err) == (0, True)
    fits = check(decorator, emits)
    assert (fits.code, fits.out) == (0, "")

    point = '[[point]]\nfunction = "registering.orders:f"\nsuccess = "sent"\n'
    refused = check(decorator, points=point)
    assert refused.code == 1
    assert f"@{decorator} hands the bare function to a framework" in refused.out
    assert "write the decorator below it: sidelight apply" in refused.out
    assert sidelight("apply").code == 0
    applied = (folder / "orders.py").read_text()
    assert f'@{decorator}\n@emits("sent", mode="scheduled")\ndef f(' in applied
    fits = sidelight("points", "--check", MAP, "registering")
    assert (fits.code, fits.out) == (0, "")


def test_decorators_that_may_register_or_replace_a_function(shop):
    """Where the class of an object is not known, a remark names the decorator."""
    route = (ORDERS, "@emits(", "api = make()\n@emits(")
    decorators = (ORDERS, "artifact_id=arg.order)\n", "artifact_id=arg.order)\n@api.route('/')\n")
    checked = shop(route, decorators)
    assert checked.code == 0
    assert "shop.orders:bill: @emits stands above @api.route('/'), which may hand" in checked.err
    checked = shop((ORDERS, "def send(", "@api.limit\ndef send("))
    assert checked.code == 0
    assert "shop.orders:send is checked as defined; @api.limit may replace it" in checked.err
    wrapping = "def limit(f):\n    import functools\n    return functools.wraps(f)(f)\n@limit\n"
    assert "may replace it" not in shop((ORDERS, "def send(", f"{wrapping}def send(")).err


def test_the_check_sees_what_weaving_refuses(shop):
    decorated = (ORDERS, "def send", "@property\ndef send")
    assert f"{MAP}:9: shop.orders:send: it is a property; name the function" in shop(decorated).out
    replaced = (ORDERS, "def send", "import click\n@click.command()\ndef send")
    checked = shop(replaced, options=["--import"])
    assert checked.code == 1
    assert f"{MAP}:9: shop.orders:send: @click.command() hands the bare function" in checked.out
    unfit = (ORDERS, "def send", "@lambda f: 3\ndef send")
    checked = shop(unfit, before_send(TWICE), options=["--import"])
    assert checked.code == 1
    assert f"{MAP}:9: shop.orders:send: it cannot be called; decorate a function" in checked.out


def test_functions_that_the_source_does_not_show(shop):
    checked = shop((MAP, "Counter.receive", "Strange.receive"))
    assert checked.code == 0
    assert "shop.orders:Strange.receive is not checked: the source does not show" in checked.err
    crc = before_send('[[point]]\nfunction = "zlib:crc32"\nsuccess = "order_sent"\n')
    assert "zlib:crc32 is not checked: zlib has no Python source: --import" in shop(crc).err
    checked = shop(crc, options=["shop", "--import"])
    assert (checked.code, checked.out) == (0, "")


def test_imported_differences(shop):
    checked = shop((ORDERS, "order, size=1", "order, sizes=1"), options=["--import"])
    assert checked.code == 1
    assert "it has no parameter size; did you mean sizes?" in checked.out
    checked = shop((ORDERS, "def send", "def dispatch"), options=["--import"])
    assert re.search(r"shop\.orders:send: .*has no attribute 'send'", checked.out)


def test_differences_as_json(shop):
    assert json.loads(shop((ORDERS, "def send", "def sent"), options=["--json"]).out) == {
        "place": "sidelight.toml:9",
        "what": "shop.orders:send",
        "problem": "it is not there",
        "remedy": "did you mean sent?",
    }


def test_a_map_that_cannot_be_read(shop):
    checked = shop((MAP, 'failure = "order_lost"', 'mode = "later"'))
    assert checked.code == 1
    assert "sidelight.toml:12: mode" in checked.err


def test_voice_notes(tmp_path):
    path = tmp_path / "sidelight.toml"
    path.write_text(sidelight("points", "voice_notes", "--toml").out)
    checked = sidelight("points", "--check", str(path))
    assert (checked.code, checked.out) == (0, ""), checked.out


def test_the_hook_is_a_command():
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    command = [*hook["entry"].split()[1:], *hook["args"]]
    assert command == ["points", "--check", "sidelight.toml"]
    assert re.search(hook["files"], "src/shop/orders.py")
    assert re.search(hook["files"], "sidelight.toml")
    assert not re.search(hook["files"], "README.md")
    checked = sidelight(*command[:-1], str(Path("nowhere.toml")))
    assert checked.code == 1
    assert "nowhere.toml: No such file or directory" in checked.err
