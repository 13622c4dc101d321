"""Whatever driver is below SQLAlchemy: where one begins late, takes turns, or commits by itself."""

import asyncio
import itertools

import psycopg
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from tests.support import business
from tests.support.telemetry import restore

import sidelight
from sidelight import arg, emits
from sidelight.emission.emitter import EMITTER
from sidelight.transactions.sqlalchemy import drivers

ASYNCHRONOUS = ("psycopg", "asyncpg")
ENDS = ("rollback", "close", "commit")


@pytest.fixture
def url(tmp_path):
    return business.shop("postgresql", tmp_path)


@pytest.fixture(params=ASYNCHRONOUS)
async def engine(request, url, watched):
    engine = business.async_engine_on(url, request.param)
    yield engine
    await engine.dispose()


@emits("ordered", transaction=arg.target, n=arg.name)
async def note(target, name):
    """Do nothing else in the transaction."""


@emits("ordered", transaction=arg.target, n=arg.name)
async def order(target, name):
    await target.execute(sqlalchemy.insert(business.Order).values(name=name))


@emits("ordered", after_commit=arg.target, n=arg.name)
def told(target, name):
    """Call a hook after the commit."""


@pytest.mark.parametrize("kind", ["session", "connection"])
async def test_nothing_else_may_be_in_the_transaction(engine, kind, watched):
    async with AsyncSession(engine) if kind == "session" else engine.connect() as target:
        async with target.begin():
            await note(target, "first")
        async with target.begin() as begun:
            await note(target, "in vain")
            await begun.rollback()
        async with target.begin():
            await note(target, "last")
    assert watched.names() == {"first", "last"}
    assert not EMITTER.losses


async def test_tasks_take_turns_on_a_connection(engine, watched, url, monkeypatch):
    monkeypatch.setattr(EMITTER, "deadline", 60.0)  # on a busy machine the last one waits long
    names = {f"order {number}" for number in range(40)}
    async with engine.begin() as connection:
        await asyncio.gather(*(order(connection, name) for name in names))
    assert watched.names() == business.committed(url) == names
    assert not EMITTER.losses


async def test_who_is_cancelled_has_a_connection_that_can_be_used(engine, watched, url):
    strictly = emits("ordered", transaction=arg.target, n=arg.name, strict=True)(note.__wrapped__)
    async with engine.connect() as connection:
        with psycopg.connect(url) as other:
            other.execute("LOCK TABLE sidelight_outbox")
            await connection.execute(sqlalchemy.text("SELECT 1"))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await strictly(connection, "cancelled")
        await connection.rollback()
        await order(connection, "afterwards")
        await connection.commit()
    assert watched.names() == business.committed(url) == {"afterwards"}
    assert not EMITTER.losses


async def test_who_commits_each_statement_has_no_commit_to_wait_for(engine, watched):
    async with engine.connect() as connection:
        connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(sqlalchemy.text("SELECT 1"))
        told(connection, "at once")
        assert watched.names() == {"at once"}
    assert not EMITTER.losses


SESSIONS = {
    "psycopg": "postgresql",
    "psycopg2": "postgresql",
    "sqlite3": "sqlite",
}


def insert(session, name):
    session.execute(sqlalchemy.insert(business.Order).values(name=name))


def insert_and_flush(session, name):
    session.add(business.Order(name=name))
    session.flush()


def add(session, name):
    session.add(business.Order(name=name))


@pytest.mark.parametrize("driver", SESSIONS)
def test_a_session_that_commits_each_statement_has_an_event_for_each(driver, tmp_path):
    """A rollback or a close of the session does not undo what the server has committed."""
    url = business.shop(SESSIONS[driver], tmp_path)
    sidelight.configure(f"sqlite:///{tmp_path / 'events.db'}", otlp=False, deadline=1.0)
    there = url.replace("postgresql://", f"postgresql+{driver}://")
    engine = sqlalchemy.create_engine(there, isolation_level="AUTOCOMMIT")
    for function, end in itertools.product((insert, insert_and_flush, add), ENDS):
        emitting = emits("ordered", after_commit=arg.session, n=arg.name)(function)
        with Session(engine) as session:
            emitting(session, f"{function.__name__} {end}")
            getattr(session, end)()
        with Session(engine) as session:
            emitting(session, f"{function.__name__}, flushed, {end}")
            session.flush()
            getattr(session, end)()
    engine.dispose()
    names = business.Watched(f"sqlite:///{tmp_path / 'events.db'}").names()
    restore()
    assert names == business.committed(url) != set()
    assert not EMITTER.losses


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "asyncpg"])
async def test_a_commit_that_the_driver_does_not_send_is_none(driver, url, watched):
    """In autocommit mode psycopg2 and asyncpg leave a transaction open that SQL has begun."""
    sidelight.flush(20)  # takes what other tests have lost
    there = url.replace("://", f"+{driver}://")
    begin, statement = sqlalchemy.text("BEGIN"), sqlalchemy.insert(business.Order)
    if driver == "asyncpg":
        engine = business.async_engine_on(url, driver, isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            await connection.execute(begin)
            await connection.execute(statement.values(name="one"))
            told(connection, "one")
            await connection.commit()
        await engine.dispose()
    else:
        engine = sqlalchemy.create_engine(there, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(begin)
            connection.execute(statement.values(name="one"))
            told(connection, "one")
            connection.commit()
        engine.dispose()
    lost = {} if driver == "psycopg" else {"commit without an answer": 1}
    assert lost == EMITTER.losses
    assert sidelight.flush(20) is not bool(lost)
    assert watched.names() == business.committed(url)


def test_a_driver_without_an_outbox_has_commits(url, watched, monkeypatch):
    monkeypatch.setattr(drivers, "_POSTGRESQL", {})
    engine = business.engine_on(url)
    with engine.connect() as connection:
        connection.begin()
        told(connection, "committed")
        assert watched.names() == set()
        connection.commit()
        connection.begin()
        told(connection, "rolled back")
        connection.rollback()
        connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.exec_driver_sql("SELECT 1")
        told(connection, "at once")
        assert watched.names() == {"committed", "at once"}
        assert not EMITTER.losses
        asyncio.run(note(connection, "not joined"))
    engine.dispose()
    assert EMITTER.losses == {"not joined: unsupported database": 1}
