"""A trigger may skip a row without an error: the row then counts as refused, never as stored."""

from __future__ import annotations

import contextlib
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from tests.support.rules import alter, rule
from tests.support.stored import DAY, NOON, SECOND, exact, ledger, record, store

from sidelight import Store
from sidelight.exceptions import SinkRefusedError, SinkUnavailableError, StoreError
from sidelight.record.format import CALL, event_id
from sidelight.store import ingest
from sidelight.store.eraser import Eraser
from sidelight.store.erasure import Subject
from sidelight.store.retention import Pruner
from sidelight.store.sink import StoreSink

TRACE = bytes(16)
CALLS = (
    record("asked", NOON, outcome="started", trace=TRACE, span=7, flags=CALL, bits=70),
    record("told", NOON + 1, bits=71),
)
TOLD = ledger({"spool full": 3}, {})


def skips(url, table, when="true"):
    then = "RETURN NULL" if url.startswith("postgresql") else "SELECT RAISE(IGNORE)"
    return rule(url, table if url[0] == "s" else f"sidelight.{table}", when, then=then)


@pytest.fixture
def sink(url):
    store(url, [record("first", NOON - DAY, artifact="a0", bits=1)])
    with closing(StoreSink(url)) as sink:
        yield sink


POISON = "NEW.artifact_id = 'poison'"


@pytest.mark.parametrize("of_many", [False, True])
@pytest.mark.parametrize(
    "batch",
    [
        pytest.param([record(artifact="poison", bits=2)], id="alone"),
        pytest.param(
            [record(artifact=each, bits=n) for n, each in enumerate(["a1", "poison", "a0"], 2)],
            id="among others",
        ),
        pytest.param(
            [record("first", NOON - DAY, artifact="a0", bits=1), record(artifact="poison", bits=2)],
            id="beside one that was stored before",
        ),
        pytest.param(
            [record(artifact="poison" if n == 1900 else "a1", bits=n + 2) for n in range(2000)],
            id="in a large batch",
        ),
    ],
)
def test_an_event_that_the_database_skips_is_refused(url, sink, batch, of_many):
    make, end = skips(url, "events", POISON)
    alter(url, make)
    writer = {"instance": "p1", "resource": {}}

    def write():
        if of_many:
            sink.write_of_many([(each, writer) for each in batch])
        else:
            sink.write(batch, writer)

    with pytest.raises(SinkRefusedError, match="without an error"):
        write()
    assert [event.artifact_id for event in exact(url)] == ["a0"]
    alter(url, end)
    write()
    assert len(exact(url)) == len({moment.random for _, moment in batch} | {1})


def test_an_event_that_a_trigger_leaves_out_because_it_is_there_is_stored(url, sink):
    is_there = "EXISTS (SELECT 1 FROM {} AS e WHERE e.event_id = NEW.event_id)"
    table = "events" if url[0] == "s" else "sidelight.events"
    alter(url, skips(url, "events", is_there.format(table))[0])
    known = record("first", NOON - DAY, artifact="a0", bits=1)
    sink.write([known, record(artifact="a1", bits=2)], {"instance": "p1"})
    sink.write([known], {"instance": "p1"})
    assert [event.artifact_id for event in exact(url)] == ["a0", "a1"]


OTHER = event_id(NOON, 4)  # between those of the batch
WAYS = {
    "delete": "DELETE FROM {}events WHERE artifact_id = 'poison'",
    "rename": f"UPDATE {{}}events SET event_id = '{OTHER}' WHERE artifact_id = 'poison'"
    f" AND event_id <> '{OTHER}'",
    "raise": "IF EXISTS (SELECT FROM {}events WHERE artifact_id = 'poison')"
    " THEN RAISE 'no poison'; END IF",
    "raise a code": "IF EXISTS (SELECT FROM {}events WHERE artifact_id = 'poison')"
    " THEN RAISE 'no poison' USING ERRCODE = 'AB123'; END IF",
    "refuse": ("RAISE 'no poison'", "SELECT RAISE(ABORT, 'no poison')"),
}


