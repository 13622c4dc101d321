"""The tables: made once by whoever comes first, upgraded once, and never somebody else's."""

import subprocess
import sys
import threading
from contextlib import closing

import pytest
from sqlalchemy import inspect, text
from tests.support.stored import NOON, deliver, record, store

from sidelight import Store
from sidelight.exceptions import SinkUnavailableError, StoreError
from sidelight.store import schema
from sidelight.store.schema import MAX_KEY, connect, fit_to_index
from sidelight.store.sink import StoreSink

CREATE = """
import sys
from sidelight.store.schema import connect
sys.stdin.readline()
for _ in range(20):  # SQLite's lock is waited for a quarter of a second, and a relay comes again
    try:
        connect(sys.argv[1], create=True).dispose()
        break
    except Exception as error:
        if "locked" not in str(error):
            raise
"""


def test_several_processes_make_the_tables_at_once(url, ask):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CREATE, url], stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(4)
    ]
    for process in processes:
        process.stdin.write(b"\n")
        process.stdin.flush()
    assert [process.communicate(timeout=60)[1] for process in processes] == [b""] * 4
    store(url, [record()])
    assert ask(Store.size) == 1


@pytest.fixture
def next_version(monkeypatch):
    """A step to a version that there is not yet; answers how often it was taken."""
    taken = []

    def step(connection):
        taken.append(connection.dialect.name)
        connection.execute(text("ALTER TABLE losses ADD COLUMN host TEXT"))

    def release():
        monkeypatch.setattr(schema, "UPGRADES", (*schema.UPGRADES, step))
        monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
        return taken

    return release


def columns(url):
    engine = connect(url, create=False)
    try:
        with engine.begin() as connection:
            version = connection.execute(text("SELECT version FROM sidelight_schema")).scalar()
            found = inspect(connection).get_columns(
                "losses", schema="sidelight" if connection.dialect.name == "postgresql" else None
            )
            return version, [column["name"] for column in found]
    finally:
        engine.dispose()


def test_an_old_store_is_upgraded_once_by_whoever_writes_first(url, ask, next_version):
    store(url, [record("made", NOON)])
    before = schema.VERSION
    taken = next_version()
    problems = []

    def write(n):
        try:
            with closing(StoreSink(url)) as sink:
                deliver(sink, [record("made", NOON + n)])
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert len(taken) == 1
    assert columns(url) == (
        before + 1,
        ["process", "reason", "count", "problem", "last_at", "host"],
    )
    assert ask(Store.size) == 5


def test_a_reader_of_an_old_store_says_what_upgrades_it(url, next_version):
    store(url, [record()])
    next_version()
    old, new = schema.VERSION - 1, schema.VERSION
    told = rf"schema version {old}, this .* needs {new}; .*relay --once"
    with pytest.raises(StoreError, match=told):
        Store(url)


def test_a_step_that_fails_leaves_all_as_it_was(url, ask, monkeypatch):
    store(url, [record()])

    def step(connection):
        connection.execute(text("ALTER TABLE losses ADD COLUMN host TEXT"))
        connection.execute(text("SELECT nonsense FROM nowhere"))

    with monkeypatch.context() as patch:
        patch.setattr(schema, "UPGRADES", (*schema.UPGRADES, step))
        patch.setattr(schema, "VERSION", schema.VERSION + 1)
        with closing(StoreSink(url)) as sink, pytest.raises(SinkUnavailableError, match="nowhere"):
            sink.write([record()], {})
    assert columns(url)[1][-1] != "host"
    assert ask(Store.size) == 1


def test_tables_of_somebody_elses_are_left_alone(url):
    engine = connect(url, create=True)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE sidelight_schema"))
    engine.dispose()
    strangers = pytest.raises(SinkUnavailableError, match="other tables named artifacts, costs")
    with closing(StoreSink(url)) as sink, strangers:
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
    assert event.artifact_id == event.organization_id == fit_to_index(key)
    assert "\0" not in event.artifact_id
    assert len(event.artifact_id.encode()) <= MAX_KEY
    assert event.artifact_id == key or len(key.encode()) > MAX_KEY or "\0" in key
    assert ask(Store.events, organization_id=key) == [event]
    assert len(ask(Store.events, type=key)) == 2
    assert [count.organization_id for count in ask(Store.counts, organization_id=key)] == [
        fit_to_index(key)
    ]


def test_ids_that_begin_alike_stay_apart():
    keys = {fit_to_index("x" * 4096 + str(n)) for n in range(100)}
    assert len(keys) == 100
