"""Erasing: what was erased is gone and stays away, and what is left is counted exactly."""

import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from tests.support.stored import (
    BACKENDS,
    NOON,
    TRACE,
    batches_of,
    deliver,
    exact,
    record,
    store,
    together,
)

from sidelight import Store
from sidelight.exceptions import QueryError
from sidelight.record import CALL
from sidelight.store import eraser, erasure, ingest, steps
from sidelight.store.eraser import Eraser
from sidelight.store.erasure import Subject
from sidelight.store.schema import metadata
from sidelight.store.sink import StoreSink

ACME, GLOBEX, NONE = "acme", "globex", None


def at(number, artifact, organization=None, type_="made"):
    return record(
        type_,
        NOON + number,
        artifact=artifact,
        organization=organization,
        bits=number,
        attributes={"text": f"{artifact} of {organization}"},
    )


RECORDS = [
    at(0, "a1", ACME),
    at(1, "a1"),
    at(2, "a1", ACME, "sent"),
    at(3, "a2", ACME),
    at(4, "shared", ACME),
    at(5, "shared", GLOBEX),
    at(6, "shared"),
    at(7, "shared", ACME),
    at(8, NONE, ACME),
    at(9, NONE, GLOBEX),
    at(10, "b1", GLOBEX),
    at(11, "b1"),
    at(12, "free"),
    at(13, NONE),
]


def left_of(url):
    """The events that are left, as the numbers of their records."""
    return [event.occurred_ns - NOON for event in exact(url)]


def erase(url, artifact=None, organization=None):
    with Store(url) as opened:
        return opened.erase(artifact_id=artifact, organization_id=organization)


EVERY = set(range(len(RECORDS)))
CASES = {
    "artifact": (("a1", None), {0, 1, 2}, 1),
    "artifact of its only organization": (("a1", ACME), {0, 1, 2}, 1),
    "artifact of another organization": (("a1", GLOBEX), set(), 0),
    "artifact without organization": (("free", None), {12}, 1),
    "shared artifact, one organization": (("shared", ACME), {4, 7}, 0),
    "shared artifact, no organization": (("shared", ""), {6}, 0),
    "organization": ((None, ACME), {0, 1, 2, 3, 4, 7, 8}, 2),
    "unknown artifact": (("nowhere", None), set(), 0),
    "unknown organization": ((None, "nobody"), set(), 0),
}


@pytest.mark.parametrize(("subject", "gone", "artifacts"), CASES.values(), ids=list(CASES))
def test_what_is_erased_is_gone_and_stays_away(url, subject, gone, artifacts):
    store(url, RECORDS[:7], RECORDS[7:])
    plan = erase(url, *subject)
    assert (plan.events, plan.artifacts) == (len(gone), artifacts)
    assert set(left_of(url)) == EVERY - gone
    again = erase(url, *subject)
    assert (again.events, again.artifacts) == (0, 0)
    store(url, RECORDS[::-1], *([each] for each in RECORDS[:8]))  # delivered once more
    assert set(left_of(url)) == EVERY - gone


def test_an_organization_leaves_no_counter(url, ask):
    store(url, RECORDS)
    erase(url, organization=ACME)
    assert ACME not in {count.organization_id for count in ask(Store.counts)}
    rows = _rows(url)
    assert not any(ACME in row for row in rows), rows


def _rows(url):
    """Every row of every table, as text."""
    with Store(url) as opened:
        return [
            str(row) for table in metadata.sorted_tables for row in opened._read(table.select())
        ]


def test_an_artifact_of_several_organizations_is_erased_for_one_of_them_only(url):
    store(url, RECORDS)
    with pytest.raises(QueryError, match="several organizations: acme, globex"):
        erase(url, "shared")
    assert set(left_of(url)) == EVERY


@pytest.mark.parametrize("subject", [(None, None), (None, ""), (True, None)], ids=repr)
def test_a_subject_must_be_named(url, subject):
    store(url, RECORDS)
    with pytest.raises(QueryError):
        erase(url, *subject)
    assert set(left_of(url)) == EVERY


def test_a_shared_artifact_becomes_the_other_organizations(url, ask):
    store(url, RECORDS)
    erase(url, organization=ACME)
    (shared,) = (each for each in ask(Store.artifacts) if each.artifact_id == "shared")
    assert (shared.organization_id, shared.events) == (GLOBEX, 2)
    assert ask(Store.shared_artifacts) == []
    assert erase(url, "shared").events == 2


@pytest.mark.parametrize("at_once", [True, False], ids=["one batch", "one after the other"])
def test_events_without_organization_that_come_before_the_one_that_names_it(url, at_once):
    """Only the event that is dropped tells whose artifact it is."""
    store(url, RECORDS)
    erase(url, organization=ACME)
    late = [at(20, "new"), at(21, "new"), at(22, "new", ACME), at(23, "new"), at(24, "new", GLOBEX)]
    batches = [late[:4]] if at_once else [[each] for each in late[:4]]
    store(url, *batches, [])
    assert not {20, 21, 22, 23} & set(left_of(url))
    store(url, late)
    assert {20, 21, 22, 23, 24} & set(left_of(url)) == {24}


def test_many_earlier_events_are_erased_in_steps(url, monkeypatch):
    monkeypatch.setattr(ingest, "STEP", 7)
    erase_first = [at(100 + n, "new") for n in range(21)]
    store(url, [at(0, "a1", ACME)])
    erase(url, organization=ACME)
    with closing(StoreSink(url)) as sink:
        deliver(sink, erase_first)
        deliver(sink, [at(200, "new", ACME)])
        while sink.has_deferred_work:
            deliver(sink, [])
    assert left_of(url) == []