def afterwards(url, table, way, deferred):
    """Statements that make a trigger which acts on an event after a row was written, and end it."""
    act = WAYS[way][url.startswith("sqlite")] if way == "refuse" else WAYS[way]
    act = act.format("" if url.startswith("sqlite") else "sidelight.")
    if url.startswith("sqlite"):
        verbs = ("INSERT", "UPDATE")
        then = f"BEGIN {act}; END"
        make = [f"CREATE TRIGGER gone_{verb} AFTER {verb} ON {table} {then}" for verb in verbs]
        return make, [f"DROP TRIGGER gone_{verb}" for verb in verbs]
    kind, when = ("CONSTRAINT", "DEFERRABLE INITIALLY DEFERRED") if deferred else ("", "")
    make = f"""
        CREATE FUNCTION gone() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN {act}; RETURN NULL; END $$;
        CREATE {kind} TRIGGER gone AFTER INSERT OR UPDATE ON sidelight.{table} {when}
            FOR EACH ROW EXECUTE FUNCTION gone()
    """
    return [make], ["DROP FUNCTION gone CASCADE"]


@pytest.mark.parametrize(
    ("way", "deferred"),
    [
        ("delete", False),
        ("delete", True),
        ("rename", False),
        ("rename", True),
        ("raise", True),
        ("raise a code", True),
    ],
)
@pytest.mark.parametrize("table", ["events", "artifacts", "event_counts", "deliveries"])
def test_an_event_that_its_transaction_loses_again_is_refused(url, sink, table, way, deferred):
    if deferred and url.startswith("sqlite"):
        pytest.skip("SQLite defers no trigger")
    make, end = afterwards(url, table, way, deferred)
    alter(url, *make)
    batch = [record(artifact=each, bits=n) for n, each in ((2, "a1"), (3, "poison"), (5, "a0"))]
    early = table in {"artifacts", "deliveries"} and not deferred  # before there is an event
    problem = "no poison" if "raise" in way else "without an error; look for a trigger"
    with contextlib.nullcontext() if early else pytest.raises(SinkRefusedError, match=problem):
        sink.write(batch, {"instance": "p1", "resource": {}})
    assert len(exact(url)) == (4 if early else 1)
    alter(url, *end)
    sink.write(batch, {"instance": "p1", "resource": {}})
    assert [event.artifact_id for event in exact(url)] == ["a0", "a1", "poison", "a0"]


@pytest.mark.parametrize(
    ("table", "batch", "error"),
    [
        ("artifacts", CALLS, SinkUnavailableError),
        ("event_counts", CALLS, SinkUnavailableError),
        ("deliveries", CALLS, SinkUnavailableError),
        ("open_calls", CALLS, SinkUnavailableError),
        ("losses", [TOLD], SinkRefusedError),
    ],
)
def test_no_other_row_is_skipped_in_silence(url, sink, table, batch, error):
    make, end = skips(url, table)
    alter(url, make)
    with pytest.raises(error, match="without an error"):
        sink.write(batch, {"instance": "p2"})
    assert len(exact(url)) == 1
    alter(url, end)
    sink.write(batch, {"instance": "p2"})
    sink.write(batch, {"instance": "p2"})
    assert len(exact(url)) == 1 + (batch is CALLS) * 2
    with Store(url) as opened:
        assert sum(loss.count for loss in opened.losses()) == (table == "losses") * 3


def test_a_sign_of_life_is_not_skipped_in_silence(url, sink):
    make, end = skips(url, "processes")
    alter(url, make)
    writer = {"instance": "p2", "resource": {}}
    for note in (lambda: sink.note_alive(writer, NOON), lambda: sink.note_end(writer)):
        with pytest.raises(SinkUnavailableError, match="without an error"):
            note()
    alter(url, end)
    sink.note_alive(writer, NOON)
    sink.note_alive(writer, NOON - 1)
    sink.note_end(writer)
    sink.note_end(writer)


SIGN = record(None, outcome="ledger", artifact=None, attributes={"began": NOON})


@pytest.mark.parametrize(
    ("table", "change", "error"),
    [
        pytest.param("losses", lambda sink: sink.write([TOLD], {}), SinkRefusedError, id="losses"),
        pytest.param("processes", lambda sink: sink.write([SIGN], {}), None, id="a sign of life"),
        pytest.param(
            "processes", lambda sink: sink.note_alive({}, NOON), SinkUnavailableError, id="alive"
        ),
        pytest.param("processes", lambda sink: sink.note_end({}), SinkUnavailableError, id="end"),
    ],
)
def test_a_refusal_without_an_event(url, sink, table, change, error):
    """PostgreSQL refuses at the commit, and does not say which row was the cause."""
    make, end = afterwards(url, table, "refuse", deferred=True)
    alter(url, *make)
    error = error or (SinkUnavailableError if url.startswith("sqlite") else SinkRefusedError)
    with pytest.raises(error, match="no poison"):
        change(sink)
    alter(url, *end)
    change(sink)


