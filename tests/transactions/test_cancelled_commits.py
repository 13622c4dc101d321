"""A commit is cancelled at each of its steps, on each asynchronous driver below SQLAlchemy.

Each event of a committed order is stored or counted. A cancelled commit leaves nothing open in the
pool, because the next user of the connection would commit it.
"""

import asyncio
import contextlib
import functools
import itertools

import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncSession
from tests.support import business
from tests.support.proving import MODES, lost, told
from tests.transactions import test_proof as proof

import sidelight
from sidelight import arg, emits

pytestmark = pytest.mark.usefixtures("restored")

STEPS = 24  # turns of the event loop; the longest commit takes fewer
SAMPLED = 5  # by default each fifth step; a step that one case leaves out, another has


# -- ways to commit: each orders, says that its commit is next, and commits ------------------------


async def session(engine, order, ready):
    async with AsyncSession(engine) as target:
        await order(target)
        ready.set()
        await target.commit()


async def session_block(engine, order, ready):
    async with AsyncSession(engine) as target, target.begin():
        await order(target)
        ready.set()


async def session_with_savepoint(engine, order, ready):
    async with AsyncSession(engine) as target:
        async with target.begin_nested():
            await order(target)
        ready.set()
        await target.commit()


async def session_on_a_connection(engine, order, ready):
    async with engine.connect() as connection, AsyncSession(connection) as target:
        await order(target)
        await target.flush()
        ready.set()
        await connection.commit()


async def connection(engine, order, ready):
    async with engine.connect() as target:
        await order(target)
        ready.set()
        await target.commit()


async def connection_block(engine, order, ready):
    async with engine.begin() as target:
        await order(target)
        ready.set()


async def savepoint_alone(engine, order, ready):
    """In SQLite the end of the savepoint commits."""
    async with engine.connect() as target:
        await in_a_savepoint(target, order, ready)


async def savepoint_of_a_session(engine, order, ready):
    async with AsyncSession(engine) as target:
        await in_a_savepoint(target, order, ready)


async def in_a_savepoint(target, order, ready):
    savepoint = await target.begin_nested()
    await order(target)
    ready.set()
    await savepoint.commit()


OF_CONNECTIONS = (connection, connection_block, savepoint_alone)
ALONE = (savepoint_alone, savepoint_of_a_session)
WAYS = (
    *(session, session_block, session_with_savepoint, session_on_a_connection),
    *(savepoint_of_a_session, *OF_CONNECTIONS),
)


async def cancelled_at(step, way, engine, order):
    """Cancel a way so many turns of the event loop after the beginning of its commit."""
    ready = asyncio.Event()
    task = asyncio.create_task(way(engine, order, ready))
    await ready.wait()
    for _ in range(step):
        await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.mark.one_in(2)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("driver", [name for name in proof.DRIVERS if proof.DRIVERS[name][1]])
async def test_a_cancelled_commit_has_its_events_or_counts_them(driver, way, tmp_path, full):
    database, name = proof.DRIVERS[driver]
    url = proof.created(tmp_path, database)
    engine = business.async_engine_on(url, name, pool_size=1, max_overflow=0)
    losses, left_open = {}, []
    sidelight.flush(60)  # takes what other tests have lost
    kinds = ["connection"] if way in OF_CONNECTIONS else ["session", "pending session"]
    with business.watching(url) as committed:
        for number, (mode, kind) in enumerate(itertools.product(MODES, kinds)):
            function = emits("ordered", n=arg.name, **MODES[mode])(proof.ORDERS[kind][1])
            for step in range(STEPS) if full else range(number % SAMPLED, STEPS, SAMPLED):
                before, case = lost(), f"{mode}, {kind}, {step}"
                order = functools.partial(function, name=f"{case}|")
                await cancelled_at(step, way, engine, order)
                names = committed()
                async with engine.begin() as following:
                    await following.execute(sqlalchemy.text("SELECT 1"))
                losses[case] = lost() - before
                left_open += committed() - names
    await engine.dispose()
    assert left_open == []
    sidelight.flush(60)
    with sidelight.Store(f"sqlite:///{tmp_path / 'events.db'}") as store:
        stored = [event.attributes["n"] for event in store.events()]
    assert len(set(stored)) == len(stored)
    assert stored or (way in ALONE and not driver.startswith("aiosqlite"))
    assert told(business.committed(url), set(stored), losses) == ([], [])
