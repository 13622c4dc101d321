"""Row 4: the store is frozen, or a relay is stopped in its transaction."""

import contextlib
import sqlite3
import time
from dataclasses import replace

import psutil
import pytest
from sqlalchemy.engine import make_url
from tests.support.emitting import Order
from tests.support.postgres import new_database, own_server
from tests.support.programs import (
    caught_up,
    running,
    stored,
    wait_until,
)

FROZEN_FULL, FROZEN_SHORT = 60.0, 2.0  # seconds
LETS_GO = 8.0  # seconds after which PostgreSQL ends a transaction in which nothing happens
PAUSE = 0.003


@contextlib.contextmanager
def locked(url):
    """Hold an exclusive lock on the file."""
    connection = sqlite3.connect(make_url(url).database, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    yield
    connection.close()


@contextlib.contextmanager
def stopped(url):
    """Stop the processes of the server. The kernel still accepts data for them."""
    own_server().pause()
    yield
    own_server().resume()


FREEZES = {"SQLite locked": locked, "PostgreSQL stopped": stopped}


def new_store(fault, tmp_path):
    if "SQLite" in fault:
        return f"sqlite:///{tmp_path / 'events.db'}"
    return new_database(own_server())


@pytest.fixture(autouse=True)
def _left_as_it_was():
    yield
    if own_server.cache_info().currsize:
        own_server().resume()


@pytest.mark.parametrize("fault", FREEZES)
def test_a_frozen_store(fault, tmp_path, full, progress, settled):
    """One program runs before, during and after. Another begins, and a third ends, during it."""
    store, spool = new_store(fault, tmp_path), tmp_path / "spool"
    seconds = FROZEN_FULL if full else FROZEN_SHORT

    def started(number):
        order = Order(first=number * 10**8, threads=2, pause=PAUSE, configure={})
        return running(store, spool, order=order)

    with started(0) as living, started(1) as ending, contextlib.ExitStack() as later:
        caught_up(store, living, ending)
        with FREEZES[fault](store):
            until = time.monotonic() + seconds
            beginning = later.enter_context(started(2))
            ending.emit(100)
            assert ending.stop(30.0) == 0, ending.told()
            while time.monotonic() < until:
                living.emit(20)
                progress(f"frozen for {until - time.monotonic():.0f} s more")
            beginning.emit(20)
        programs = (living, ending, beginning)
        caught_up(store, *programs)
        assert [living.stop(), beginning.stop()] == [0, 0]
    settled(4, f"{fault} for {seconds:.0f} s", store, *programs, injected=1, spool=spool)


@pytest.mark.parametrize("backend", ["SQLite", "PostgreSQL"])
def test_a_relay_stopped_inside_its_transaction(backend, tmp_path, full, progress, settled):
    """The stopped relay holds its locks. PostgreSQL revokes them in time, SQLite cannot."""
    store, spool = new_store(backend, tmp_path), tmp_path / "spool"
    seconds = FROZEN_FULL if full else FROZEN_SHORT
    programs, rounds = [], 2 if full else 1
    for number in range(rounds):
        prelude = (
            f"arm('sidelight.store.ingest:store_events', 'after', {number + 2}, signal.SIGSTOP)"
        )
        order = Order(first=2 * number * 10**8, pause=PAUSE, configure={}, prelude=prelude)
        following = replace(order, first=order.first + 10**8, prelude="")
        with (
            running(store, spool, order=order) as victim,
            running(store, spool, order=following) as other,
        ):
            programs += [victim, other]
            process = psutil.Process(victim.process.pid)
            wait_until(lambda process=process: process.status() == psutil.STATUS_STOPPED)
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                other.emit(10)
                progress(f"round {number}: stopped for {until - time.monotonic():.0f} s more")
            if backend == "PostgreSQL" and seconds > LETS_GO:
                before = other.calls
                wait_until(lambda before=before: stored(store) > before)  # it is stopped still
            victim.resume()
            caught_up(store, *programs)
            assert [victim.stop(), other.stop()] == [0, 0]
    fault = f"{backend}: a relay stopped in its transaction for {seconds:.0f} s"
    settled(4, fault, store, *programs, injected=rounds, spool=spool)