def test_a_deferred_constraint_refuses_the_record(url, sink):
    """SQLite checks such constraints where a program has built it so."""
    schema = "" if url.startswith("sqlite") else "sidelight."
    alter(url, f"CREATE TABLE {schema}known (id TEXT PRIMARY KEY)")
    alter(url, f"INSERT INTO {schema}known VALUES ('a0'), ('a1')")
    references = f"REFERENCES {schema}known (id) DEFERRABLE INITIALLY DEFERRED"
    if url.startswith("sqlite"):
        alter(url, f"ALTER TABLE events ADD COLUMN known TEXT {references}")
        copy = "UPDATE events SET known = artifact_id WHERE event_id = NEW.event_id"
        alter(url, f"CREATE TRIGGER copy AFTER INSERT ON events BEGIN {copy}; END")
        sink.write([], {})
        sink._connection.execute("PRAGMA foreign_keys = ON")
    else:
        alter(url, f"ALTER TABLE sidelight.events ADD FOREIGN KEY (artifact_id) {references}")
    with pytest.raises(SinkRefusedError, match=r"(?i)foreign key"):
        sink.write([record(artifact="a1", bits=2), record(artifact="poison", bits=3)], {})
    sink.write([record(artifact="a1", bits=2)], {})
    assert [event.artifact_id for event in exact(url)] == ["a0", "a1"]


def keeps(url, table, verb):
    """Statements that make a trigger which skips a DELETE or an UPDATE, and end it."""
    if url.startswith("sqlite"):
        then = "BEGIN SELECT RAISE(IGNORE); END"
        return f"CREATE TRIGGER keep BEFORE {verb} ON {table} {then}", "DROP TRIGGER keep"
    make = f"""
        CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
        CREATE TRIGGER keep BEFORE {verb} ON sidelight.{table}
            FOR EACH ROW EXECUTE FUNCTION keep()
    """
    return make, "DROP FUNCTION keep CASCADE"


def made(n):
    return record(at=NOON + n, bits=n)


NAMED = record("named", NOON + 10, organization="acme", bits=10)
ASKED = record("asked", NOON, outcome="started", trace=TRACE, span=7, flags=CALL, bits=70)
ANSWERED = record("told", NOON + 1, trace=TRACE, span=7, flags=CALL, bits=71)


def of_one(*records):
    return lambda sink: sink.write(list(records), {"instance": "p2", "resource": {}})


def of_a_stream(sink):
    sink.write_of_many([(ANSWERED, {"instance": "p2", "resource": {}})])


def end_of_process(sink):
    sink.note_end({"instance": "p2", "resource": {}})


def steps(sink):
    sink.write([NAMED], {"instance": "p2"})
    while sink.has_deferred_work:
        sink.write([], {})


@pytest.mark.parametrize(
    ("table", "verb", "before", "change"),
    [
        pytest.param("events", "UPDATE", [made(1)], of_one(NAMED), id="few earlier events"),
        pytest.param("events", "UPDATE", [*map(made, range(1, 8))], steps, id="a step"),
        pytest.param("attribution_work", "UPDATE", [*map(made, range(1, 8))], steps, id="a note"),
        pytest.param("attribution_work", "DELETE", [*map(made, range(1, 8))], steps, id="the end"),
        pytest.param("events", "UPDATE", [ASKED], end_of_process, id="an abandoned call"),
        pytest.param("open_calls", "DELETE", [ASKED], of_one(ANSWERED), id="a call's end"),
        pytest.param("open_calls", "UPDATE", [ASKED], of_a_stream, id="a call's end of a stream"),
    ],
)
def test_no_change_of_a_row_is_skipped_in_silence(url, table, verb, before, change, monkeypatch):
    """Such as of an operator who lets nobody change what is stored."""
    monkeypatch.setattr(ingest, "STEP", 3)
    writer = {"instance": "p2", "resource": {}}

    def outcomes():
        return {(each.type, each.organization_id, each.outcome) for each in exact(url)}

    with closing(StoreSink(url)) as sink:
        sink.write(before, writer)
        make, end = keeps(url, table, verb)
        alter(url, make)
        with pytest.raises(SinkUnavailableError, match=f"of {table} skipped without an error"):
            change(sink)
        alter(url, end)
        change(sink)
        sink.note_end(writer)
        expected = "abandoned" if change is end_of_process else "started"
    told = {outcome for type_, _, outcome in outcomes() if type_ == "asked"}
    assert told == ({expected} if ASKED in before else set())
    named = {organization for type_, organization, _ in outcomes() if type_ == "made"}
    assert named == ({"acme"} if ASKED not in before else set())


