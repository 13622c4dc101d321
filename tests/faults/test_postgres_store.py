"""Faults of PostgreSQL as one relay meets them: what comes later, what never, and nothing twice."""

import contextlib
import gc
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg
import pytest
from sqlalchemy.engine import make_url
from tests.support.children import in_a_forked_child
from tests.support.postgres import connected, new_database, own_server
from tests.support.programs import wait_until
from tests.support.proxy import Proxy
from tests.support.rules import alter
from tests.support.stored import NOON, deliver, record, store

from sidelight import Store
from sidelight.exceptions import (
    ConfigurationError,
    SinkRefusedError,
    SinkUnavailableError,
    StoreError,
)
from sidelight.store import ingest, postgres
from sidelight.store.address import parse_url
from sidelight.store.engine import engine_on
from sidelight.store.sink import StoreSink

SOON = 1.0  # seconds, in place of ten
BLOCKED = """
SELECT 1 FROM pg_stat_activity WHERE datname = current_database()
AND application_name = 'sidelight' AND wait_event_type = 'Lock'
"""


@pytest.fixture
def url():
    return new_database(own_server())


@pytest.fixture
def server():
    """A server that may be stopped; left as it was found."""
    running = own_server()
    yield running
    running.resume()


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(postgres, "WRITE_TIMEOUT", SOON)
    monkeypatch.setitem(postgres._DEFAULTS, "connect_timeout", 2)


def content(url):
    """Everything that has to be right: rows by organization, and each counter."""
    with Store(url) as opened:
        events = list(opened.events())
        counts = {(c.organization_id, c.type): c.count for c in opened.counts()}
        artifacts = {a.artifact_id: (a.organization_id, a.events) for a in opened.artifacts()}
    rows = {}
    for each in events:
        key = (each.organization_id, each.type)
        rows[key] = rows.get(key, 0) + 1
    assert counts == rows
    return len(events), artifacts


# -- errors ----------------------------------------------------------------------------------

FAIL = """
CREATE SEQUENCE failures;
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('sidelight.failures') <= {times} THEN
        {action};
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER fails AFTER INSERT OR UPDATE ON {table}
    DEFERRABLE INITIALLY {when} FOR EACH ROW EXECUTE FUNCTION fail()
"""


def make_fail(url, action, *, times=1, when="IMMEDIATE", table="event_counts"):
    """Let the next writes fail: at the last statement, or in COMMIT itself (DEFERRED)."""
    with connected(url) as connection:
        connection.execute(FAIL.format(action=action, times=times, when=when, table=table))


def raising(state):
    return f"RAISE EXCEPTION 'no luck' USING ERRCODE = '{state}'"


TERMINATE = "PERFORM pg_terminate_backend(pg_backend_pid())"


NOT_THE_RECORDS = "40001 40P01 55P03 57014 53100 25006 42501 XX000 P0001 AB123"
FAILURES = [
    *(
        (SinkUnavailableError, state, "event_counts", when)
        for state in NOT_THE_RECORDS.split()
        for when in ("IMMEDIATE", "DEFERRED")
        if (state, when) not in {("P0001", "DEFERRED"), ("AB123", "DEFERRED")}
    ),
    # PostgreSQL does not tell of which table a deferred trigger is that raises.
    (SinkRefusedError, "P0001", "event_counts", "DEFERRED"),
    # A sum is refused, after `events` has taken the values.
    *(
        (SinkUnavailableError, state, table, "IMMEDIATE")
        for state in ("22003", "23505", "23514")
        for table in ("event_counts", "artifacts")
    ),
    (SinkUnavailableError, "P0001", "artifacts", "IMMEDIATE"),
    *(
        (SinkRefusedError, state, "events", "IMMEDIATE")
        for state in ("22003", "22P05", "23514", "54000", "P0001", "AB123")
    ),
]


@pytest.mark.parametrize(("error", "state", "table", "when"), FAILURES)
def test_only_a_rule_about_an_event_refuses_its_record(url, error, state, table, when):
    """Every other error makes the store unavailable, and the record is written later."""
    store(url, [record("made", NOON)])
    make_fail(url, raising(state), times=2, when=when, table=table)
    with closing(StoreSink(url)) as sink:
        for _ in range(2):
            with pytest.raises(error, match="no luck"):
                sink.write([record("sent", NOON, bits=1)], {})
        sink.write([record("sent", NOON, bits=1)], {})
    assert content(url) == (2, {"a1": (None, 2)})


