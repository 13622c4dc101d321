"""Rows that no relay writes, in every table and column: each question answers beside them."""

import contextlib
import re
import sqlite3
from collections import Counter

import pytest
from tests.support.commands import sidelight
from tests.support.pages import serve
from tests.support.stored import NOON, SECOND, ledger, record, sqlite
from tests.support.stored import store as write

from sidelight import Store
from sidelight.record import Expectation

VALUES = ["x", b"\xff\xfe", -5, 2**62, None, '{"a":', "[1,2]", "[[1,-3]]", 1e300, 0.5, ""]
GOOD = [
    record(kind, NOON + number * SECOND, artifact=f"a{number % 9}", organization="north")
    for number, kind in enumerate(["received", "packed", "sent"] * 40)
]
EXPECTED = [Expectation(after="received", one_of="never", within="1s")]
FILTERS = [
    {},
    {"type": "received"},
    {"type": ["received", "packed"]},
    {"organization_id": "north"},
    {"organization_id": ""},
    {"trace_id": "0" * 32},
    {"where": "a>0"},
    {"where": ["a=1", "b=x"]},
    {"outcome": "succeeded"},
    {"point": "shop:make"},
    {"service": "shop"},
    {"host": "h"},
]
RANGES = [{}, {"since": "3650d"}, {"until": "1s"}]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Good events, and beside them rows with one bad value each."""
    directory = tmp_path_factory.mktemp("crafted")
    write(sqlite(directory), GOOD, [ledger({"spool full": 1})], writer="i1")
    with contextlib.closing(sqlite3.connect(directory / "events.db")) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        for (table,) in tables.fetchall():
            if table in {"sidelight_schema", "retention"}:  # of the store, not of an event
                continue
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            example = connection.execute(f"SELECT * FROM {table}").fetchone()
            example = example or (0,) * len(columns)
            for at in range(len(columns)):
                for number, value in enumerate(VALUES):
                    row = [f"{example[0]}"[:-4] + f"{at:02}{number:02}", *example[1:]]
                    row[at] = value
                    marks = ", ".join("?" * len(columns))
                    with contextlib.suppress(sqlite3.IntegrityError):
                        connection.execute(f"INSERT INTO {table} VALUES ({marks})", row)
        connection.commit()
    with Store(sqlite(directory)) as opened:
        yield opened


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("within", RANGES, ids=str)
@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_events(store, filters, within, newest_first):
    found = store.events(**filters, **within, newest_first=newest_first)
    good = {event.event_id for event in found if event.artifact_id in {"a1", "a2"}}
    if filters.keys() <= {"type", "organization_id"} and filters.get("organization_id") != "":
        named = filters.get("type", ["received", "packed", "sent"])
        wanted = [
            each for each in GOOD if each[0].type in named and each[1].artifact_id in {"a1", "a2"}
        ]
        assert len(good) >= len(wanted)
    list(store.events(**filters, **within, newest_first=newest_first, time_limit=0.01))
    assert len(list(store.events(**filters, newest_first=newest_first, limit=3))) <= 3


@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_counts_and_journeys(store, filters):
    if "trace_id" not in filters:
        of = {name: value for name, value in filters.items() if name != "type"}
        store.latency("received", "sent", **of)
        store.latency("received", "sent", by=["day", "organization", "point"], **of)
        store.funnel(["received", ["packed", "sent"]], **of)
        store.overdue(EXPECTED, since=None, **of)
        store.counts(**filters)
    list(store.pages(**filters))


def test_inventories(store):
    assert {f"a{number}" for number in range(9)} <= {each.artifact_id for each in store.artifacts()}
    store.shared_artifacts()
    store.losses()
    store.costs()
    store.costs(since="1d")
    store.costs(latest=5)
    store.processes()
    store.processes(limit=5)
    assert {"received", "packed", "sent"} <= {each.type for each in store.types(since="3650d")}
    assert len(store.types(limit=2)) <= 2
    assert store.size()
    assert store.timeline("a1")
    assert store.unreadable


SUBJECTS = [("a1", None), ("a1", "north"), (None, "north"), ("a1", ""), ("x", None), (None, "x")]


@pytest.mark.parametrize(("artifact", "organization"), SUBJECTS, ids=repr)
def test_erase(store, tmp_path, artifact, organization):
    """Every row that names the subject goes, whatever else it holds."""
    path = tmp_path / "events.db"
    with (
        contextlib.closing(sqlite3.connect(store.url.removeprefix("sqlite:///"))) as original,
        contextlib.closing(sqlite3.connect(path)) as copy,
    ):
        original.backup(copy)

        def left(table="events"):
            return Counter(copy.execute(f"SELECT artifact_id, organization_id FROM {table}"))

        before = left()
        given = [*(["--artifact", artifact] if artifact else ())]
        given += [] if organization is None else ["--organization", organization]
        for _ in range(2):
            said = sidelight("erase", *given, "--yes", "--json", "--store", f"sqlite:///{path}")
            assert said.code == 0, said
        (receipt,) = said.json
        assert receipt["complete"]
        assert receipt["events"] == 0
        gone, rows = before - left(), left("artifacts")
        for name, owner in gone:
            assert artifact in {None, name}
            assert (owner or "") in {organization, ""} or organization is None
        for name, owner in [*left(), *rows]:
            is_named = artifact in {None, name} and organization in {None, owner}
            assert not is_named, (name, owner)
    told = " ".join(receipt["not_reached"])
    assert f"whose {'artifact_id' if artifact else 'organization_id'} is no text" in told


COMMANDS = [
    "events",
    "events --json",
    "counts",
    "counts --by day",
    "artifacts",
    "artifacts --json",
    "budget",
    "budget --json",
    "timeline a1",
    "latency received sent --by point",
    "funnel received packed,sent",
    "doctor",
    "prune --older-than 1d --dry-run --trust-clock",
    "erase --artifact a1 --dry-run",
    "erase --organization north --dry-run",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands(store, command):
    said = sidelight(*command.split(), "--store", store.url)
    assert "Traceback" not in said.out + said.err
    assert said.out


def test_pages(store):
    with serve(store.url) as served:
        for address in (
            "/",
            "/artifacts",
            "/artifacts?q=north",
            "/flow?steps=received+sent",
            "/points",
        ):
            assert served.client.get(address).status_code == 200, address
        for found in re.findall(r'"(/artifact/[^"]+)"', served.text("/artifacts")):
            assert served.client.get(found).status_code in {200, 404}
