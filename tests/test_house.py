"""The shape of the house: floors and faces by contract, modules of one idea, few entries."""

import ast
import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sidelight
from sidelight.settings import settle

ROOT = Path(sidelight.__file__).parent
MODULES = [
    path for path in sorted(ROOT.rglob("*.py")) if path.name not in {"__init__.py", "__main__.py"}
]
#: Public faces, and the module that Python itself names.
SMALL = {"outbox.py", "version.py", "sitecustomize.py"}
ROOMS = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))


def test_the_import_contract_holds():
    beside = Path(sys.executable).with_name("lint-imports")
    command = str(beside) if beside.exists() else shutil.which("lint-imports")
    if command is None:
        pytest.skip("import-linter is not installed: pip install 'sidelight[lint]'")
    ran = subprocess.run(
        [command, "--no-cache"], cwd=ROOT.parent.parent, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_has_40_to_400_lines(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert (0 if path.name in SMALL else 40) <= lines <= 400


def test_the_package_has_at_most_24_entries():
    entries = [path.name for path in ROOT.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= 24, sorted(entries)


@pytest.mark.parametrize("name", ["sidelight", *(f"sidelight.{room}" for room in ROOMS)])
def test_a_face_states_its_contract_and_is_sorted_and_whole(name):
    face = importlib.import_module(name)
    assert ast.get_docstring(ast.parse(Path(face.__file__).read_text(encoding="utf-8")))
    assert face.__all__ == sorted(face.__all__, key=_as_ruff_sorts)
    for public in face.__all__:
        assert getattr(face, public) is not None


def test_dir_shows_what_is_public():
    modules = {"exceptions", "otel", "outbox", "testing"}
    assert {*sidelight.__all__} <= {*dir(sidelight)} <= {*sidelight.__all__, *modules}
    assert "exceptions" in dir(sidelight)


def _as_ruff_sorts(name):
    """Constants first, then classes, then the rest."""
    bare = name.lstrip("_")
    return 0 if bare.isupper() else 1 if bare[:1].isupper() else 2, name


def test_the_suite_leaves_nothing_in_the_users_state_directory(tmp_path_factory):
    """A process that names no store, here and in a child, writes below the tests' directory."""
    asked = (
        "from sidelight.settings import settle; s = settle(); print(s.spool, s.store, sep='\\n')"
    )
    child = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=True
    )
    base = tmp_path_factory.getbasetemp()
    for place in (*child.stdout.splitlines(), str(settle().spool), f"{settle().store}"):
        assert Path(place.removeprefix("sqlite:///")).is_relative_to(base)
