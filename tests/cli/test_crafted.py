"""Data that is valid in form but not what sidelight writes: no command ends in a traceback."""

import contextlib
import sqlite3
import struct
import time
import zlib

import msgspec
import pytest
from tests.support.commands import TWO_ORDERS, emit, of, sidelight

from sidelight import Store
from sidelight.record.format import Static, encode, encode_static, frame
from sidelight.spool.segment import Segment

STORE = [["events"], ["timeline", "order-1"], ["artifacts"], ["counts"], ["budget"], ["doctor"]]
SPOOL = [["spool"], ["doctor"]]
QUARANTINE = [["spool"], ["spool", "quarantined"], ["doctor"]]


def survive(readers, *options):
    """Run the readers, in words and in JSON; an exception would pass through."""
    for command in readers:
        for json in ((), ("--json",)):
            said = sidelight(*command, *json, *options)
            assert said.code in {0, 1}, said
            assert not set(said.out) & set("\x1b\x07"), command


# -- rows of the store -----------------------------------------------------------------------

DEEP = "[" * 5000 + "]" * 5000
ROWS = {
    "outcome": ("events", "outcome", "odd"),
    "mode": ("events", "mode", "m" * 300),
    "attributes that are no JSON": ("events", "attributes", "{"),
    "attributes that are no object": ("events", "attributes", "[1]"),
    "attributes that are deep": ("events", "attributes", f'{{"k": {DEEP}}}'),
    "type": ("events", "type", "t\x1b[31m"),
    "point": ("events", "point", b"\x00\xff"),
    "a time that is text": ("events", "occurred_at", "yesterday"),
    "a time before 1970": ("events", "occurred_at", -(2**63)),
    "a time in 2262": ("events", "occurred_at", 2**63 - 1),
    "a duration that is text": ("events", "duration", "long"),
    "a recorded time that is text": ("events", "recorded_at", "today"),
    "a histogram that is no JSON": ("costs", "histogram", "boo"),
    "a histogram of another shape": ("costs", "histogram", '{"max": "x", "buckets": 5}'),
    "an artifact's time that is text": ("artifacts", "last_event_at", "today"),
    "a number of losses that is text": ("losses", "count", "many"),
    "a day that is none": ("event_counts", "day", "someday"),
    "a count that is text": ("event_counts", "count", "many"),
}


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    path = tmp_path_factory.mktemp("filled") / "events.db"
    body = 'from sidelight.emission.emitter import EMITTER\nEMITTER.count("not recorded", "no")\n'
    emit(body + TWO_ORDERS, path)
    return path


@pytest.mark.parametrize("row", ROWS)
def test_a_crafted_row_is_shown_and_the_others_too(filled, tmp_path, row):
    table, column, value = ROWS[row]
    path = tmp_path / "events.db"
    path.write_bytes(filled.read_bytes())
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        key = f"SELECT min(rowid) FROM {table}"
        if (
            "WITHOUT ROWID"
            in connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,))
            .fetchone()[0]
            .upper()
        ):
            connection.execute(f"UPDATE {table} SET {column} = ?", (value,))
        else:
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ({key})", (value,))
        connection.commit()
    survive(STORE, *of(path))
    if table == "events":
        with Store(f"sqlite:///{path}") as store:
            found = list(store.events())
        assert len(found) == 6
        odd = [event for event in found if "sidelight.unreadable" in event.attributes]
        fine = {"type", "a time before 1970", "a time in 2262"}
        assert len(odd) == (0 if row in fine else 1), odd


# -- records, headers and entries of a spool -------------------------------------------------

HEAD = encode_static(Static("crafted", "p:f", "scheduled", "emitted", None))
LEDGER = encode_static(Static(None, "x", "scheduled", "ledger", None))


def moment(**changed):
    fields = {
        "time": time.time_ns(),
        "random": 7,
        "artifact_id": "order-1",
        "organization_id": None,
        "duration": None,
        "trace": None,
        "span_id": 0,
        "parent_id": 0,
        "flags": 0,
        "attributes": None,
        "details": None,
    }
    return encode(tuple({**fields, **changed}.values()))


def raw_moment(attributes=b"\xc0", artifact=b"\xa1a"):
    """An encoded moment with raw bytes in two places."""
    rest = b"\xc0\xc0\xc0\x00\x00\x00"
    return b"\x9b" + encode(time.time_ns()) + encode(7) + artifact + rest + attributes + b"\xc0"


def nested(levels):
    return b"\x91" * levels + b"\x01"


