"""Row 5: PostgreSQL or its sessions are killed, and the reply to a COMMIT is lost."""

import contextlib
import time

import psycopg
import pytest
from tests.support.emitting import Order
from tests.support.postgres import connected, new_database, own_server
from tests.support.programs import (
    caught_up,
    deliver,
    judge,
    nothing_left,
    running,
    stored,
    wait_until,
)
from tests.support.proxy import Proxy

ROUNDS_FULL, ROUNDS_SHORT = 100, 2
SESSIONS = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE application_name = 'sidelight' AND datname = current_database()
"""
IN_COMMIT = """
SELECT pid FROM pg_stat_activity WHERE datname = current_database()
AND application_name = 'sidelight' AND wait_event = %s
AND (query ILIKE 'commit%%' OR query ILIKE 'set constraints%%')
"""
#: At the end of a transaction that has counted something, so that a test can meet it there: the
#: relay lets deferred triggers run in its last statement before the COMMIT.
GATED_COMMIT = """
CREATE FUNCTION sidelight.gate() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_advisory_xact_lock_shared(5); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER gate AFTER INSERT OR UPDATE ON sidelight.event_counts
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (new.type = 'scheduled')
EXECUTE FUNCTION sidelight.gate();
"""


@pytest.fixture
def server():
    """Yield a server that may be killed, and start it again in the end."""
    running = own_server()
    yield running
    if not running.is_alive():
        running.start()


@pytest.fixture
def proxy(server):
    with Proxy(server.address) as proxy:
        yield proxy


@pytest.fixture
def url(server):
    """Of a new database, not through the proxy."""
    return new_database(server)


@pytest.fixture
def through(url, server, proxy):
    """The URL by which the program knows the store."""
    return url.replace(f":{server.port}/", f":{proxy.address[1]}/")


@pytest.fixture
def program(url, through, tmp_path):
    """Run a program that emits through the proxy, more slowly than its relay delivers."""
    order = Order(threads=2, pause=0.005, configure={})
    with running(through, tmp_path, order=order) as program:
        program.emit(20)
        caught_up(url, program)
        yield program


@pytest.fixture
def finish(url, through, program, tmp_path, row):
    """Wait until the relay has delivered each event once, and enter the row."""

    def finish(fault, injected):
        caught_up(url, program)
        assert program.stop() == 0, program.told()
        deliver(through, tmp_path)
        row(5, f"PostgreSQL: {fault}", injected=injected, verdict=judge(url, program))
        nothing_left(url, tmp_path)

    return finish


@pytest.fixture
def rounds(full, progress):
    return ROUNDS_FULL if full else ROUNDS_SHORT


def grow(url, before):
    """Wait until the store has more events than `before`."""
    wait_until(lambda: stored(url) > before)


def test_killed_again_and_again(server, url, program, rounds, randomness, progress, finish):
    for number in range(rounds):
        progress(f"killed {number} times")
        grow(url, stored(url))
        time.sleep(randomness.random() * 0.05)
        server.kill()
        program.emit(20)
        server.start()
    finish("kill -9", rounds)


def test_sessions_terminated(url, program, rounds, randomness, progress, finish):
    """Sessions end at random moments, mostly within a transaction."""
    killed = 0
    with psycopg.connect(url, autocommit=True) as connection:
        while killed < rounds:
            progress(f"terminated {killed} times")
            program.emit(4)
            time.sleep(randomness.random() * 0.02)
            (count,) = connection.execute(SESSIONS).fetchone()
            killed += count
    finish("pg_terminate_backend", killed)


# -- in its COMMIT ------------------------------------------------------------------------------


def in_commit(connection, event):
    """Wait for a session that waits for ``event`` at the end of its transaction. Return its pid."""
    found = []

    def look():
        found[:] = connection.execute(IN_COMMIT, (event,)).fetchall()
        return found

    wait_until(look)
    return found[0][0]


@pytest.fixture
def gate(url, program):
    """Yield a connection that can hold back COMMITs (`held`)."""
    with connected(url) as connection:
        connection.execute(GATED_COMMIT)
        yield connection


@contextlib.contextmanager
def held(gate):
    """Hold back the end of each transaction until the block ends."""
    gate.execute("SELECT pg_advisory_lock(5)")
    yield
    gate.execute("SELECT pg_advisory_unlock(5)")


@contextlib.contextmanager
def replicated(connection):
    """Let each COMMIT count, and hold back its reply, by a standby that does not exist."""
    connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    connection.execute("SELECT pg_reload_conf()")
    yield
    connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
    connection.execute("SELECT pg_reload_conf()")


def test_terminated_in_its_commit(url, gate, program, rounds, progress, finish):
    """The client sees an error. The store has nothing before the COMMIT counts, else all."""
    for number in range(rounds):
        progress(f"terminated {number} times")
        with held(gate):
            pid = in_commit(gate, "advisory")
            before = stored(url)
            gate.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
            assert stored(url) == before
        grow(url, before)
        program.emit(10)
        with replicated(gate):
            pid = in_commit(gate, "SyncRep")
            before = stored(url)
            gate.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
            assert stored(url) > before
        grow(url, stored(url))
    finish("terminated in COMMIT", 2 * rounds)


def test_the_reply_to_a_commit_is_lost(
    url, gate, proxy, program, rounds, randomness, progress, finish
):
    """The client sees a reset, and retries during or after the COMMIT."""
    for number in range(rounds):
        progress(f"lost {number} replies")
        with held(gate):
            before = stored(url)
            in_commit(gate, "advisory")
            proxy.reset_connections()
            time.sleep(randomness.random() * 0.3)
        grow(url, before)
        program.emit(10)
        with replicated(gate):
            in_commit(gate, "SyncRep")
            proxy.reset_connections()
        grow(url, stored(url))
    finish("reply to COMMIT lost", 2 * rounds)