def test_an_eraser_goes_on_where_another_one_was_faster(tmp_path, monkeypatch):
    """In PostgreSQL another one may delete what a step has just read."""
    psycopg = pytest.importorskip("psycopg")
    monkeypatch.setattr(steps, "_ROWS", (3, 3))
    url = BACKENDS["postgresql"](tmp_path)
    store(url, [record(at=NOON + n, artifact="a") for n in range(10)])
    lock, others = eraser.lock_artifacts, []

    def lock_behind_another(*arguments):
        if not others:
            with psycopg.connect(url) as other:
                query = "SELECT event_id FROM sidelight.events ORDER BY occurred_at LIMIT 3"
                others.extend(other.execute(query).fetchall())
                for each in others:
                    other.execute("DELETE FROM sidelight.events WHERE event_id = %s", each)
        return lock(*arguments)

    monkeypatch.setattr(eraser, "lock_artifacts", lock_behind_another)
    erase(url, artifact="a")
    assert len(others) == 3
    with Store(url) as opened:
        assert list(opened.events()) == []


def test_a_tombstone_can_be_lifted(url):
    store(url, RECORDS)
    erase(url, "a1")
    with Eraser(url) as eraser:
        assert eraser.lift(Subject("a1", None))
        assert not eraser.lift(Subject("a1", None))
    store(url, RECORDS[:3])
    assert set(left_of(url)) == EVERY


def test_open_calls_of_erased_events_go(url):
    call = {"trace": TRACE, "flags": CALL, "outcome": "started"}
    store(url, [record(artifact=name, span=n, **call) for n, name in enumerate(("a1", "a2"))])
    erase(url, "a1")
    assert len([row for row in _rows(url) if TRACE.hex() in row]) == 2  # a2's event and call


def test_dropped_events_are_counted_without_their_id(url):
    told = []
    store(url, [at(0, "a1", ACME)])
    erase(url, "a1")
    with closing(StoreSink(url, lambda *each: told.append(each))) as sink:
        deliver(sink, [at(1, "a1"), at(2, "a1", ACME), at(3, "a2")])
    assert told == [("erased", "shop:make: made")] * 2
    assert left_of(url) == [3]


def test_a_dry_run_changes_nothing(url):
    store(url, RECORDS)
    with Eraser(url, dry=True) as eraser:
        assert eraser.plan(organization_id=ACME).events == 7
    store(url, [at(30, "a9", ACME)])
    assert set(left_of(url)) == EVERY | {30}


@pytest.fixture
def slowly(monkeypatch):
    monkeypatch.setattr(steps, "_ROWS", (7, 7))
    monkeypatch.setattr(steps, "_TARGET", 0.0)


def _many(count):
    return [
        at(n, f"a{n % 50}", None if n % 3 == 0 else (ACME, GLOBEX)[n % 50 % 2])
        for n in range(count)
    ]


def test_relays_deliver_meanwhile(url, slowly):
    records = _many(600)
    store(url, records[:300])

    def relay(mine):
        with closing(StoreSink(url)) as sink:
            for batch in batches_of(mine, 20):
                deliver(sink, batch)
            while sink.has_deferred_work:
                deliver(sink, [])

    erasing = lambda: erase(url, organization=ACME)  # noqa: E731
    together(erasing, lambda: relay(records[150:450]), lambda: relay(records[300:]))
    erase(url, organization=ACME)
    kept = {n for n in range(600) if n % 50 % 2}
    assert set(left_of(url)) == kept


KILLED = """
import sys
from sidelight.store import eraser, steps
steps._ROWS, steps._TARGET, eraser._ARTIFACTS = (5, 5), 0.0, 3
with eraser.Eraser(sys.argv[1]) as opened:
    plan = opened.plan(organization_id="acme")
    print("step", flush=True)
    for _ in opened.run(plan):
        print("step", flush=True)
"""


def test_a_killed_eraser_harms_nothing_and_is_resumed(url):
    records = _many(200)
    store(url, records)
    chance = random.Random(7)
    kept = {n for n in range(200) if n % 50 % 2}
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, url], stdout=subprocess.PIPE
        ) as process:
            for _ in range(chance.randrange(1, 8)):
                process.stdout.readline()
            time.sleep(chance.random() * 0.01)
            process.send_signal(signal.SIGKILL)
        assert kept <= set(left_of(url)) <= set(range(200))  # exact at every point
    erase(url, organization=ACME)
    assert set(left_of(url)) == kept
    store(url, records)
    assert set(left_of(url)) == kept


def test_a_sqlite_file_holds_no_byte_of_it(tmp_path):
    path = tmp_path / "events.db"
    url = f"sqlite:///{path}"
    store(url, *([at(n, f"a{n % 7}", ACME)] for n in range(200)))
    erase(url, "a3")
    held = b"".join(each.read_bytes() for each in Path(tmp_path).iterdir() if each.is_file())
    assert b"a3 of acme" not in held
    assert b"a4 of acme" in held
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_store_without_tombstones_is_asked_for_none(url, monkeypatch):
    def asked(*_):
        raise AssertionError

    store(url, [at(0, "a1", ACME)])
    monkeypatch.setattr(erasure, "erased_of", asked)
    store(url, RECORDS)
    assert set(left_of(url)) == EVERY
