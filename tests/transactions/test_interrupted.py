"""An interrupt arrives while sidelight's INSERT runs: the caller sees what its own INSERT shows.

SQLAlchemy ends the connection below a statement that is cancelled, so that nothing can be committed
and the pool has no connection whose state is unknown.
"""

import asyncio
import contextlib
import itertools
import threading
import time

import psycopg
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from tests.support import business
from tests.support.telemetry import restore

import sidelight
from sidelight import arg, emits
from sidelight.emission import EMITTER
from sidelight.exceptions import TransactionError

INSERT = sqlalchemy.insert(business.Order)


async def insert(target, name):
    await target.execute(INSERT.values(name=name))


async def insert_and_insert_again(target, name):
    """Do what an undecorated function does whose own second statement waits."""
    await insert(target, name)
    await target.execute(sqlalchemy.text("LOCK TABLE sidelight_outbox"))


def insert_now(target, name):
    target.execute(INSERT.values(name=name))


ORDERS = {
    "bare": insert_and_insert_again,
    "transaction": emits("ordered", n=arg.name, transaction=arg.target)(insert),
    "strict": emits("ordered", n=arg.name, transaction=arg.target, strict=True)(insert),
}
order = ORDERS["strict"]


@pytest.fixture
def url(tmp_path, monkeypatch):
    url = business.shop("postgresql", tmp_path)
    store = f"sqlite:///{tmp_path / 'events.db'}"
    sidelight.configure(store, outboxes=[url], otlp=False)
    monkeypatch.setattr(EMITTER, "deadline", 30.0)  # the interrupt comes first
    yield url
    restore()


@contextlib.contextmanager
def locked(url):
    """The outbox, while another transaction holds it; yields a connection that sees who waits."""
    with psycopg.connect(url) as other, psycopg.connect(url, autocommit=True) as seeing:
        other.execute("LOCK TABLE sidelight_outbox")
        yield seeing


#: An INSERT or a LOCK, and no SELECT of a relay.
WAITING = "SELECT pid FROM pg_locks WHERE NOT granted AND mode ~ '^(Row|Access)Exclusive'"


async def until_waiting(seeing):
    """Wait until a statement waits for the lock; answers the process of its server."""
    until = time.monotonic() + 20
    while (found := seeing.execute(WAITING).fetchone()) is None:
        assert time.monotonic() < until
        await asyncio.sleep(0.01)
    return found[0]


def opened(engine, kind):
    return AsyncSession(engine) if kind == "session" else engine.connect()


@pytest.mark.one_in(2)
@pytest.mark.parametrize("mode", ORDERS)
@pytest.mark.parametrize("kind", ["session", "connection"])
@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_a_cancelled_task_sees_its_cancellation_only(driver, kind, mode, url, tmp_path):
    engine = business.async_engine_on(url, driver, pool_size=1, max_overflow=0)
    async with opened(engine, kind) as target:
        await order(target, "first")  # learns of the outbox
        await target.commit()
    committed_anyway, expected = [], {"first"}

    async def work(*, swallows):
        async with opened(engine, kind) as target:
            if not swallows:
                async with target.begin():
                    await ORDERS[mode](target, "cancelled")
            with contextlib.suppress(asyncio.CancelledError):
                await ORDERS[mode](target, "cancelled and swallowed")
            with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError):
                await target.commit()
                committed_anyway.append(kind)

    for cancels, swallows in itertools.product((1, 2, 3), (False, True)):
        task = asyncio.ensure_future(work(swallows=swallows))
        with locked(url) as seeing:
            await until_waiting(seeing)
            for _ in range(cancels):
                task.cancel()
                await asyncio.sleep(0)
            (outcome,) = await asyncio.gather(task, return_exceptions=True)
            assert swallows or isinstance(outcome, asyncio.CancelledError)
        async with opened(engine, kind) as target:
            await order(target, f"next, {cancels=}, {swallows=}")
            await target.commit()
        expected.add(f"next, {cancels=}, {swallows=}")
    await engine.dispose()
    names = business.Watched(f"sqlite:///{tmp_path / 'events.db'}").names()
    assert names == business.committed(url) == expected
    assert not committed_anyway
    assert not EMITTER.losses


def opened_now(engine, kind):
    return Session(engine) if kind == "session" else engine.connect()


@pytest.mark.parametrize("mode", ["transaction", "strict"])
@pytest.mark.parametrize("kind", ["session", "connection"])
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_a_server_process_that_ends_costs_the_caller_one_error(driver, kind, mode, url, tmp_path):
    there = url.replace("://", f"+{driver}://")
    engine = sqlalchemy.create_engine(there, pool_size=1, max_overflow=0)
    options = {"strict": True} if mode == "strict" else {}
    order = emits("ordered", n=arg.name, transaction=arg.target, **options)(insert_now)
    with opened_now(engine, kind) as target:
        order(target, "first")
        target.commit()

    def end():
        asyncio.run(terminate(seeing))

    with locked(url) as seeing:
        ending = threading.Thread(target=end)
        ending.start()
        with (
            pytest.raises(TransactionError),
            opened_now(engine, kind) as target,
            target.begin(),
        ):
            order(target, "in vain")
        ending.join()
    with opened_now(engine, kind) as target:
        order(target, "next")
        target.commit()
    engine.dispose()
    names = business.Watched(f"sqlite:///{tmp_path / 'events.db'}").names()
    assert names == business.committed(url) == {"first", "next"}
    assert not EMITTER.losses


async def terminate(seeing):
    """End the server's process that waits for the lock."""
    seeing.execute("SELECT pg_terminate_backend(%s)", (await until_waiting(seeing),))
