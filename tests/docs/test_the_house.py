"""The page for contributors shows the house as it is: picture, rooms, files and names."""

from __future__ import annotations

import ast
import re

from tests.docs.house import PAGE, contracts, drawn, floors, is_room
from tests.docs.pages import ROOT, Page, names

SOURCE = ROOT / "src" / "sidelight"
TEXT = PAGE.read_text(encoding="utf-8")


def test_the_picture_is_the_contract():
    assert drawn(TEXT) == TEXT, "run `make house`"


def test_every_room_and_file_of_the_contract_is_described():
    described = {name.strip("/") for name in names(Page(PAGE).sections("(The rooms)")["The rooms"])}
    stem = {name.removesuffix(".py") for name in described}
    assert stem == {name for floor in floors() for name in floor}
    assert all(is_room(name) != name.endswith(".py") for name in described)


def test_every_room_has_a_contract_for_its_face():
    protected = {
        module.removeprefix("sidelight.").removesuffix(".*")
        for contract in contracts()
        if contract["type"] == "protected"
        for module in contract["protected_modules"]
    }
    assert protected == {name for floor in floors() for name in floor if is_room(name)}


def test_every_file_and_name_that_the_page_gives_exists():
    """`room/file.py` is a file, and a name that follows it (``: `name```) is defined there."""
    files = re.split(r"`((?:tests/|docs/|benchmarks/)?[\w/]+\.(?:py|md|toml))`", Page(PAGE).prose)
    assert len(files) > 40
    for path, following in zip(files[1::2], files[2::2], strict=True):
        at = next((base / path for base in (SOURCE, ROOT) if (base / path).exists()), None)
        assert at is not None, path
        for name in re.findall(r"^: `(\w+)`", following):
            assert name in defined_in(at), f"{path}: {name}"


def defined_in(path):
    """The names of the classes, functions and constants of a module, methods included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.AnnAssign | ast.Assign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found