PAYLOADS = {
    "deep attributes": HEAD + raw_moment(b"\x81\xa1k" + nested(5000)),
    "less deep attributes": HEAD + raw_moment(b"\x81\xa1k" + nested(900)),
    "deep artifact": HEAD + raw_moment(artifact=nested(5000)),
    "less deep artifact": HEAD + raw_moment(artifact=nested(900)),
    "array of a billion": HEAD + raw_moment(b"\x81\xa1k\xdd" + struct.pack(">I", 10**9)),
    "text of 4 GB": HEAD + raw_moment(b"\x81\xa1k\xdb" + struct.pack(">I", 4 * 10**9)),
    "extension": HEAD + raw_moment(b"\x81\xa1k\xc7\x05\x7fabcde"),
    "far timestamp": HEAD
    + raw_moment(b"\x81\xa1k\xc7\x0c\xff" + struct.pack(">Iq", 999999999, 2**62)),
    "late time": HEAD + moment(time=2**64 - 1),
    "early time": HEAD + moment(time=-(2**63)),
    "details": HEAD + moment(details={"error": 5}),
    "ledger": LEDGER + moment(attributes={"losses": {"r": "many"}, "costs": {"p": 5}}),
    "escape codes": b"\x92" + encode(["t\x1b[31m", "p", "m" * 300, "emitted", None]) + moment(),
    "outcome": b"\x92" + encode(["t", "p", "m", "odd", None]) + moment(),
    "not a record": b"not a record",
}
META = {
    "sinks that are a number": {"sinks": 5},
    "sinks that are lists": {"sinks": [[1]]},
    "an unknown sink": {"sinks": ["store", "elsewhere"]},
    "a store that is a list": {"store": ["x"]},
    "an instance that is a map": {"instance": {"a": 1}},
    "a pid that is text": {"pid": "one"},
    "a negative limit": {"limit": -1},
    "a resource that is a list": {"resource": [1]},
    "a resource with lists": {"resource": {"service.name": ["x"], "host.name": {"a": 1}}},
    "escape codes": {
        "store": "sqlite:////x\x1b]0;pwn\x07",
        "resource": {"service.name": "\x1b[2J"},
    },
}


def spool_with(path, payload=None, **changed):
    """A spool with one crafted segment, beside good records."""
    directory = path.with_name(f"{path.name}-spool")
    directory.mkdir(mode=0o700, exist_ok=True)
    meta = {
        "instance": "00aa",
        "pid": 1,
        "store": f"sqlite:///{path}",
        "relay": "thread",
        "role": "application",
        "limit": 1 << 30,
        "sinks": ["store"],
        "limits": [],
        "resource": {},
    }
    segment = Segment.create(directory, 1 << 20, {**meta, **changed})
    good = [HEAD + moment(random=n) for n in range(10)]
    for each in (*good[:5], *([payload] if payload else []), *good[5:]):
        segment.write(frame(each))
    segment.close()
    return directory


@pytest.fixture
def path(filled, tmp_path):
    path = tmp_path / "events.db"
    path.write_bytes(filled.read_bytes())
    return path


@pytest.mark.parametrize("kind", PAYLOADS)
def test_a_crafted_record(path, kind):
    spool_with(path, PAYLOADS[kind])
    survive(SPOOL, *of(path))


@pytest.mark.parametrize("kind", META)
def test_a_crafted_header(path, kind):
    spool_with(path, **META[kind])
    survive(SPOOL, *of(path))


@pytest.mark.parametrize("kind", PAYLOADS)
@pytest.mark.parametrize("changed", [{}, {"at": 2**63 - 1, "writer": {"store": 5}}], ids=str)
def test_a_crafted_entry_of_the_quarantine(path, kind, changed):
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
        "payload": PAYLOADS[kind],
    }
    name = f"{zlib.crc32(PAYLOADS[kind]):016x}-store.msgpack"
    (directory / name).write_bytes(msgspec.msgpack.encode({**entry, **changed}))
    survive(QUARANTINE, *of(path))
    assert sidelight("spool", "replay", *of(path)).code in {0, 1}


@pytest.mark.parametrize("content", [b"", b"\x91" * 5000, b"\xc1", b"\x80", nested(900)], ids=len)
def test_a_file_in_the_quarantine_that_is_no_entry(path, content):
    directory = spool_with(path) / "quarantine"
    directory.mkdir(mode=0o700)
    (directory / f"{7:016x}-store.msgpack").write_bytes(content)
    survive(QUARANTINE, *of(path))
