"""The tables: created once, upgraded once, and never those of another application."""

import random
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest
from sqlalchemy import inspect, text
from tests.support import version1
from tests.support.stored import (
    DAY,
    NOON,
    SECOND,
    batches_of,
    deliver,
    exact,
    record,
    store,
    together,
)

from sidelight import Store
from sidelight.exceptions import SinkUnavailableError, StoreError
from sidelight.store import opening, schema
from sidelight.store.engine import connect
from sidelight.store.keys import MAX_KEY, fit_to_index
from sidelight.store.retention import Pruner
from sidelight.store.sink import StoreSink
from sidelight.store.sqlite import open_file

NOW = time.time_ns()
YEARS = 365 * DAY
CREATE = """
import sys
from sidelight.store.engine import connect
sys.stdin.readline()
for _ in range(20):  # a lock of SQLite is waited for a quarter of a second, and a relay retries
    try:
        connect(sys.argv[1], create=True).dispose()
        break
    except Exception as error:
        if "locked" not in str(error):
            raise
"""


@pytest.fixture
def url(no_store):
    return no_store


def test_several_processes_create_the_tables_at_once(url, ask):
    pipe = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [subprocess.Popen([sys.executable, "-c", CREATE, url], **pipe) for _ in range(4)]
    for process in processes:
        process.stdin.write(b"\n")
        process.stdin.flush()
    assert [process.communicate(timeout=60)[1] for process in processes] == [b""] * 4
    store(url, [record()])
    assert ask(Store.size) == 1


def layout(url):
    """Version, and each table's columns, indexes and key, as the database has them."""
    engine = connect(url, create=False)
    with engine.begin() as connection:
        version = connection.execute(text("SELECT version FROM sidelight_schema")).scalar()
        seen = inspect(connection)
        where = {"schema": "sidelight"} if connection.dialect.name == "postgresql" else {}
        found = {
            name: (
                [
                    (c["name"], str(c["type"]), c["nullable"])
                    for c in seen.get_columns(name, **where)
                ],
                sorted(
                    (
                        index["name"],
                        index["column_names"],
                        index.get("dialect_options", {}).get("postgresql_using"),
                    )
                    for index in seen.get_indexes(name, **where)
                ),
                seen.get_pk_constraint(name, **where)["constrained_columns"],
            )
            for name in seen.get_table_names(**where)
            if name in schema.metadata.tables
        }
    engine.dispose()
    assert found.keys() == schema.metadata.tables.keys()
    return version, found


# -- upgrades --------------------------------------------------------------------------------


@pytest.fixture
def upgrade_to_next(monkeypatch):
    """Makes a function the step to a version that does not exist yet; returns its calls."""

    def release(step):
        calls = []

        def counted(connection):
            calls.append(threading.current_thread().name)
            step(connection)

        monkeypatch.setattr(opening, "UPGRADES", (*opening.UPGRADES, counted))
        monkeypatch.setattr(opening, "VERSION", opening.VERSION + 1)
        return calls

    return release


def add_column(connection):
    connection.execute("ALTER TABLE losses ADD COLUMN host TEXT")


def old(count, seed=0):
    """Events of the last year, and one of a clock that is years ahead."""
    chance = random.Random(seed)
    return [
        *(
            record(
                chance.choice(["made", "sent"]),
                NOW - chance.randrange(YEARS),
                artifact=f"a{chance.randrange(count // 4)}",
                bits=chance.getrandbits(64),
            )
            for _ in range(count)
        ),
        record("ahead", NOW + 3 * YEARS, artifact="a0"),
    ]


