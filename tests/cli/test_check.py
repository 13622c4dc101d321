"""`sidelight points --check`: one line for each thing that does not fit, and exit code 1."""

import importlib
import json
import re
import sys
import textwrap
from pathlib import Path

import pytest
import yaml
from tests.docs.pages import ROOT
from tests.support.commands import end, sidelight, spawn

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
MAP, ORDERS, EVENTS = "sidelight.toml", "shop/orders.py", "shop/events.py"


SEND = '[[point]]\nfunction = "shop.orders:send"'


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """Writes the shop, with texts replaced, and checks it; imports are a process's own."""
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
            return end(spawn("points", "--check", MAP, *options, cwd=tmp_path))
        return sidelight("points", "--check", MAP, *options)

    return check


def test_a_map_that_fits(shop):
    said = shop()
    assert (said.code, said.out) == (0, ""), said.out
    assert said.err.strip() == "sidelight.toml: 2 points, and all of it fits"
    assert shop(options=["--import"]).code == 0


DIFFERENCES = {
    "function gone": (
        (ORDERS, "def send", "def dispatch"),
        ["sidelight.toml:9: shop.orders:send: it is not there; see where it has gone"],
    ),
    "function renamed": (
        (ORDERS, "def send", "def sent"),
        ["sidelight.toml:9: shop.orders:send: it is not there; did you mean sent?"],
    ),
    "module gone": (
        (MAP, "shop.orders:send", "shop.order:send"),
        ["sidelight.toml:9: shop.order:send: there is no module shop.order; see where it has gone"],
    ),
    "class gone": (
        (MAP, "Counter.receive", "Count.receive"),
        ["sidelight.toml:2: shop.orders:Count.receive: it is not there; did you mean Counter?"],
    ),
    "method gone": (
        (MAP, "Counter.receive", "Counter.receives"),
        ["sidelight.toml:2: shop.orders:Counter.receives: it is not there; did you mean receive?"],
    ),
    "a class": (
        (MAP, "Counter.receive", "Counter"),
        ["sidelight.toml:2: shop.orders:Counter: shop.orders:Counter is a class; name its methods"],
    ),
    "renamed arguments": (
        (ORDERS, "order, size=1", "parcel, sizes=1"),
        [
            (
                "sidelight.toml:9: shop.orders:send: it has no parameter order; it has session,"
                " parcel, sizes"
            ),
            "sidelight.toml:9: shop.orders:send: it has no parameter size; did you mean sizes?",
        ],
    ),
    "renamed argument of a choice": (
        (ORDERS, "*, status", "*, state"),
        [
            (
                "sidelight.toml:2: shop.orders:Counter.receive: it has no parameter status; did you"
                " mean state?"
            ),
        ],
    ),
    "renamed transaction": (
        (ORDERS, "session: Session", "db: Session"),
        ["sidelight.toml:9: shop.orders:send: it has no parameter session; it has db, order, size"],
    ),
    "called function gone": (
        (ORDERS, "def weigh", "def weight"),
        [
            (
                "sidelight.toml:9: shop.orders:send: it calls shop.orders:weigh: it is not there;"
                " did you mean weight?"
            ),
        ],
    ),
    "called function wants something else": (
        (ORDERS, "def weigh(order)", "def weigh(parcel)"),
        [
            (
                "sidelight.toml:9: shop.orders:send: it has no parameter parcel; it has session,"
                " order, size"
            ),
        ],
    ),
    "unknown event type": (
        (MAP, '"order_lost"', '"order_lots"'),
        [
            (
                "sidelight.toml:9: shop.orders:send: order_lots is not in the catalogue;"
                " did you mean order_lost?"
            ),
            "shop/events.py:8: order_lost: nothing emits it; emit it, or say who does: emitted_by=",
        ],
    ),
    "emitted by a decorator only": (
        (ORDERS, "order_billed", "order_built"),
        [
            (
                "shop/orders.py:21: shop.orders:bill: order_built is not in the catalogue;"
                " did you mean order_billed?"
            ),
            (
                "shop/events.py:10: order_billed: nothing emits it; emit it, or say who does:"
                " emitted_by="
            ),
        ],
    ),
    "emitted nowhere": (
        (ORDERS, 'sidelight.emit("order_mailed")', "..."),
        ["shop/events.py:9: order_mailed: nothing emits it; emit it, or say who does: emitted_by="],
    ),
}


