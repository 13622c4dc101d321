"""`sidelight prune`: what it prints, and what it leaves."""

import contextlib
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
from sidelight.cli.store import prune as command
from sidelight.store import steps


def records(count, days):
    """Events of so many days, the last of them yesterday; an artifact has two of them."""
    return [
        record(
            "made",
            (time.time_ns() // DAY - days) * DAY + n * (days - 1) * DAY // count,
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


def prune(url, age, *options):
    return sidelight("prune", "--older-than", age, *options, "--store", url)


def size_of(url):
    return Path(make_url(url).database).stat().st_size


def test_it_says_what_would_be_and_what_was_deleted(url):
    said = prune(url, "50d", "--dry-run")
    (told,) = prune(url, "50d", "--dry-run", "--json").json
    with Store(url) as opened:
        midnight = (datetime.now(UTC) - timedelta(days=50)).replace(
            hour=0, minute=0, second=0, microsecond=0
        )
        kept = sum(1 for _ in opened.events(since=midnight))
        assert opened.size() == 200
    assert (said.code, told["dry_run"], told["events"]) == (0, True, 200 - kept)
    assert f"events {200 - kept}" in said.words
    assert "would then keep events since" in said.err
    said = prune(url, "50d", "--json")
    assert (said.code, said.err, said.json) == (0, "", [{**told, "dry_run": False}])
    with Store(url) as opened:
        assert opened.size() == kept
        assert str(opened.kept_since()) == told["kept_since"]
    said = prune(url, "50d")
    assert "events 0" in said.words
    assert f"keeps events since {told['kept_since']} (UTC)" in " ".join(said.err.split())


def test_arguments_that_are_refused(url, tmp_path):
    said = prune(url, "1h")
    assert (said.code, "less than a day ago; give 1d or more" in said.err) == (2, True)
    assert "is not a time; write" in prune(url, "soon").err
    assert sidelight("prune", "--store", url).code == 2
    assert prune(url, "9d", "--keep-since", "8d").code == 2
    said = prune(f"sqlite:///{tmp_path}/none.db", "9d")
    assert (said.code, "there is no events store" in said.err) == (1, True)
    assert not (tmp_path / "none.db").exists()


def test_a_clock_that_is_ahead_is_told_and_the_day_is_taken_back(url, monkeypatch):
    now = time.time_ns
    with monkeypatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: now() + 365 * DAY)
        said = prune(url, "50d")
    assert (said.code, "the age counts from then" in said.err) == (0, True)
    with Store(url) as opened:
        assert 80 < opened.size() < 120
    said = sidelight("prune", "--keep-since", "90d", "--store", url)
    day = (datetime.now(UTC) - timedelta(days=90)).date()
    assert (said.code, f"keeps events since {day} (UTC)" in said.err) == (0, True)


def test_a_terminal_sees_a_bar(url, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("sidelight.cli.output._SHOW_PROGRESS_AFTER", 0.0)
    monkeypatch.setattr(steps, "_ROWS", (5, 5))
    said = prune(url, "50d")
    assert "pruning" in said.err
    assert "pruning" not in said.out


def test_an_interrupted_command_continues(url, monkeypatch):
    monkeypatch.setattr(steps, "_ROWS", (5, 5))
    whole, calls = steps.ShortTransactions._adapt_rows, []

    def interrupted(self, spent):
        calls.append(spent)
        if len(calls) == 4:
            raise KeyboardInterrupt
        whole(self, spent)

    monkeypatch.setattr(steps.ShortTransactions, "_adapt_rows", interrupted)
    said = prune(url, "50d")
    assert (said.code, "interrupted; the same command continues" in said.err) == (1, True)
    assert prune(url, "50d").code == 0
    with Store(url) as opened:
        assert opened.size() == sum(1 for _ in opened.events())


def test_a_file_gets_shorter(tmp_path):
    url = BACKENDS["sqlite"](tmp_path)
    store(url, *batches_of(records(4_000, 100), 2_000))
    before = size_of(url)
    assert "VACUUM" not in prune(url, "10d").err
    assert size_of(url) < before / 4


def test_a_file_of_an_earlier_version_keeps_its_size_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "_WORTH_A_VACUUM", 100_000)
    url = BACKENDS["sqlite"](tmp_path)
    version1.create(url)
    store(url, *batches_of(records(10_000, 100), 2_000))
    before = size_of(url)
    assert "VACUUM would shrink it" in prune(url, "10d").err
    assert size_of(url) == before
    store(url, *batches_of(records(1_000, 9), 1_000))
    assert size_of(url) == before
    with contextlib.closing(sqlite3.connect(make_url(url).database)) as connection:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("VACUUM")
    assert size_of(url) < before / 4
    assert prune(url, "9d", "--json").code == 0