@pytest.mark.parametrize("when", ["IMMEDIATE", "DEFERRED"])
def test_a_session_that_is_terminated_in_the_middle(url, when):
    """DEFERRED: while it commits."""
    store(url, [record("made", NOON)])
    make_fail(url, TERMINATE, times=2, when=when)
    records = [record("sent", NOON + n, bits=n) for n in range(100)]
    with closing(StoreSink(url)) as sink:
        for _ in range(2):
            with pytest.raises(SinkUnavailableError, match="terminat"):
                sink.write(records, {})
        sink.write(records, {})
    assert content(url) == (101, {"a1": (None, 101)})


def test_terminated_again_and_again_by_somebody_else(url):
    store(url, [record("made", NOON)])
    over = threading.Event()
    killed = []

    def terminate():
        with psycopg.connect(url, autocommit=True) as connection:
            while sum(killed) < 40 and not over.wait(random.random() * 0.05):
                killed.append(
                    connection.execute(
                        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                        " WHERE application_name = 'sidelight' AND datname = current_database()"
                    ).fetchone()[0]
                )

    thread = threading.Thread(target=terminate)
    thread.start()
    try:
        with closing(StoreSink(url)) as sink:
            for n in range(30):
                deliver(sink, [record("sent", NOON + n, artifact=m) for m in range(20)])
    finally:
        over.set()
        thread.join()
    assert sum(killed) > 0
    assert content(url)[0] == 601


def test_a_deadlock_with_somebody_else_comes_later(url):
    store(url, [record(artifact="a"), record(artifact="b")])
    alter(url, f"ALTER DATABASE {make_url(url).database} SET deadlock_timeout = '4s'")
    records = [record(artifact="a"), record(artifact="b")]
    update = "UPDATE artifacts SET events = events WHERE artifact_id = %s"
    with closing(StoreSink(url)) as sink, connected(url) as other:
        sink.write([record(artifact="c")], {})
        other.execute("SET deadlock_timeout = '60s'")  # it is the relay that notices
        with other.transaction():
            other.execute(update, ["b"])
            pool = ThreadPoolExecutor(1)
            writing = pool.submit(sink.write, records, {})
            with connected(url) as watch:  # the relay waits, and looks for a deadlock 4 s later
                wait_until(lambda: watch.execute(BLOCKED).fetchall())
            other.execute(update, ["a"])
            with pool, pytest.raises(SinkUnavailableError, match="deadlock"):
                writing.result()
        deliver(sink, records)
    assert content(url) == (5, {"a": (None, 2), "b": (None, 2), "c": (None, 1)})


def test_tables_that_are_dropped_are_made_again(url):
    store(url, [record()])
    with closing(StoreSink(url)) as sink:
        sink.write([record(bits=1)], {})
        with connected(url) as connection:
            connection.execute("DROP SCHEMA sidelight CASCADE")
        deliver(sink, [record(bits=2)])
    assert content(url)[0] == 1


# -- relays that write at once ---------------------------------------------------------------


@pytest.mark.parametrize("first", ["named", "nameless"])
def test_the_organization_comes_by_one_relay_and_the_event_by_another(url, monkeypatch, first):
    """Both have written their events, and neither has committed, before either counts."""
    store(url, [record(artifact="other")])
    both = threading.Barrier(2, timeout=120)
    before = threading.Event()
    count = ingest._count_artifacts

    def in_turn(*arguments):
        both.wait()
        if threading.current_thread().name != first:
            before.wait(0.2)
        return count(*arguments)

    monkeypatch.setattr(ingest, "_count_artifacts", in_turn)

    def relay(name, each):
        threading.current_thread().name = name
        with closing(StoreSink(url)) as sink:
            sink.write([each], {})

    with ThreadPoolExecutor() as pool:
        made, sent = record("made", organization="o1"), record("sent")
        list(pool.map(relay, ["named", "nameless"], [made, sent]))
    monkeypatch.undo()
    assert content(url) == (3, {"a1": ("o1", 2), "other": (None, 1)})
    with Store(url) as opened:
        assert {e.organization_id for e in opened.timeline("a1")} == {"o1"}


def test_the_same_records_by_two_relays_at_once_count_once(url, monkeypatch):
    store(url, [record(artifact="other")])
    records = [record("made", NOON + n, artifact=n % 7, organization="o1") for n in range(200)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(store, [url] * 4, [records] * 4))
    assert content(url)[0] == 201


# -- the network, and a server that is stopped -----------------------------------------------


