"""mypy and pyright see a decorated function as the function that it was.

What ``reveal_type`` shows is compared with the comments beneath it; lines with ``# error``, and no
others, are wrong to both.
"""

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import get_type_hints

import pytest

from sidelight import configure, emit, emits, flush, weave

ROOT = Path(__file__).parents[2]
FILE = ROOT / "tests" / "typing" / "decorated.py"
LINES = FILE.read_text(encoding="utf-8").splitlines()
WITHIN = 240  # seconds; they take a few, but for the first time


def expected(tool):
    """What the comments say: the revealed type by line, and the lines that are wrong."""
    types, number = {}, 0
    for index, line in enumerate(LINES, 1):
        if "reveal_type(" in line and not line.startswith("from "):
            number = index
        found = re.match(rf"\s*# to (?:both|{tool}): (.*)", line)
        if found:
            types[number] = found[1]
    errors = {index for index, line in enumerate(LINES, 1) if line.endswith("# error")}
    assert len(types) == sum("reveal_type(" in line for line in LINES)
    return types, errors


def run(*command):
    if find_spec(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed: pip install -e '.[lint]'")
    return subprocess.run(
        [sys.executable, "-m", *command],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=WITHIN,
        check=False,
    )


@pytest.mark.slow
def test_mypy():
    done = run("mypy", "--strict", "--no-error-summary", "--no-pretty", str(FILE))
    assert done.returncode == 1, done.stdout + done.stderr
    types, errors = {}, {}
    for told in done.stdout.splitlines():
        found = re.match(r"[^:]+decorated\.py:(\d+): (\w+): (.*)", told)
        assert found or ".py" in told, told
        if found is None:
            continue
        line, level, message = int(found[1]), found[2], found[3]
        revealed = re.match(r'Revealed type is "(.*)"$', message)
        if revealed:
            name = re.compile(r"\b(?:\w+\.)+(?=\w)")
            types[line] = name.sub("", revealed[1])
        elif level == "error":
            errors[line] = message
    assert (types, set(errors)) == expected("mypy"), errors


@pytest.mark.slow
def test_pyright():
    done = run("pyright", "--outputjson", "--pythonpath", sys.executable, str(FILE))
    try:
        report = json.loads(done.stdout)
    except ValueError:
        pytest.skip(f"pyright does not run here: {done.stderr.strip()[-300:]}")
    types, errors = {}, {}
    for told in report["generalDiagnostics"]:
        line, message = told["range"]["start"]["line"] + 1, told["message"]
        revealed = re.match(r'Type of ".*" is "(.*)"$', message, re.DOTALL)
        if revealed:
            types[line] = revealed[1]
        elif told["severity"] == "error":
            errors[line] = message
    assert (types, set(errors)) == expected("pyright"), errors


@pytest.mark.parametrize("function", [emits, emit, configure, flush, weave])
def test_the_hints_of_a_public_function_resolve(function):
    """As tools need it that read annotations when a program runs."""
    assert get_type_hints(function)
