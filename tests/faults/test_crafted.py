"""Row 26: records, headers, entries and rows that sidelight does not write stand beside good ones.

Every good record is delivered, every other one is counted, and no command ends in a traceback.
"""

import contextlib
import os
import sqlite3
import tempfile
from pathlib import Path

import hypothesis
import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.balance import balance
from tests.support.commands import of, sidelight
from tests.support.crafted import HEAD, LEDGER, META, PAYLOADS, moment, segment_in
from tests.support.programs import deliver, nothing_left

from sidelight import Store
from sidelight.record.format import MAX_PAYLOAD, encode

STAYS = {"an unknown sink", "escape codes"}  # another sink's, another store's
READERS = [["doctor"], ["events", "--json"], ["budget"], ["spool", "quarantined", "--json"]]


def test_good_records_beside_all_kinds_of_bad_ones(store, tmp_path, row):
    spool = tmp_path / "events.db-spool"
    good = segment_in(spool, store, [*PAYLOADS.values()])
    for number, (kind, changed) in enumerate(META.items(), 1):
        if kind not in STAYS:
            good |= segment_in(spool, store, first=100 * number, **changed)
    deliver(store)
    with Store(store) as opened:
        stored = [event.event_id for event in opened.events()]
        losses = {loss.reason: loss.count for loss in opened.losses()}
    assert losses.pop("damaged header of a segment") == 7  # its records are read all the same
    counted = sum(losses.values())
    # An odd record is stored, under any id, where its types are right.
    found = [event_id if event_id in good else "odd" for event_id in stored]
    assert len(set(stored)) == len(stored)
    row(
        24,
        "crafted records and headers",
        injected=len(PAYLOADS) + len(META),
        verdict=balance([*good, *["odd"] * len(PAYLOADS)], found, counted=counted),
    )
    nothing_left(store)


# -- generated -------------------------------------------------------------------------------

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20)
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)
FIELDS = ["time", "random", "artifact_id", "organization_id", "duration", "trace", "span_id"]
FIELDS += ["parent_id", "flags", "attributes", "details"]


@st.composite
def mutated(draw):
    """A record some of whose bytes are changed, cut out or repeated."""
    payload = bytearray(draw(st.sampled_from([*PAYLOADS.values(), HEAD + moment()])))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(payload) - 1)))
        length = draw(st.integers(0, 3))
        payload[at : at + length] = draw(st.binary(max_size=4))
    return bytes(payload) or b"x"


RECORDS = st.one_of(
    st.binary(min_size=1, max_size=200),
    mutated(),
    st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=3).map(
        lambda fields: HEAD + moment(**fields)
    ),
    VALUES.map(lambda value: LEDGER + moment(attributes=value)),
    st.dictionaries(st.sampled_from(["losses", "problems", "costs"]), VALUES).map(
        lambda value: LEDGER + moment(attributes=value)
    ),
    st.lists(VALUES, max_size=6).map(lambda head: b"\x92" + encode(head) + moment()),
).filter(lambda payload: len(payload) <= MAX_PAYLOAD)
HEADERS = st.dictionaries(
    st.sampled_from(["instance", "pid", "relay", "role", "limit", "resource", "limits"]),
    VALUES,
    max_size=2,
)
COLUMNS = {
    "events": ["type", "mode", "outcome", "attributes", "occurred_at", "duration", "trace_id"],
    "costs": ["histogram", "count", "last_at"],
    "losses": ["count", "problem", "last_at"],
    "event_counts": ["day", "count"],
    "artifacts": ["first_event_at", "last_event_at", "events", "organization_id"],
}
CELLS = st.sampled_from([(table, name) for table, names in COLUMNS.items() for name in names])
ROW_VALUES = (
    st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text() | st.binary(max_size=30)
)
ENTRIES = st.binary(max_size=50) | VALUES.map(msgspec.msgpack.encode)


def survive(path):
    for command in READERS:
        said = sidelight(*command, *of(path))
        assert said.code in {0, 1}, (command, said)
        assert "Traceback" not in said.err, (command, said.err)


def check(records, header, entry, cells):
    """Deliver good records beside generated ones, change the store's rows, and read everything.

    Returns:
        The ids of the good records, and those of them that the store has.
    """
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "events.db"
        spool, store = path.with_name("events.db-spool"), f"sqlite:///{path}"
        good = segment_in(spool, store, records) | segment_in(spool, store, first=100, **header)
        (spool / "quarantine").mkdir(mode=0o700)
        (spool / "quarantine" / f"{7:016x}-store.msgpack").write_bytes(entry)
        said = sidelight("relay", "--once", *of(path))
        assert said.code == 0, said
        with Store(store) as opened:
            stored = [event.event_id for event in opened.events()]
        assert sidelight("spool", "replay", *of(path)).code in {0, 1}
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA ignore_check_constraints = ON")
            for (table, column), value in cells:
                with contextlib.suppress(sqlite3.IntegrityError, UnicodeEncodeError):
                    connection.execute(f"UPDATE {table} SET {column} = ?", (value,))
            connection.commit()
        survive(path)
    return good, [event_id for event_id in stored if event_id in good]


GENERATED = given(
    records=st.lists(RECORDS, min_size=1, max_size=5),
    header=HEADERS,
    entry=ENTRIES,
    cells=st.lists(st.tuples(CELLS, ROW_VALUES), max_size=3),
)


def test_generated_records_headers_entries_and_rows(full, row):
    examples = int(os.environ.get("FUZZ_EXAMPLES", "300" if full else "6"))
    piece = os.environ.get("FUZZ_SEED")  # of a long run: each has other examples
    seen, every, found = 0, [], []

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=piece is None,
        suppress_health_check=[*HealthCheck],
        database=None,
    )
    @GENERATED
    def run(records, header, entry, cells):
        nonlocal seen
        seen += 1
        good, stored = check(records, header, entry, cells)
        assert good <= set(stored)
        every.extend((seen, event_id) for event_id in good)
        found.extend((seen, event_id) for event_id in stored)

    (run if piece is None else hypothesis.seed(int(piece))(run))()
    verdict = balance(every, found)
    row(24, "generated records, headers, entries, rows", injected=seen, verdict=verdict)
