"""Several threads, or several tasks, use one connection of psycopg at the same time.

With `strict=True` a call waits until it has a turn, as the caller's own statements do.
"""

import asyncio
import itertools
import threading
import time

import psycopg
import pytest
from tests.support import business
from tests.support.telemetry import restore

import sidelight
from sidelight import arg, emits
from sidelight.emission import EMITTER
from sidelight.exceptions import TransactionError
from sidelight.transactions.psycopg.overlays import watch

MODES = {
    "transaction": {"transaction": arg.connection},
    "after_commit": {"after_commit": arg.connection},
    "strict": {"transaction": arg.connection, "strict": True},
}
MANY = "SELECT generate_series(1, 9)"
COPY = "COPY orders (name) FROM STDIN"
INSERT = "INSERT INTO orders (name) VALUES (%s)"
WORKERS = 8
CALLS = 3
BUDGET = 2.0  # seconds; a look at a statement that stands takes 0.4


@pytest.fixture
def url(tmp_path):
    url = business.shop("postgresql", tmp_path)
    store = f"sqlite:///{tmp_path / 'events.db'}"
    sidelight.configure(store, outboxes=[url], otlp=False, deadline=0.3)
    yield url
    restore()


def names(tmp_path):
    assert sidelight.flush(20)
    with sidelight.Store(f"sqlite:///{tmp_path / 'events.db'}") as store:
        return sorted(event.attributes["name"] for event in store.events(type="ordered"))


# -- threads ---------------------------------------------------------------------------------------


def execute(connection, name):
    connection.execute(INSERT, (name,))


def executemany(connection, name):
    connection.cursor().executemany(INSERT, [(name,)])


def copy(connection, name):
    with connection.cursor().copy(COPY) as rows:
        rows.write_row((name,))


def stream(connection, name):
    connection.execute(INSERT, (name,))
    assert len(list(connection.cursor().stream(MANY))) == 9


WORKS = (execute, executemany, copy, stream)


def named(works):
    """The id of a case, which is the same in each process."""
    return " ".join(work.__name__ for work in works)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("works", [*[(work,) for work in WORKS], WORKS], ids=named)
