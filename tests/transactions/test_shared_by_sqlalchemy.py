"""Several threads, or several tasks, use one connection of SQLAlchemy at the same time.

Each event joins, or is marked as `connection busy`. The settings of the connection stay.
"""

import asyncio
import threading
import time

import pytest
import sqlalchemy
from tests.support import business
from tests.support.proving import MODES
from tests.transactions import test_proof as proof

import sidelight
from sidelight import arg, emits
from sidelight.emission import EMITTER
from sidelight.exceptions import TransactionError
from sidelight.transactions.entry import BUSY, REASONS
from sidelight.transactions.turns import in_turn

pytestmark = pytest.mark.usefixtures("restored")

CALLERS = 10
CALLS = 4
LIMITS = {"sqlite": "PRAGMA busy_timeout", "postgresql": "SHOW statement_timeout"}
BUDGET = 0.6  # seconds
SLOW = 1.2


def insert(target, name):
    target.execute(sqlalchemy.insert(business.Order).values(name=name))


async def insert_awaited(target, name):
    await target.execute(sqlalchemy.insert(business.Order).values(name=name))


def threads(url, driver, order):
    """Call from several threads; the limit before and after."""
    query = sqlalchemy.text(LIMITS[proof.DRIVERS[driver][0]])
    given = {"connect_args": {"check_same_thread": False}} if driver == "sqlite3" else {}
    there = url.replace("://", "+psycopg2://") if driver == "psycopg2" else url
    engine = business.engine_on(there, **given)

    def run(connection, caller):
        for number in range(CALLS):
            order(connection, f"{caller}-{number}")

    with engine.begin() as connection:
        before = connection.scalar(query)
        # `sqlite3` sends BEGIN before the first write. If two threads do so at once, one fails.
        connection.execute(sqlalchemy.delete(business.Order))
        workers = [
            threading.Thread(target=run, args=(connection, caller)) for caller in range(CALLERS)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        limits = before, connection.scalar(query)
    engine.dispose()
    return limits


async def tasks(url, driver, order):
    """Call from several tasks; the limit before and after."""
    query = sqlalchemy.text(LIMITS[proof.DRIVERS[driver][0]])
    engine = business.async_engine_on(url, proof.DRIVERS[driver][1])

    async def run(connection, caller):
        for number in range(CALLS):
            await order(connection, f"{caller}-{number}")

    async with engine.begin() as connection:
        before = await connection.scalar(query)
        await asyncio.gather(*(run(connection, caller) for caller in range(CALLERS)))
        limits = before, await connection.scalar(query)
    await engine.dispose()
    return limits


@pytest.mark.one_in(2)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("driver", proof.DRIVERS)
def test_each_caller_has_its_events(driver, mode, tmp_path):
    database, asynchronous = proof.DRIVERS[driver]
    url = proof.created(tmp_path, database)
    raised = []
    order = emits("ordered", n=arg.name, **MODES[mode])(insert_awaited if asynchronous else insert)

    def told(target, name):
        try:
            order(target, name)
        except TransactionError as error:
            assert REASONS[BUSY][0] in str(error)
            raised.append(name)

    if asynchronous:
        before, after = asyncio.run(tasks(url, driver, order))
    else:
        before, after = threads(url, driver, told)
    assert after == before
    assert not raised or (driver, mode) == ("psycopg2", "strict")  # it does not tell who executes
    assert sidelight.flush(20)
    with sidelight.Store(f"sqlite:///{tmp_path / 'events.db'}") as store:
        events = list(store.events(type="ordered"))
    assert len(business.committed(url)) == CALLERS * CALLS
    stored = [event.attributes["n"] for event in events]
    assert sorted(stored + raised) == sorted(business.committed(url))
    marks = {event.attributes.get("sidelight.not_joined") for event in events}
    assert marks <= ({None} if mode == "strict" else {None, BUSY})
    assert set(EMITTER.losses) <= {f"not joined: {BUSY}"}


@pytest.mark.parametrize("mode", MODES)
async def test_the_slow_statement_of_another_task_is_not_waited_for(mode, tmp_path):
    url = proof.created(tmp_path, "sqlite")
    sidelight.configure(f"sqlite:///{tmp_path / 'events.db'}", outboxes=[url], deadline=0.3)
    engine = business.async_engine_on(url)

    async def work(target):
        await insert_awaited(target, "mine")
        others.append(asyncio.ensure_future(target.execute(sqlalchemy.text("SELECT pause()"))))
        await asyncio.sleep(0.1)
        began.append(time.perf_counter())

    others, began = [], []
    order = emits("ordered", **MODES[mode])(work)
    async with engine.begin() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        await raw.create_function("pause", 0, lambda: time.sleep(SLOW))
        await order(connection)
        waited = time.perf_counter() - began[0]
        await others[0]
    await engine.dispose()
    assert (waited > BUDGET) is (mode == "strict")
    assert sidelight.flush(20)
    with sidelight.Store(f"sqlite:///{tmp_path / 'events.db'}") as store:
        (event,) = store.events(type="ordered")
    mark = BUSY if mode == "transaction" else None
    assert event.attributes.get("sidelight.not_joined") == mark


async def test_a_task_that_is_cancelled_while_it_waits_has_no_event(tmp_path):
    url = proof.created(tmp_path, "sqlite")
    engine = business.async_engine_on(url)

    async def work(target):
        await insert_awaited(target, "mine")
        others.append(asyncio.ensure_future(target.execute(sqlalchemy.text("SELECT pause()"))))
        await asyncio.sleep(0.1)

    others = []
    order = emits("ordered", **MODES["strict"])(work)
    async with engine.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        await raw.create_function("pause", 0, lambda: time.sleep(SLOW))
        calling = asyncio.ensure_future(order(connection))
        await asyncio.sleep(0.4)
        calling.cancel()
        await asyncio.gather(calling, *others, return_exceptions=True)
        assert calling.cancelled()
        assert connection.invalidated
    await engine.dispose()
    assert business.committed(url) == set()


def test_a_turn_is_of_one_thread_at_a_time():
    raw, inside, most = object(), [], []

    def insert():
        inside.append(1)
        most.append(len(inside))
        inside.pop()

    def take():
        for _ in range(200):
            in_turn(raw, None, insert)

    workers = [threading.Thread(target=take) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert set(most) == {1}


def test_the_thread_that_has_a_turn_is_not_waited_for():
    raw, inserted = object(), []

    def insert():
        with pytest.raises(Exception, match=BUSY):
            in_turn(raw, None, lambda: inserted.append(1))

    in_turn(raw, None, insert)
    assert not inserted
    in_turn(raw, None, lambda: inserted.append(2))
    assert inserted == [2]