@pytest.mark.parametrize(("change", "lines"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_each_difference_is_one_line(shop, change, lines):
    said = shop(change)
    assert said.code == 1
    assert said.out.splitlines() == lines


def test_scheduled_without_success(shop):
    said = shop(
        (MAP, 'success = "order_sent"\n', 'start = "order_sent"\n'),
        (MAP, 'transaction = "arg.session"\n', ""),
    )
    assert said.code == 1
    assert said.out == (
        "sidelight.toml:9: shop.orders:send: it is scheduled, and has no event on success; name"
        ' one, or use mode = "awaited"\n'
    )


def test_awaited_inside_of_a_transaction(shop):
    said = shop((MAP, 'transaction = "arg.session"', 'mode = "awaited"'))
    assert said.code == 1
    assert said.out == (
        "sidelight.toml:9: shop.orders:send: it is awaited inside of a transaction (session:"
        ' Session), whose locks are held meanwhile; use mode = "scheduled"\n'
    )


def test_the_same_event_twice(shop):
    line = '[[point]]\nfunction = "shop.orders:send"\nsuccess = "order_sent"\n'
    said = shop((MAP, SEND, f"{line}\n{SEND}"))
    assert said.code == 0  # the one that says more comes last, and is woven as well
    said = shop((MAP, SEND, f"{line}\n{line}\n{SEND}"))
    assert said.out == (
        "sidelight.toml:13: shop.orders:send: another point of the map emits the same, which is"
        " not emitted twice; keep one\n"
    )


def test_map_and_decorator_contradict(shop):
    line = '[[point]]\nfunction = "shop.orders:bill"\nsuccess = "order_billed"\n'
    said = shop((MAP, SEND, f"{line}\n{SEND}"))
    assert said.out == (
        "sidelight.toml:9: shop.orders:bill: its decorator says another artifact_id; see"
        " shop/orders.py:21\n"
    )


def test_what_the_source_does_not_show(shop):
    change = (MAP, "Counter.receive", "Strange.receive")
    said = shop(change)
    assert said.code == 0
    assert "shop.orders:Strange.receive is not checked: the source does not show" in said.err
    line = '[[point]]\nfunction = "zlib:crc32"\nsuccess = "order_sent"\n'
    crc = (MAP, SEND, f"{line}\n{SEND}")
    assert "zlib:crc32 is not checked: zlib has no Python source: --import" in shop(crc).err
    said = shop(crc, options=["shop", "--import"])
    assert (said.code, said.out) == (0, "")


def test_imported_differences(shop):
    said = shop((ORDERS, "order, size=1", "order, sizes=1"), options=["--import"])
    assert said.code == 1
    assert "it has no parameter size; did you mean sizes?" in said.out
    said = shop((ORDERS, "def send", "def dispatch"), options=["--import"])
    assert re.search(r"shop\.orders:send: .*has no attribute 'send'", said.out)


def test_for_programs(shop):
    said = shop((ORDERS, "def send", "def sent"), options=["--json"])
    assert json.loads(said.out) == {
        "place": "sidelight.toml:9",
        "what": "shop.orders:send",
        "problem": "it is not there",
        "remedy": "did you mean sent?",
    }


def test_a_map_that_cannot_be_read(shop):
    said = shop((MAP, 'failure = "order_lost"', 'mode = "later"'))
    assert said.code == 1
    assert "sidelight.toml:12: mode" in said.err


def test_voice_notes(tmp_path):
    path = tmp_path / "sidelight.toml"
    path.write_text(sidelight("points", "voice_notes", "--toml").out)
    said = sidelight("points", "--check", str(path))
    assert (said.code, said.out) == (0, ""), said.out


def test_the_hook_is_a_command():
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    command = [*hook["entry"].split()[1:], *hook["args"]]
    assert command == ["points", "--check", "sidelight.toml"]
    assert re.search(hook["files"], "src/shop/orders.py")
    assert re.search(hook["files"], "sidelight.toml")
    assert not re.search(hook["files"], "README.md")
    said = sidelight(*command[:-1], str(Path("nowhere.toml")))
    assert said.code == 1
    assert "nowhere.toml: No such file or directory" in said.err