@pytest.mark.parametrize("over", ["tcp", "socket"])
def test_a_frozen_server_is_waited_for_no_longer_than_agreed(server, url, hasty, over):
    if over == "socket":
        url = server.socket_url(url.rpartition("/")[2])
    with closing(StoreSink(url)) as sink:
        sink.write([record(bits=1)], {})
        server.pause()
        try:
            begun = time.monotonic()
            for _ in range(2):  # on the connection that it has; and on a new one
                with pytest.raises(SinkUnavailableError):
                    sink.write([record(bits=2)], {})
            assert time.monotonic() - begun < 10
            with pytest.raises(StoreError):
                Store(url)
        finally:
            server.resume()
        deliver(sink, [record(bits=2)])
    assert content(url)[0] == 2


@pytest.mark.parametrize("mode", ["refuse", "reset", "silent", "drip"])
def test_a_network_that_fails(server, url, hasty, mode):
    database = url.rpartition("/")[2]
    with Proxy(server.address, drip_delay=0.2) as proxy:
        host, port = proxy.address
        through = f"postgresql://sidelight@{host}:{port}/{database}"
        with closing(StoreSink(through)) as sink:
            sink.write([record(bits=1)], {})
            proxy.mode = mode
            begun = time.monotonic()
            for _ in range(2):
                with pytest.raises(SinkUnavailableError):
                    sink.write([record(bits=2)], {})
            assert time.monotonic() - begun < 15
            proxy.mode = "pass"
            deliver(sink, [record(bits=2)])
    assert content(url)[0] == 2


def test_a_commit_whose_reply_is_lost_is_not_counted_again(server, url):
    database = url.rpartition("/")[2]
    records = [record("made", NOON + n, artifact=n % 3, organization="o1") for n in range(50)]
    with Proxy(server.address) as proxy:
        host, port = proxy.address
        with closing(StoreSink(f"postgresql://sidelight@{host}:{port}/{database}")) as sink:
            sink.write([record("sent", artifact="other")], {})

            commit = sink._connection.commit

            def lose():
                proxy.mode = "lose_reply"
                commit()

            sink._connection.commit = lose
            with pytest.raises(SinkUnavailableError):
                sink.write(records, {})
            assert content(url)[0] == 51  # it had done it
            proxy.mode = "pass"
            deliver(sink, records)
    assert content(url) == (
        51,
        {"0": ("o1", 17), "1": ("o1", 17), "2": ("o1", 16), "other": (None, 1)},
    )


def test_a_relay_that_is_stopped_in_the_middle_lets_go_of_its_locks(url, hasty):
    store(url, [record()])
    engine = engine_on(parse_url(url), read_only=False)
    with contextlib.suppress(Exception), engine.connect() as stopped:
        stopped.begin()
        stopped.exec_driver_sql("UPDATE artifacts SET events = events")
        store(url, [record()])
    engine.dispose()
    assert content(url)[0] == 2


# -- a fork in the middle --------------------------------------------------------------------


def test_a_forked_child_says_nothing_on_its_parents_connection(url, caplog):
    sink = StoreSink(url)
    sink.write([record(bits=1)], {})
    transaction = sink._connection.transaction(undo=True)
    transaction.__enter__()
    sink._connection.execute("DELETE FROM losses")
    lock = sink._connection.raw.lock
    lock.acquire()  # as where another thread is inside the library

    def leave():
        nonlocal transaction, sink
        sink.close()  # or the garbage collector does
        del transaction, sink
        gc.collect()
        assert not caplog.records

    in_a_forked_child(leave)
    lock.release()
    assert sink._connection.execute("SELECT 1").fetchone() == (1,)
    transaction.__exit__(None, None, None)
    sink.write([record(bits=2)], {})
    sink.close()
    assert content(url)[0] == 2


# -- secrets ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:geheim@127.0.0.1:1/db",
        "postgresql://me:a/geheim?x@127.0.0.1:1/db",
        "postgresql://me@127.0.0.1:1/db?password=geheim&sslpassword=geheim",
    ],
)
def test_no_message_holds_the_password(url, caplog):
    sink = StoreSink(url)
    with pytest.raises(SinkUnavailableError) as raised:
        sink.write([record()], {})
    told = [str(raised.value), repr(raised.value), str(raised.value.facts), caplog.text]
    with pytest.raises(StoreError) as raised:
        Store(url)
    told += [str(raised.value), str(raised.value.facts)]
    assert "127.0.0.1" in told[0]
    assert not [text for text in told if "geheim" in text]


def test_without_psycopg_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"sidelight\[postgres\]"):
        StoreSink("postgresql://localhost/db")
