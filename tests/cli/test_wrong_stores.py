"""Every command on every kind of store that it cannot use: one clear line and an exit code."""

import contextlib
import os
import sqlite3

import pytest
from tests.support.commands import sidelight
from tests.support.crafted import segment_in

from sidelight.cli import app
from sidelight.store.engine import connect

ASKING = {
    "events": [],
    "tail": ["-n", "0"],
    "artifacts": [],
    "timeline": ["order-1"],
    "counts": [],
    "latency": ["a", "b"],
    "funnel": ["a", "b"],
    "overdue": ["--map", "MAP"],
    "export": ["--to", "FILE"],
    "budget": [],
    "prune": ["--older-than", "30d"],
    "erase": ["--artifact", "order-1", "--yes"],
    "replay": ["--to", "otlp", "--otlp", "http://127.0.0.1:1"],
    "ui": [],
}
"""The commands that ask the store, each with what it needs."""
DELIVERING = {"relay": ["--once"], "spool": []}
ELSEWHERE = {"points", "apply", "strip", "catalogue", "run", "docs", "outbox", "doctor", "consume"}
"""They ask no store, or tell of it in findings (tests/cli/test_doctor.py)."""
URLS = {
    "missing": ("sqlite:///DIR/none.db", "there is no events store at sqlite:///"),
    "no directory": ("sqlite:///DIR/no/where/events.db", "there is no events store at sqlite:///"),
    "a directory": ("sqlite:///DIR", "is a directory; name a file in it"),
    "newer": ("sqlite:///DIR/newer.db", "upgrade sidelight, or name another store"),
    "other tables": ("sqlite:///DIR/other.db", "the database holds no sidelight tables"),
    "an empty file": ("sqlite:///DIR/zero.db", "the database holds no sidelight tables"),
    "no database": (
        "sqlite:///DIR/text.db",
        "file is not a database; see `sidelight doctor --store sqlite:///",
    ),
    "a loop of links": ("sqlite:///DIR/loop.db", "there is no events store at sqlite:///"),
    "no URL": ("events.db", "'events.db' is not a URL; write sqlite:///events.db"),
    "another scheme": ("mysql://host/db", "mysql is not supported; use sqlite:///… or postgresql"),
    "no port": ("postgresql://host:99999/x", "'99999' is no port; give a number from 1 to 65535"),
    "in memory": ("sqlite://", "a SQLite database in memory ends with its connection; name a file"),
    "nobody listens": ("postgresql://127.0.0.1:1/x", "Connection refused"),
}
SETTINGS = {"a directory", "no URL", "another scheme", "no port", "in memory"}
"""What is wrong with the URL itself, which commands of the spool refuse as well."""


def test_the_table_has_every_command():
    known = {name for modules in app._GROUPS.values() for name in modules}
    assert known == {*ASKING, *DELIVERING, *ELSEWHERE}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("stores")
    tables = {
        "newer.db": [
            "CREATE TABLE sidelight_schema (version INTEGER)",
            "INSERT INTO sidelight_schema VALUES (99)",
        ],
        "other.db": ["CREATE TABLE parcels (weight)"],
    }
    for name, statements in tables.items():
        with contextlib.closing(sqlite3.connect(directory / name)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()
    (directory / "text.db").write_text("this is no database " * 100)
    (directory / "zero.db").touch()
    (directory / "loop.db").symlink_to("loop.db")
    (directory / "map.toml").write_text('[[expect]]\nafter = "a"\none_of = ["b"]\nwithin = "1m"\n')
    return directory


def ask(command, url, directory, tmp_path):
    named = {"MAP": str(directory / "map.toml"), "FILE": str(tmp_path / "events.jsonl")}
    options = [named.get(each, each) for each in {**ASKING, **DELIVERING}[command]]
    return sidelight(command, *options, "--store", url.replace("DIR", str(directory)))


def one_line(said, words):
    assert (said.code, said.out) == (1, ""), said
    assert words in said.err
    assert len(said.err.splitlines()) == 1, said.err


@pytest.mark.parametrize("command", [*ASKING, *DELIVERING])
def test_a_store_that_cannot_be_used_is_told_in_one_line(command, directory, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for kind, (url, words) in URLS.items():
        if kind == "missing" and command in {"ui", "tail"}:
            continue  # they wait for it
        said = ask(command, url, directory, tmp_path)
        if command in DELIVERING and kind not in SETTINGS:
            words = "there is no such directory; nothing was emitted yet, or name another"
        one_line(said, words)


@pytest.mark.parametrize("command", [*ASKING, *DELIVERING])
def test_a_store_that_may_not_be_read_is_told_in_one_line(
    command, directory, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    path = tmp_path / "events.db"
    connect(f"sqlite:///{path}", create=True).dispose()
    segment_in(tmp_path / "events.db-spool", f"sqlite:///{path}")
    ask(command, "sqlite:///DIR/no/where/events.db", directory, tmp_path)
    with as_nobody():  # the line before has imported everything, because nobody may import
        said = ask(command, f"sqlite:///{path}", directory, tmp_path)
        doctor = sidelight("doctor", "--store", f"sqlite:///{path}")
    one_line(said, "ermission denied")
    assert doctor.code == 1


@contextlib.contextmanager
def as_nobody():
    """Act as a user who may read nothing in the directories of these tests, as root may."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evnts"], "Did you mean 'events'?"),
        (["spool", "quarantine"], "Did you mean 'quarantined'?"),
        (["events", "--stor", "x"], "No such option: --stor"),
        (["events", "--limit", "many"], "'--limit' / '-n': write a whole number"),
        (
            ["events", "-n", "-3"],
            "'--limit' / '-n': write a number of at least 1",
        ),
        (["relay", "--linger", "x"], "Invalid value for '--linger': write a number"),
        (["counts", "--by", "typ"], "Invalid value for '--by': 'typ' is not one of"),
        (["timeline"], "Missing argument 'ARTIFACT'"),
        (["export"], "Missing option '--to'"),
        (["export", "my out.jsonl"], "Missing option '--to'. Write --to 'my out.jsonl'"),
    ],
    ids=str,
)
def test_a_command_line_that_is_not_understood(arguments, words):
    said = sidelight(*arguments)
    assert (said.code, said.out) == (2, "")
    assert words in said.err
    assert "-h' for help" in said.err