def test_each_thread_has_its_events(works, mode, url, tmp_path):
    raised = []

    def order(connection, name, work):
        work(connection, name)

    order = emits("ordered", name=arg.name, **MODES[mode])(order)

    def run(connection, thread):
        for number in range(CALLS):
            name = f"{thread}-{number}"
            try:
                order(connection, name, works[(thread + number) % len(works)])
            except TransactionError as error:
                raised.append(error)

    with psycopg.connect(url) as connection:
        connection.execute("SELECT 1")
        threads = [
            threading.Thread(target=run, args=(connection, thread)) for thread in range(WORKERS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not raised
    assert names(tmp_path) == sorted(business.committed(url))
    assert len(business.committed(url)) == WORKERS * CALLS
    if mode == "strict":
        assert EMITTER.losses == {}


def held(connection, name):
    """Do nothing with the connection."""


@pytest.mark.parametrize("end", ["goes on", "stands"])
def test_the_copy_of_another_thread_is_waited_for_while_it_goes_on(end, url, tmp_path):
    order = emits("ordered", name=arg.name, **MODES["strict"])(held)
    has_begun, may_end = threading.Event(), threading.Event()

    def long_copy(connection):
        with connection.cursor().copy(COPY) as rows:
            has_begun.set()
            for number in range(8):
                rows.write_row((f"{number}" * 100_000,))  # more than psycopg keeps back
                may_end.wait(0.1 if end == "goes on" else 20)

    with psycopg.connect(url) as connection:
        connection.execute(INSERT, ("mine",))
        order(connection, "before")
        thread = threading.Thread(target=long_copy, args=(connection,))
        thread.start()
        has_begun.wait()
        began = time.perf_counter()
        if end == "goes on":
            order(connection, "mine")
        else:
            with pytest.raises(TransactionError, match="in the middle of a COPY"):
                order(connection, "mine")
            assert time.perf_counter() - began < BUDGET
        may_end.set()
        thread.join()
    assert names(tmp_path) == (["before", "mine"] if end == "goes on" else ["before"])


@pytest.mark.parametrize("way", [copy, stream])
def test_the_threads_own_statement_is_not_waited_for(way, url):
    order = emits("ordered", name=arg.name, **MODES["strict"])(held)
    with psycopg.connect(url) as connection:
        connection.execute("SELECT 1")
        order(connection, "before")
        if way is copy:
            with connection.cursor().copy(COPY) as rows:
                rows.write_row(("mine",))
                check_refused_at_once(order, connection)
        else:
            for _ in connection.cursor().stream(MANY):
                check_refused_at_once(order, connection)


def check_refused_at_once(order, connection):
    began = time.perf_counter()
    with pytest.raises(TransactionError, match="in the middle of a COPY"):
        order(connection, "mine")
    assert time.perf_counter() - began < 0.2


def test_threads_that_come_first_at_the_same_time_share_one_watch(url):
    for _ in range(20):
        with psycopg.connect(url) as connection:
            found, barrier = [], threading.Barrier(WORKERS)

            def look(connection=connection, found=found, barrier=barrier):
                barrier.wait()
                found.append(watch(connection))

            threads = [threading.Thread(target=look) for _ in range(WORKERS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(set(map(id, found))) == 1
            exchanges = found[0].exchanges
            connection.execute("SELECT 1")
            assert found[0].exchanges > exchanges


# -- tasks -----------------------------------------------------------------------------------------


async def execute_awaited(connection, name):
    await connection.execute(INSERT, (name,))


async def executemany_awaited(connection, name):
    await connection.cursor().executemany(INSERT, [(name,)])


async def copy_awaited(connection, name):
    async with connection.cursor().copy(COPY) as rows:
        await rows.write_row((name,))


async def stream_awaited(connection, name):
    await connection.execute(INSERT, (name,))
    assert len([row async for row in connection.cursor().stream(MANY)]) == 9


async def slow_awaited(connection, name):
    """Take longer than the look at the holder of the lock, when others wait as well."""
    await connection.execute(INSERT, (name,))
    await connection.execute("SELECT pg_sleep(0.02)")


AWAITED = (execute_awaited, executemany_awaited, copy_awaited, stream_awaited, slow_awaited)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("works", [*[(work,) for work in AWAITED], AWAITED], ids=named)
async def test_each_task_has_its_events(works, mode, url, tmp_path):
    raised = []

    async def order(connection, name, work):
        await work(connection, name)

    order = emits("ordered", name=arg.name, **MODES[mode])(order)

    async def run(connection, task):
        for number in range(CALLS):
            try:
                await order(connection, f"{task}-{number}", works[(task + number) % len(works)])
            except TransactionError as error:
                raised.append(error)

    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute("SELECT 1")
        await asyncio.gather(*itertools.starmap(run, [(connection, n) for n in range(WORKERS)]))
    assert not raised
    assert names(tmp_path) == sorted(business.committed(url))
    assert len(business.committed(url)) == WORKERS * CALLS
    if mode == "strict":
        assert EMITTER.losses == {}


async def test_a_task_that_is_cancelled_while_it_waits_leaves_the_connection_free(url, tmp_path):
    async def order(connection, name):
        """Do nothing with the connection."""

    order = emits("ordered", name=arg.name, **MODES["strict"])(order)
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute("SELECT 1")
        await order(connection, "before")
        for pause in (0.0, 0.05, 0.3):
            other = asyncio.ensure_future(connection.execute("SELECT pg_sleep(0.1)"))
            await asyncio.sleep(0.02)
            waiting = asyncio.ensure_future(order(connection, "cancelled"))
            await asyncio.sleep(pause)
            waiting.cancel()
            await asyncio.wait({waiting, other})
            assert not connection.lock.locked()
        await order(connection, "after")
    assert set(names(tmp_path)) - {"cancelled"} == {"before", "after"}
