"""Data that is valid in form but not what sidelight writes: no command ends in a traceback."""

import contextlib
import sqlite3
import time
import zlib
from collections import Counter
from importlib.util import find_spec

import msgspec
import pytest
from tests.support.commands import of, sidelight
from tests.support.crafted import GOOD, META, PAYLOADS, nested, segment_in
from tests.support.stored import NOON, ledger, record, store

from sidelight import Store

STORE = [
    *(["events"], ["timeline", "order-1"], ["artifacts"], ["counts"], ["budget"]),
    *(["latency", "order_received", "order_packed"], ["funnel", "order_received", "order_packed"]),
    ["doctor"],
]
SPOOL = [["spool"], ["doctor"]]
QUARANTINE = [["spool"], ["spool", "quarantined"], ["doctor"]]


def survive(readers, *options):
    """Run the readers, in words and in JSON; return what the last of them said.

    An exception would pass through.
    """
    for command in readers:
        for json in ((), ("--json",)):
            said = sidelight(*command, *json, *options)
            assert said.code in {0, 1}, said
            assert not set(said.out) & set("\x1b\x07"), command
    return said.out


# -- rows of the store -----------------------------------------------------------------------

DEEP = "[" * 5000 + "]" * 5000
LESS_DEEP = "[" * 900 + "]" * 900
FINE = {
    "type": ("events", "type", "t\x1b[31m"),
    "a time before 1970": ("events", "occurred_at", -(2**63)),
    "a time in 2262": ("events", "occurred_at", 2**63 - 1),
}
UNREADABLE = {
    "outcome": ("events", "outcome", "odd"),
    "mode": ("events", "mode", "m" * 300),
    "attributes that are no JSON": ("events", "attributes", "{"),
    "attributes that are no object": ("events", "attributes", "[1]"),
    "attributes that are deep": ("events", "attributes", f'{{"k": {DEEP}}}'),
    "attributes that are less deep": ("events", "attributes", f'{{"k": {LESS_DEEP}}}'),
    "point": ("events", "point", b"\x00\xff"),
    "a time that is text": ("events", "occurred_at", "yesterday"),
    "a duration that is text": ("events", "duration", "long"),
    "a recorded time that is text": ("events", "recorded_at", "today"),
    "a histogram that is no JSON": ("costs", "histogram", "boo"),
    "a histogram of another shape": ("costs", "histogram", '{"max": "x", "buckets": 5}'),
    "an artifact's time that is text": ("artifacts", "last_event_at", "today"),
    "a number of losses that is text": ("losses", "count", "many"),
    "a day that is none": ("event_counts", "day", "someday"),
    "a count that is text": ("event_counts", "count", "many"),
}
EVENTS = 12
KEYS = {
    "events": "event_id",
    "artifacts": "artifact_id",
    "costs": "process, point",
    "losses": "process, reason",
    "event_counts": "organization_id, type, day",
}


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    path = tmp_path_factory.mktemp("filled") / "events.db"
    types = ("order_received", "order_packed")
    made = [record(types[n % 2], NOON + n, artifact="order-1") for n in range(EVENTS)]
    costs = {"count": 3, "over": 0, "max": 123_456, "buckets": [[100, 3]]}
    told = ledger({"not recorded": 1}, {"shop:make": costs, "shop:pack": costs}, time.time_ns())
    store(f"sqlite:///{path}", made, [told])
    return path


@pytest.mark.parametrize("rows", [FINE, UNREADABLE], ids=["fine", "unreadable"])
def test_crafted_rows_are_shown_and_the_others_too(filled, tmp_path, rows):
    """Each row of the store is crafted in one way."""
    path = tmp_path / "events.db"
    path.write_bytes(filled.read_bytes())
    crafted = Counter()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for name, (table, column, value) in rows.items():
            keys = KEYS[table]
            place = f"({keys}) = (SELECT {keys} FROM {table} ORDER BY {keys} LIMIT 1 OFFSET ?)"
            changed = connection.execute(
                f"UPDATE {table} SET {column} = ? WHERE {place}", (value, crafted[table])
            )
            assert changed.rowcount == 1, name
            crafted[table] += 1
        connection.commit()
    told = survive(STORE, *of(path))
    if rows is FINE:
        assert "rows cannot be read" not in told
    else:
        words = f"{len(rows)} rows cannot be read, because no relay writes such rows"
        assert words in told
        assert all(f"{number} in {table}" in told for table, number in crafted.items()), told
    with Store(f"sqlite:///{path}") as opened:
        found = list(opened.events())
    for kind in ("csv", "jsonl", *(["parquet"] if find_spec("pyarrow") else [])):
        said = sidelight("export", "--to", tmp_path / f"events.{kind}", "--json", *of(path))
        assert (said.code, said.json[0]["events"]) == (0, EVENTS), kind
    assert len(found) == EVENTS
    odd = [event for event in found if "sidelight.unreadable" in event.attributes]
    assert len(odd) == (0 if rows is FINE else crafted["events"]), odd


