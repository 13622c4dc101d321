"""The command line without extras: each command has its help, and names what it lacks."""

import json
import os
import re
import subprocess
import sys

import pytest
from tests.support.commands import TWO_ORDERS, emit, of, sidelight, stored
from tests.support.stored import record, sqlite, store

from sidelight.cli import app

EXTRAS = ("confluent_kafka", "jinja2", "psycopg", "pyarrow", "starlette", "uvicorn")
WITHOUT = f"""
import json, sys
for name in {EXTRAS!r}:
    sys.modules[name] = None
from sidelight.cli.app import main
for arguments in json.load(sys.stdin):
    try:
        main(arguments)
    except SystemExit as ended:
        print("ended:", ended.code or 0, flush=True)
"""


def without_extras(*commands):
    """The exit code of each command, what they print, and what they complain of."""
    asked = json.dumps([[str(part) for part in command] for command in commands])
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        input=asked,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    codes = [int(line.split()[-1]) for line in lines if line.startswith("ended: ")]
    assert len(codes) == len(commands), ran.stderr
    return codes, ran.stdout, ran.stderr


def test_each_command_has_its_help():
    codes, told, complaints = without_extras(
        ["--help"], *([name, "--help"] for name in app._PLACES)
    )
    assert {*codes} == {0}, complaints
    assert complaints == ""
    assert all(f" {name} " in told for name in app._PLACES)


def test_what_needs_no_extra_works_and_the_rest_names_it(tmp_path):
    path = tmp_path / "events.db"
    emit(TWO_ORDERS, path)
    files = [tmp_path / f"e.{kind}" for kind in ("csv", "jsonl")]
    wanting = {
        "arrow": ["export", "--to", tmp_path / "e.parquet", *of(path)],
        "ui": ["ui", *of(path)],
        "postgres": ["counts", *of("postgresql://127.0.0.1:9/none")],
        "kafka": ["consume", "kafka://127.0.0.1:9/topic", *of(path)],
    }
    working = [["export", "--to", file, *of(path)] for file in files]
    codes, _, complaints = without_extras(*working, *wanting.values())
    assert codes == [0, 0, 1, 1, 1, 1], complaints
    for file in files:
        lines = file.read_text("utf-8").splitlines()
        assert len(lines) - (file.suffix == ".csv") == stored(path)
    named = re.findall(r"pip install 'sidelight\[(\w+)\]'", complaints)
    assert named == [*wanting], complaints
    assert not [*tmp_path.glob("*.parts")]


@pytest.mark.parametrize(
    "question", [["timeline"], ["events", "--artifact"], ["events", "--where"]], ids=" ".join
)
def test_an_argument_that_is_not_utf_8_finds_what_was_recorded(question, tmp_path):
    """Python hands over the bytes of an argument as `os.fsdecode` does."""
    name = os.fsdecode(b"caf\xe9")
    store(sqlite(tmp_path), [record(artifact=name, attributes={"place": name})])
    asked = f"place={name}" if question[-1] == "--where" else name
    said = sidelight(*question, asked, *of(sqlite(tmp_path)))
    assert (said.code, r"caf\udce9" in said.out) == (0, True), said
