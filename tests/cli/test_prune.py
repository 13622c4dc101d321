"""`sidelight prune`: what it says, and what it leaves."""

import sqlite3
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url
from tests.support import version1
from tests.support.commands import sidelight
from tests.support.stored import BACKENDS, DAY, batches_of, record, store

from sidelight import Store
from sidelight.cli.output import number
from sidelight.cli.store import prune
from sidelight.store import retention

TODAY = time.time_ns() // DAY * DAY


def records(count, days):
    """Events of so many days, the last of them yesterday, an artifact for two of them."""
    return [
        record(
            "made",
            TODAY - days * DAY + n * (days - 1) * DAY // count,
            artifact=f"a{n // 2}",
            attributes={"text": "x" * 400},
        )
        for n in range(count)
    ]


@pytest.fixture(params=sorted(BACKENDS))
def url(request, tmp_path):
    made = BACKENDS[request.param](tmp_path)
    store(made, records(200, 100))
    return made


def path_of(url):
    return Path(make_url(url).database)


def test_a_dry_run_says_what_would_go(url):
    said = sidelight("prune", "--older-than", "50d", "--dry-run", "--store", url)
    assert said.code == 0
    with Store(url) as opened:
        midnight = (datetime.now(UTC) - timedelta(days=50)).replace(
            hour=0, minute=0, second=0, microsecond=0
        )
        gone = 200 - sum(1 for _ in opened.events(since=midnight))
        assert opened.size() == 200
    assert f"events {gone}" in said.words
    assert "would then keep what occurred since" in said.err


def test_it_says_what_went(url):
    (told,) = sidelight("prune", "--older-than", "50d", "--dry-run", "--json", "--store", url).json
    assert told["dry_run"] is True
    said = sidelight("prune", "--older-than", "50d", "--json", "--store", url)
    assert (said.code, said.err) == (0, "")
    assert said.json == [{**told, "dry_run": False}]
    with Store(url) as opened:
        assert opened.size() == 200 - told["events"]
        assert str(opened.kept_since()) == told["kept_since"]
    said = sidelight("prune", "--older-than", "50d", "--store", url)
    assert "events 0" in said.words
    assert f"keeps what occurred since {told['kept_since']} (UTC)" in " ".join(said.err.split())


def test_what_it_refuses(url, tmp_path):
    said = sidelight("prune", "--older-than", "1h", "--store", url)
    assert said.code == 1
    assert "less than a day ago; give 1d or more" in said.err
    said = sidelight("prune", "--older-than", "soon", "--store", url)
    assert "is not a time; write" in said.err
    said = sidelight("prune", "--store", url)
    assert said.code == 2
    said = sidelight("prune", "--older-than", "9d", "--store", f"sqlite:///{tmp_path}/none.db")
    assert said.code == 1
    assert "there is no events store" in said.err
    assert not (tmp_path / "none.db").exists()


def test_a_terminal_sees_a_bar(url, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(prune, "_SHOWN_AFTER", 0.0)
    monkeypatch.setattr(retention, "_ROWS", (5, 5))
    said = sidelight("prune", "--older-than", "50d", "--store", url)
    assert "pruning" in said.err
    assert "pruning" not in said.out


def test_whoever_is_interrupted_is_told_how_to_go_on(url, monkeypatch):
    monkeypatch.setattr(retention, "_ROWS", (5, 5))
    whole, calls = retention.Pruner._adapt_rows, []

    def interrupted(self, spent):
        calls.append(spent)
        if len(calls) == 4:
            raise KeyboardInterrupt
        whole(self, spent)

    monkeypatch.setattr(retention.Pruner, "_adapt_rows", interrupted)
    said = sidelight("prune", "--older-than", "50d", "--store", url)
    assert said.code == 1
    assert "the same command goes on where it was" in said.err
    assert sidelight("prune", "--older-than", "50d", "--store", url).code == 0
    with Store(url) as opened:
        assert opened.size() == sum(1 for _ in opened.events())


def test_a_file_gets_shorter(tmp_path):
    url = BACKENDS["sqlite"](tmp_path)
    store(url, *batches_of(records(20_000, 100), 2_000))
    before = path_of(url).stat().st_size
    said = sidelight("prune", "--older-than", "10d", "--store", url)
    assert "VACUUM" not in said.err
    assert path_of(url).stat().st_size < before / 4


def test_a_file_of_an_earlier_version_keeps_its_size_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(prune, "_WORTH_A_WORD", 100_000)
    url = BACKENDS["sqlite"](tmp_path)
    version1.create(url)
    store(url, *batches_of(records(10_000, 100), 2_000))
    before = path_of(url).stat().st_size
    said = sidelight("prune", "--older-than", "10d", "--store", url)
    assert "a VACUUM would give them back" in said.err
    assert path_of(url).stat().st_size == before
    store(url, *batches_of(records(1_000, 9), 1_000))
    assert path_of(url).stat().st_size == before
    with sqlite3.connect(path_of(url)) as connection:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("VACUUM")
    connection.close()
    assert path_of(url).stat().st_size < before / 4
    assert number(sidelight("prune", "--older-than", "9d", "--json", "--store", url).code) == "0"
