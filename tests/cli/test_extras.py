"""The command line without extras: each command has its help, and names what it lacks.

And arguments that no command can take.
"""

import json
import subprocess
import sys

import pytest
from tests.support.commands import TWO_ORDERS, emit, of, stored

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
    store = tmp_path / "events.db"
    emit(TWO_ORDERS, store)
    for kind in ("csv", "jsonl"):
        file = tmp_path / f"e.{kind}"
        codes, _, complaints = without_extras(["export", "--to", file, *of(store)])
        assert codes == [0], complaints
        lines = file.read_text("utf-8").splitlines()
        assert len(lines) - (kind == "csv") == stored(store)
    wanting = {
        "arrow": ["export", "--to", tmp_path / "e.parquet", *of(store)],
        "ui": ["ui", *of(store)],
        "postgres": ["counts", *of("postgresql://127.0.0.1:9/none")],
        "kafka": ["consume", "kafka://127.0.0.1:9/topic", *of(store)],
    }
    for extra, command in wanting.items():
        codes, _, complaints = without_extras(command)
        assert codes == [1], complaints
        assert f"pip install 'sidelight[{extra}]'" in complaints


@pytest.mark.parametrize(
    "arguments",
    [
        ["events", "-n", "9" * 30],
        ["events", "--since", "99999999d"],
        ["events", "--since", "soon"],
        ["events", "--where", "words"],
        ["events", "--outcome", "odd"],
        ["latency", "--by", "odd", "a", "b"],
        ["erase", "--yes"],
        ["spool", "discard"],
    ],
    ids=" ".join,
)
def test_a_refused_argument_is_named_and_the_exit_code_is_2(arguments, tmp_path):
    store = tmp_path / "events.db"
    emit("receive('order-1')\nassert sidelight.flush(60)", store)
    place = ("--spool", tmp_path / "spool") if arguments[0] == "spool" else of(store)
    ran = subprocess.run(
        [sys.executable, "-m", "sidelight", *arguments, *map(str, place)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 2, ran.stderr
    assert "Traceback" not in ran.stderr
    assert ran.stderr


@pytest.mark.parametrize("question", ["timeline", "--artifact", "--where"])
def test_an_argument_that_is_not_utf_8_finds_what_was_recorded(question, tmp_path):
    store, name = tmp_path / "events.db", b"caf\xe9"
    emit(
        "sidelight.emit('opened',"
        " artifact_id=b'caf\\xe9'.decode(errors='surrogateescape'),"
        " place=b'caf\\xe9'.decode(errors='surrogateescape'))\nassert sidelight.flush(60)",
        store,
    )
    asked = {
        "timeline": [b"timeline", name],
        "--where": [b"events", b"--where", b"place=" + name],
    }.get(question, [b"events", question.encode(), name])
    ran = subprocess.run(
        [sys.executable, "-m", "sidelight", *asked, *of(store)],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert rb"caf\udce9" in ran.stdout