@pytest.fixture
def relay(url):
    """The connection of a relay of version 1, which writes on during the upgrade."""
    version1.create(url)
    engine = version1.engine_of(url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@pytest.fixture
def records(relay):
    made = old(300)
    version1.write(relay, made)
    return made


def write_at_once(url, relays):
    def write(n):
        with closing(StoreSink(url)) as sink:
            deliver(sink, [record("new", NOW - n * SECOND, artifact="b")])

    together(*(lambda n=n: write(n) for n in range(relays)))


def test_the_first_of_several_relays_upgrades_a_store(url, upgrade_to_next):
    store(url, [record("made", NOON)])
    calls = upgrade_to_next(add_column)
    with pytest.raises(
        StoreError,
        match=rf"version {opening.VERSION - 1}, this .* needs {opening.VERSION}; .*relay --once",
    ):
        Store(url)
    write_at_once(url, 4)
    assert len(calls) == 1
    version, tables = layout(url)
    assert version == opening.VERSION
    assert tables["losses"][0][-1][0] == "host"
    assert len(exact(url)) == 5


def test_a_step_that_fails_changes_nothing(url, ask, upgrade_to_next, monkeypatch):
    store(url, [record()])

    def step(connection):
        add_column(connection)
        connection.execute("SELECT nonsense FROM nowhere")

    upgrade_to_next(step)
    with closing(StoreSink(url)) as sink, pytest.raises(SinkUnavailableError, match="nowhere"):
        sink.write([record()], {})
    monkeypatch.undo()
    assert layout(url)[1]["losses"][0][-1][0] != "host"
    assert ask(Store.size) == 1


def test_an_upgraded_store_keeps_all_and_has_the_layout_of_a_new_one(url, records):
    with pytest.raises(StoreError, match="schema version 1"):
        Store(url)
    with pytest.raises(StoreError, match="schema version 1"):
        Pruner(url, dry=True)  # which upgrades nothing
    write_at_once(url, 5)
    assert len(exact(url)) == len(records) + 5
    upgraded = layout(url)
    engine = connect(url, create=False)
    with engine.begin() as connection:
        for table in reversed(schema.metadata.sorted_tables):
            connection.exec_driver_sql(f"DROP TABLE {table.name}")
    engine.dispose()
    connect(url, create=True).dispose()
    assert layout(url) == upgraded


def test_a_relay_of_the_old_version_writes_on(url, relay, records):
    store(url, [record("new", NOW, artifact="b")])
    more = old(100, seed=1)[:-1]
    version1.write(relay, more)
    next_year = [record("ahead", NOW + YEARS, artifact="c")]
    version1.write(relay, next_year)
    store(url, more, next_year)  # the same again, by a relay of this version
    assert len(exact(url)) == len(records) + len(more) + 2


def test_events_from_before_the_upgrade_are_not_stored_again(url, records):
    store(url, *batches_of(records, 70))
    assert len(exact(url)) == len(records)


def test_events_from_before_the_upgrade_are_pruned_in_steps(url, records):
    store(url, [record("new", NOW, artifact="b")])
    with Pruner(url) as pruner:
        plan = pruner.plan("100d")
        assert sum(pruner.run(plan)) == plan.events + plan.artifacts > 0
        assert plan.partitions == ()
    kept = [moment for _, moment in records if moment.time >= NOW // DAY * DAY - 100 * DAY]
    assert len(exact(url, plan.kept_since)) == len(kept) + 1


def test_tables_of_another_application_are_left_alone(url):
    engine = connect(url, create=True)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE sidelight_schema"))
    engine.dispose()
    refusal = pytest.raises(SinkUnavailableError, match="other tables named artifacts,")
    with closing(StoreSink(url)) as sink, refusal:
        sink.write([record()], {})


# -- keys that an index cannot hold ----------------------------------------------------------


@pytest.mark.parametrize(
    "key", ["x" * 4096, "ü" * 3000, "🎧" * 1000, "NUL \0 inside", "\0", "\\x00 \t\n{},\"'"], ids=len
)
def test_any_id_is_stored_and_found_again(url, ask, key):
    store(
        url,
        [record(key or "made", artifact=key, organization=key, bits=1)],
        [record(key, artifact=key + "!", organization=key + "!", bits=2)],
    )
    (event,) = ask(Store.events, artifact_id=key)
    stored = fit_to_index(key)
    assert event.artifact_id == event.organization_id == stored
    assert "\0" not in stored
    assert len(stored.encode()) <= MAX_KEY
    assert stored == key or len(key.encode()) > MAX_KEY or "\0" in key
    assert ask(Store.events, organization_id=key) == [event]
    assert len(ask(Store.events, type=key)) == 2
    assert [c.organization_id for c in ask(Store.counts, organization_id=key)] == [stored]


def test_long_ids_with_the_same_beginning_stay_apart():
    assert len({fit_to_index("x" * 4096 + str(n)) for n in range(100)}) == 100


def test_a_file_is_opened_although_another_connection_holds_it(tmp_path, monkeypatch):
    """SQLite refuses the mode of the log at once, or after its short timeout."""
    path = tmp_path / "events.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE events (n)")
        other.execute("BEGIN EXCLUSIVE")
        monkeypatch.setattr("sidelight.store.sqlite.sleep", lambda _: other.rollback())
        with closing(open_file(path, read_only=False)) as opened:
            assert opened.execute("PRAGMA journal_mode").fetchone() == ("wal",)
