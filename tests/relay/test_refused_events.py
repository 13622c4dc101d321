"""An event that the store refuses: its receipt and `flush` say so, and only they."""

import asyncio
import contextlib
import sqlite3
import time

import pytest
from tests.support.commands import sidelight as run
from tests.support.rules import alter, rule
from tests.support.telemetry import configured, stored

import sidelight
from sidelight import Store, emits
from sidelight.emission.emitter import EMITTER
from sidelight.emission.waiting import MAX_REFUSED, Watermark
from sidelight.runtime.process import RUNTIME

REFUSE = """
CREATE TRIGGER poison BEFORE INSERT ON events WHEN NEW.artifact_id = 'poison'
BEGIN SELECT {}; END
"""
WAYS = {"with an error": "RAISE(ABORT, 'a rule of the application')", "silently": "RAISE(IGNORE)"}


@pytest.fixture(params=WAYS)
def path(request, tmp_path):
    with configured(tmp_path):
        sidelight.emit("made", artifact_id="a")
        assert sidelight.flush(20.0)
        path = tmp_path / "events.db"
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute(REFUSE.format(WAYS[request.param]))
        yield path


def test_receipts_and_flush_tell_the_truth(path):
    receipts = {name: sidelight.emit("made", artifact_id=name) for name in ("b", "poison", "c")}
    assert sidelight.flush(20.0) is False
    assert {name: receipt.state for name, receipt in receipts.items()} == {
        "b": "stored",
        "poison": "refused",
        "c": "stored",
    }
    assert receipts["poison"].event_id
    assert EMITTER.losses == {"refused by store": 1}
    assert {event["artifact_id"] for event in stored(path)} == {"a", "b", "c"}
    sidelight.emit("made", artifact_id="d")
    assert sidelight.flush(20.0)  # everything since the last flush


@pytest.mark.parametrize("awaited", [False, True])
def test_a_wait_ends_and_tells(path, awaited):
    receipt = sidelight.emit(
        "made", artifact_id="poison", mode="awaited" if awaited else "scheduled"
    )
    sidelight.flush(20.0)
    assert receipt.wait().state == "refused"

    async def wait():
        return await receipt

    assert asyncio.run(wait()).state == "refused"


def test_a_call_whose_event_is_refused_returns_as_ever(path):
    @emits("made", artifact_id="poison", mode="awaited")
    def make():
        return 1

    assert make() == 1
    assert sidelight.flush(20.0) is False


def test_an_event_that_is_older_than_the_store_keeps_can_be_stored_later(path):
    """The store keeps later days only, as after a pruning with a clock that was ahead."""
    tomorrow = time.time_ns() + 86_400 * 10**9
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE retention SET kept_since = {tomorrow}")
    receipts = [sidelight.emit("made", artifact_id=f"late {n}") for n in range(100)]
    assert sidelight.flush(20.0) is False
    assert {receipt.state for receipt in receipts} == {"refused"}
    assert EMITTER.losses == {"older than the store keeps": 100}
    url = f"sqlite:///{path}"
    assert run("spool", "replay", "--store", url).code == 1
    assert run("prune", "--keep-since", "2d", "--store", url).code == 0
    assert run("spool", "replay", "--store", url).code == 0
    assert len(stored(path)) == 101


@pytest.mark.parametrize("table", ["losses", "costs"])
def test_a_ledger_that_is_refused_makes_no_other(path, table):
    """The store also skips what the process tells. Each loss makes another ledger."""

    @emits("made", artifact_id="b")
    def make():
        pass

    url = f"sqlite:///{path}"
    skip, end = rule(url, table, name="untold", then="SELECT RAISE(IGNORE)")
    alter(url, skip)
    poison = sidelight.emit("made", artifact_id="poison")
    for _ in range(5):
        make()
        sidelight.flush(20.0)  # writes the ledger
    assert len([*RUNTIME.spool.quarantine.entries()]) == 2
    assert EMITTER.losses == {"refused by store": 2}
    assert poison.state == "refused"
    doctor = run("doctor", "--store", url)
    assert doctor.code == 1
    assert "2 entries: refused by store" in doctor.out
    answer = run("spool", "quarantined", "--store", url, "--json")
    problems = {each["artifact_id"]: each["problem"] for each in answer.json}
    assert f"of {table} skipped without an error" in problems[None]
    assert set(problems) == {None, "poison"}
    assert "losses, costs" in run("spool", "quarantined", "--store", url).out
    alter(url, end)
    run("spool", "replay", "--store", url)
    with Store(url) as opened:
        assert opened.losses() if table == "losses" else opened.costs()
    assert {event["artifact_id"] for event in stored(path)} == {"a", "b"}


def test_a_watermark_remembers_the_latest_refused_events():
    watermark = Watermark()
    for number in range(MAX_REFUSED + 5):
        watermark.note_refused(number)
    assert not watermark.was_refused(4)
    assert all(watermark.was_refused(number) for number in range(5, MAX_REFUSED + 5))