# -- records, headers and entries of a spool -------------------------------------------------


@pytest.fixture
def path(filled, tmp_path):
    path = tmp_path / "events.db"
    path.write_bytes(filled.read_bytes())
    return path


def spool_with(path, *payloads, **changed):
    """The spool of a store, with one crafted segment."""
    directory = path.with_name(f"{path.name}-spool")
    segment_in(directory, f"sqlite:///{path}", payloads, **changed)
    return directory


def erased(path, *, is_told):
    """Erase an artifact of the store; the receipt tells what cannot be read."""
    said = sidelight("erase", "--artifact", "order-1", "--yes", "--json", *of(path))
    (receipt,) = said.json
    assert receipt["events"] == EVENTS
    assert (said.code, receipt["complete"]) == (int(is_told), not is_told), receipt
    assert ("cannot be read" in " ".join(receipt["problems"])) == is_told, receipt
    return receipt


READABLE = {"extension", "late time", "early time", "details", "ledger", "escape codes"}


@pytest.mark.parametrize("kind", PAYLOADS)
def test_a_crafted_record(path, kind):
    spool_with(path, PAYLOADS[kind])
    told = survive(SPOOL, *of(path))
    assert ("1 record in the segments cannot be read" in told) == (kind not in READABLE)
    assert erased(path, is_told=kind not in READABLE)["spool"] >= GOOD


@pytest.mark.parametrize("kind", META)
def test_a_crafted_header(path, kind):
    spool_with(path, **META[kind])
    survive(SPOOL, *of(path))
    erased(path, is_told=False)


def quarantine(path, payload, **changed):
    """Put an entry aside, with some of its fields changed."""
    directory = spool_with(path) / "quarantine"
    directory.mkdir(mode=0o700)
    entry = {
        "kind": "record",
        "reason": "r\x1b[2J",
        "problem": "p",
        "refused_by": "store",
        "sinks": ["store"],
        "at": time.time_ns(),
        "writer": {},
        "segment": "s",
        "offset": None,
        "payload": payload,
    }
    name = f"{zlib.crc32(payload):016x}-store.msgpack"
    (directory / name).write_bytes(msgspec.msgpack.encode({**entry, **changed}))


@pytest.mark.parametrize("kind", PAYLOADS)
def test_a_crafted_record_in_the_quarantine(path, kind):
    quarantine(path, PAYLOADS[kind])
    survive(QUARANTINE, *of(path))
    erased(path, is_told=kind not in READABLE)
    assert sidelight("spool", "replay", *of(path)).code in {0, 1}


def test_a_crafted_entry_of_the_quarantine(path):
    quarantine(path, PAYLOADS["details"], at=2**63 - 1, writer={"store": 5})
    survive(QUARANTINE, *of(path))
    erased(path, is_told=True)
    assert sidelight("spool", "replay", *of(path)).code in {0, 1}


@pytest.mark.parametrize("content", [b"", b"\x91" * 5000, b"\xc1", b"\x80", nested(900)], ids=len)
def test_a_file_in_the_quarantine_that_is_no_entry(path, content):
    directory = spool_with(path) / "quarantine"
    directory.mkdir(mode=0o700)
    (directory / f"{7:016x}-store.msgpack").write_bytes(content)
    survive(QUARANTINE, *of(path))
    erased(path, is_told=True)


def test_an_entry_of_a_deeply_nested_writer(path):
    quarantine(path, PAYLOADS["details"])
    (file,) = (path.with_name(f"{path.name}-spool") / "quarantine").iterdir()
    flat, deep = b"\xa6writer\x80", b"\xa6writer\x81\xa1k" + nested(5000)
    file.write_bytes(file.read_bytes().replace(flat, deep))
    assert "its file is damaged" in survive(QUARANTINE[1:2], *of(path))
    survive(QUARANTINE, *of(path))
    erased(path, is_told=True)
    assert sidelight("spool", "replay", *of(path)).code == 1
    assert sidelight("spool", "discard", "--all", *of(path)).code == 0
    assert not file.exists()