def test_a_merged_call_that_is_not_deleted_is_never_abandoned(url):
    make, end = keeps(url, "open_calls", "DELETE")
    writer = {"instance": "p2", "resource": {}}
    store(url, [record("first", bits=1)])
    alter(url, make)
    with closing(StoreSink(url)) as sink:
        sink.write_of_many([(ASKED, writer)])
        with contextlib.suppress(SinkUnavailableError):
            of_a_stream(sink)
        alter(url, end)
        of_a_stream(sink)
        sink.note_end(writer)
    assert {each.outcome for each in exact(url)} == {"started", "succeeded"}


@pytest.mark.parametrize(
    ("table", "verb"),
    [
        ("events", "DELETE"),
        ("artifacts", "DELETE"),
        ("artifacts", "UPDATE"),
        ("event_counts", "DELETE"),
        ("erasures", "INSERT"),
        ("retention", "UPDATE"),
    ],
)
def test_an_erasure_that_leaves_something_fails(url, table, verb):
    other = record(artifact="b1", organization="globex", bits=2)
    store(url, [record(organization="acme", bits=1), other])
    make, end = skips(url, table) if verb == "INSERT" else keeps(url, table, verb)
    alter(url, make)
    with Store(url) as opened:
        with pytest.raises(StoreError, match=f"of {table} skipped without an error"):
            opened.erase(organization_id="acme")
        alter(url, end)
        opened.erase(organization_id="acme")
    assert [event.organization_id for event in exact(url)] == ["globex"]
    store(url, [record(organization="acme", bits=3)])
    assert [event.organization_id for event in exact(url)] == ["globex"]


def test_a_tombstone_that_cannot_be_lifted_is_told(url):
    store(url, [record(organization="acme", bits=1)])
    with Store(url) as opened:
        opened.erase(artifact_id="a1")
    make, end = keeps(url, "erasures", "DELETE")
    alter(url, make)
    with Eraser(url) as eraser:
        with pytest.raises(StoreError, match="of erasures skipped without an error"):
            eraser.lift(Subject("a1", None))
        alter(url, end)
        assert eraser.lift(Subject("a1", None))
        assert not eraser.lift(Subject("a1", None))


OLD = NOON - 90 * DAY


@pytest.mark.parametrize(
    ("table", "verb"),
    [
        ("events", "DELETE"),
        ("artifacts", "DELETE"),
        ("event_counts", "DELETE"),
        ("retention", "UPDATE"),
    ],
)
def test_a_pruning_that_leaves_something_fails(url, table, verb):
    """On PostgreSQL some events are in the month that stays, so that rows have to be deleted."""
    old = [record(at=OLD + n, artifact=f"a{n}", bits=n) for n in range(5)]
    store(url, old, [record(at=NOON, bits=9)])
    with Pruner(url) as pruner:
        plan = pruner.plan(datetime.fromtimestamp((NOON - DAY) // SECOND, UTC))
        plan = replace(plan, partitions=())
        make, end = keeps(url, table, verb)
        alter(url, make)
        with pytest.raises(StoreError, match=f"of {table} skipped without an error"):
            [*pruner.run(plan, counts=True)]
        alter(url, end)
        [*pruner.run(plan, counts=True)]
    store(url, [record(at=NOON + 1, bits=10)])
    with contextlib.suppress(SinkRefusedError):
        store(url, old)  # delivered again, does not come back
    assert len(exact(url, plan.kept_since)) == 2
