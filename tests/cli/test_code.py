"""`sidelight points` and `sidelight catalogue`: what some code emits, and what it declares."""

import importlib
import json
import re
import textwrap

import pytest
from tests.support.commands import apart, sidelight

import voice_notes.events

# -- points ----------------------------------------------------------------------------------

SHOP = {
    "__init__.py": "",
    "__main__.py": "raise SystemExit('it was run')",
    "orders.py": """
        from sidelight import arg, choose, emits, result
        print("a module that prints")

        @emits("order_received", artifact_id=result.id, shop=arg.shop, n=lambda order: len(order))
        def receive(order, shop): ...

        @emits(
            choose(arg.status, {"done": "order_done"}, otherwise="order_changed"),
            artifact_id=arg.order,
        )
        def update(order, status): ...
    """,
    "deep/__init__.py": "",
    "deep/packing.py": """
        from sidelight import arg, emits

        class Packer:
            @emits(start="packing_started", failure="packing_failed", mode="awaited")
            async def pack(self, order): ...
    """,
}


@pytest.fixture
def shop(tmp_path):
    for name, source in SHOP.items():
        path = tmp_path / "shop" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(source))
    return tmp_path


def points(directory, *arguments):
    return apart("points", *arguments, cwd=directory, COLUMNS="90")


def test_the_map_of_a_package(shop):
    said = points(shop, "shop")
    assert said.code == 0, said.err
    assert re.search(r"receive +shop/orders\.py:\d", said.out)
    assert "scheduled  ✓ order_done | order_changed" in said.out
    assert "awaited  ▸ packing_started  ✗ packing_failed" in said.out
    assert "Packer.pack" in said.out
    assert "artifact_id = result.id" in said.out
    assert "n = lambda order: len(order)" in said.out
    assert "a module that prints" not in said.out + said.err
    said = points(shop, "shop", "--import")
    assert "Packer.pack" in said.out
    assert "a module that prints" not in said.out


def test_the_map_for_programs(shop):
    said = points(shop, "shop", "--json")
    update = next(each for each in said.json if each["point"] == "shop.orders:update")
    assert update == {
        "point": "shop.orders:update",
        "file": str(shop / "shop" / "orders.py"),
        "line": update["line"],
        "kind": "function",
        "span": True,
        "declarations": [
            {
                "mode": "scheduled",
                "start": None,
                "success": ["order_done", "order_changed"],
                "failure": None,
                "fields": {"artifact_id": "arg.order"},
                "transaction": None,
                "after_commit": None,
                "unsaid": {},
            }
        ],
    }
    assert len(said.json) == 3


def test_what_cannot_be_imported_is_named_beside_the_rest(shop):
    (shop / "shop" / "broken.py").write_text("import nowhere_to_be_found")
    (shop / "shop" / "unread.py").write_text("import sidelight; def f(:")
    said = points(shop, "shop", "missing")
    assert said.code == 1
    assert "cannot read shop.unread: line 1: " in said.err
    assert "there is no module missing; name it as in an import statement" in said.err
    assert "Packer.pack" in said.out
    said = points(shop, "shop", "missing", "--import")
    assert said.code == 1
    assert "cannot import shop.broken: ModuleNotFoundError" in said.err
    assert "cannot import missing: there is no module missing; name it as in an import" in said.err
    assert "Packer.pack" in said.out


def test_the_map_of_nothing(shop):
    assert "name a module" in sidelight("points").err
    (shop / "plain.py").write_text("x = 1")
    said = points(shop, "plain")
    assert said.code == 0
    assert "no function there is decorated" in said.err
    assert "is a file; name the module" in sidelight("points", "shop/orders.py").err


# -- the catalogue ---------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _declared():
    """What other tests may have forgotten."""
    importlib.reload(voice_notes.events)


def test_catalogue():
    answer = sidelight("catalogue", "voice_notes", columns=200)
    assert answer.code == 0
    assert "artifact_received" in answer.words
    assert "A voice note has arrived." in answer.words
    assert "seconds?: number | null" in answer.words
    assert "voice_notes.artifacts:create_artifact" in answer.out
    assert "17 event types" in answer.err
    assert "nobody" not in answer.out


def test_catalogue_for_programs():
    answer = sidelight("catalogue", "voice_notes", "--json")
    (failed,) = (each for each in answer.json if each["type"] == "artifact_failed")
    assert failed["emitted_by"] == ["voice_notes.artifacts:update_artifact_status"]
    assert failed["schema"]["required"] == ["artifact_id", "status"]
    schema = json.loads(sidelight("catalogue", "voice_notes", "--json-schema").out)
    assert schema["$defs"]["artifact_failed"]["required"] == ["artifact_id", "status"]


def test_catalogue_as_a_page():
    page = sidelight("catalogue", "voice_notes", "--markdown").out
    assert page.startswith("# Events\n\n## `artifact_completed`\n")
    assert "| `size` | integer | Its size in bytes. |" in page
    assert '| `kind` | "crm_note" \\| "follow_up_mail" |  |' in page
    assert "Emitted by `voice_notes.artifacts:create_artifact`." in page


def test_a_catalogue_of_what_cannot_be_imported():
    assert sidelight("catalogue").code == 2
    answer = sidelight("catalogue", "no_such_module")
    assert answer.code == 1
    assert "cannot import no_such_module" in answer.err
