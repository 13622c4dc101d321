"""Points written into files of the standard library, and taken out without a changed byte."""

import ast
import importlib
import random
import sys
from pathlib import Path

import pytest

from sidelight.maps.codemod.edits import CodeEdits
from sidelight.maps.reader import read_map

LIBRARY = Path(ast.__file__).parent
#: Functions that a map may name, but that no decorator can be written to.
REFUSED = ("is a property", "defined more than once", "the source does not show")


def functions_of(tree):
    """The functions and methods of a file whose names occur once."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    names = [node.name for node in tree.body if isinstance(node, functions)]
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            inside = [inner.name for inner in node.body if isinstance(inner, functions)]
            names += [f"{node.name}.{name}" for name in inside]
    return [name for name in names if names.count(name) == 1]


def map_of(module, functions):
    return "".join(
        f"""
        [[point]]
        function = "{module}:{function}"
        success = "done_{index}"
        failure = "failed_{index}"
        artifact_id = "result.id"
        attributes = {{ why = "error.args[0]", n = {{ call = "shutil:copyfile" }} }}
        """
        for index, function in enumerate(functions)
    )


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "borrowed"
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return folder


def test_strip_is_the_inverse_of_apply(package, request):
    draw = random.Random(2026)
    files = sorted(path for path in LIBRARY.glob("*.py") if path.stat().st_size < 60_000)
    if not request.config.getoption("--full"):
        files = draw.sample(files, 4)
    written = 0
    for number, path in enumerate(files):
        data = path.read_bytes()
        known = functions_of(ast.parse(data))
        chosen = draw.sample(known, min(len(known), 3))
        copy = package / f"m{number}.py"
        copy.write_bytes(data)
        importlib.invalidate_caches()
        Path("sidelight.toml").write_text(map_of(f"borrowed.{copy.stem}", chosen))
        edits = edits_of("applied")
        for edit in edits:
            edit.write()
            compile(copy.read_bytes(), copy, "exec", dont_inherit=True)
            assert edits_of("applied") == [], path.name
            for back in edits_of("stripped"):
                back.write()
            assert copy.read_bytes() == data, path.name
        written += len(edits)
    assert written >= len(files) // 2


def edits_of(method):
    plan = CodeEdits(read_map("sidelight.toml"))
    edits = getattr(plan, method)()
    problems = [str(problem) for problem in plan.problems]
    assert all(any(known in each for known in REFUSED) for each in problems), problems
    return [] if problems else edits
