"""An event that cannot join goes its own way where it is guarded, and raises where it is strict."""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy
from django.db import connections, transaction
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session
from tests.support import business
from tests.support.postgres import new_database
from tests.support.telemetry import restore

import sidelight
from sidelight import arg, emits
from sidelight.emission.emitter import EMITTER
from sidelight.exceptions import TransactionError
from sidelight.transactions.entry import ENDED, REASONS

SCENARIOS: dict[str, tuple[str, Callable[[str, Any], contextlib.AbstractContextManager[Any]]]] = {}


def scenario(reason, way, database="postgresql"):
    """Register a way to a transaction that no event can join.

    It gives what names the target, or an `AsyncUnit` of it, whose loop is to be used.
    """

    def register(make):
        name = f"{reason}: {way} on {database}"
        SCENARIOS[name] = (reason, database, contextlib.contextmanager(make))
        return make

    return register


def opened(url, **options):
    """An engine whose connections are closed when they are let go of."""
    return business.engine_on(url, poolclass=sqlalchemy.NullPool, **options)


def count(connection):
    connection.exec_driver_sql("SELECT count(*) FROM orders")


@scenario("no transaction", "connection")
@scenario("no transaction", "connection", "sqlite")
def _(url):
    with opened(url).connect() as connection:
        yield connection


@scenario("no transaction", "psycopg")
def _(url):
    with psycopg.connect(url) as connection:
        yield connection


@scenario("autocommit", "psycopg")
def _(url):
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@scenario("autocommit", "connection")
@scenario("autocommit", "connection", "sqlite")
def _(url):
    engine = opened(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        count(connection)
        yield connection


@scenario("autocommit", "session")
@scenario("autocommit", "session", "sqlite")
def _(url):
    with Session(opened(url, isolation_level="AUTOCOMMIT")) as session:
        count(session.connection())
        yield session


@scenario("autocommit", "django")
@scenario("autocommit", "django", "sqlite")
def _(url):
    alias = business.django_database(url)
    yield alias
    connections[alias].close()


@scenario("pipeline mode", "psycopg")
def _(url):
    with psycopg.connect(url) as connection, connection.pipeline():
        connection.execute("SELECT 1")
        yield connection


@scenario("broken transaction", "psycopg")
def _(url):
    with psycopg.connect(url) as connection:
        with pytest.raises(psycopg.errors.UndefinedTable):
            connection.execute("SELECT * FROM nowhere")
        yield connection
        connection.rollback()


@scenario("broken transaction", "session")
def _(url):
    with Session(opened(url)) as session:
        with pytest.raises(sqlalchemy.exc.ProgrammingError):
            session.execute(sqlalchemy.text("SELECT * FROM nowhere"))
        yield session


@scenario("broken transaction", "django")
@scenario("broken transaction", "django", "sqlite")
def _(url):
    alias = business.django_database(url)
    with transaction.atomic(using=alias):
        transaction.set_rollback(True, using=alias)
        yield alias
    connections[alias].close()


@scenario("no outbox table", "session")
@scenario("no outbox table", "session", "sqlite")
def _(url):
    with begun(url, "DROP TABLE sidelight_outbox") as session:
        yield session


@scenario("database too slow", "session")
def _(url):
    with psycopg.connect(url) as other, begun(url) as session:
        other.execute("LOCK TABLE sidelight_outbox")
        yield session


@scenario("database too slow", "session", "sqlite")
def _(url):
    path = url.removeprefix("sqlite:///")
    with (
        contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other,
        begun(url) as session,
    ):
        other.execute("BEGIN IMMEDIATE")
        yield session


@scenario("read-only transaction", "session")
def _(url):
    with begun(url) as session:
        session.execute(sqlalchemy.text("SET TRANSACTION READ ONLY"))
        yield session


@scenario("read-only transaction", "session", "sqlite")
def _(url):
    with begun(url) as session:
        session.execute(sqlalchemy.text("PRAGMA query_only = ON"))
        yield session


@scenario("insert failed", "session")
def _(url):
    with begun(url, "ALTER TABLE sidelight_outbox ADD CHECK (position < 0)") as session:
        yield session


@scenario("insert failed", "session", "sqlite")
def _(url):
    trigger = (
        "CREATE TRIGGER no BEFORE INSERT ON sidelight_outbox BEGIN SELECT RAISE(ABORT, 'no'); END"
    )
    with begun(url, trigger) as session:
        yield session


@scenario("unsupported database", "session", "in memory")
def _(url):
    with begun("sqlite://") as session:
        yield session


@scenario("unknown kind", "text of a file", "sqlite")
def _(url):
    yield object()


@scenario("not awaited", "async connection")
@scenario("not awaited", "async connection", "sqlite")
def _(url):
    engine = business.async_engine_on(url)
    with asyncio.Runner() as runner:
        connection = runner.run(engine.connect().start())
        runner.run(connection.begin().start())
        runner.run(connection.exec_driver_sql("SELECT 1"))
        yield connection
        runner.run(connection.close())
        runner.run(engine.dispose())


@contextlib.contextmanager
def on_asyncpg(url, kind, statement=None, **options):
    """A connection or session whose transaction has begun with a statement, if one is given."""
    engine = business.async_engine_on(url, "asyncpg", **options)
    with asyncio.Runner() as runner:
        target = kind(engine)
        unit = business.AsyncUnit(target, lambda awaitable: runner.run(business.awaited(awaitable)))
        try:
            if not isinstance(target, AsyncSession):
                unit.run(target.start())
            if statement is not None:
                unit.run(target.execute(sqlalchemy.text(statement)))
            yield unit
        finally:
            unit.run(target.close())
            unit.run(engine.dispose())


@scenario("no transaction", "async connection on asyncpg")
def _(url):
    with on_asyncpg(url, AsyncEngine.connect) as unit:
        yield unit


@scenario("autocommit", "async connection on asyncpg")
def _(url):
    query = "SELECT count(*) FROM orders"
    with on_asyncpg(url, AsyncEngine.connect, query, isolation_level="AUTOCOMMIT") as unit:
        yield unit


@scenario("broken transaction", "async session on asyncpg")
def _(url):
    with on_asyncpg(url, AsyncSession) as unit:
        with pytest.raises(sqlalchemy.exc.ProgrammingError):
            unit.run(unit.target.execute(sqlalchemy.text("SELECT * FROM nowhere")))
        yield unit


@scenario("no outbox table", "async session on asyncpg")
def _(url):
    with psycopg.connect(url) as other:
        other.execute("DROP TABLE sidelight_outbox")
    with on_asyncpg(url, AsyncSession, "SELECT 1") as unit:
        yield unit


@scenario("database too slow", "async session on asyncpg")
def _(url):
    with psycopg.connect(url) as other, on_asyncpg(url, AsyncSession, "SELECT 1") as unit:
        other.execute("LOCK TABLE sidelight_outbox")
        yield unit


@scenario("read-only transaction", "async session on asyncpg")
def _(url):
    with on_asyncpg(url, AsyncSession, "SET TRANSACTION READ ONLY") as unit:
        yield unit


@scenario("insert failed", "async session on asyncpg")
def _(url):
    with psycopg.connect(url) as other:
        other.execute("ALTER TABLE sidelight_outbox ADD CHECK (position < 0)")
    with on_asyncpg(url, AsyncSession, "SELECT 1") as unit:
        yield unit


@contextlib.contextmanager
def begun(url: str, change: str | None = None) -> Iterator[Session]:
    """A session whose transaction has begun with a question."""
    engine = opened(url)
    business.begin_explicitly(engine)
    if change is not None:
        with engine.begin() as connection:
            connection.exec_driver_sql(change)
    with Session(engine) as session:
        session.execute(sqlalchemy.text("SELECT 1"))
        yield session


@pytest.fixture(params=SCENARIOS)
def case(request, tmp_path):
    reason, database, make = SCENARIOS[request.param]
    url = business.DATABASES.get(database, business.sqlite)(tmp_path)
    business.create_tables(url)
    sidelight.configure(f"sqlite:///{tmp_path / 'events.db'}", otlp=False)
    with make(url) as target:
        yield reason, target
    restore()


def stored(tmp_path):
    assert sidelight.flush(20)
    with sidelight.Store(f"sqlite:///{tmp_path / 'events.db'}") as store:
        return list(store.events())


def look_at(given, **options):
    """Call a function that emits an event; where the target has a loop, an asynchronous one."""
    if isinstance(given, business.AsyncUnit):

        @emits("looked_at", transaction=arg.target, n=arg.n, **options)
        async def look(target, n):
            return n

        return given.run(look(given.target, 1))

    @emits("looked_at", transaction=arg.target, n=arg.n, **options)
    def look(target, n):
        return n

    return look(given, 1)


def test_guarded_it_goes_its_own_way_and_says_so(case, tmp_path):
    reason, given = case
    begun = time.perf_counter()
    assert look_at(given) == 1
    assert time.perf_counter() - begun < 1  # not for as long as a lock may be held
    (event,) = stored(tmp_path)
    assert event.attributes == {"n": 1, "sidelight.not_joined": reason}
    assert EMITTER.losses == {f"not joined: {reason}": 1}


def test_strict_the_work_learns_of_it(case, tmp_path):
    reason, given = case
    if reason == "database too slow":
        pytest.skip("it waits as long as the application's own statements would")
    problem, remedy = REASONS[reason]
    with pytest.raises(TransactionError) as met:
        look_at(given, strict=True)
    assert problem in str(met.value)
    assert remedy in str(met.value)
    assert not stored(tmp_path)


def test_guarded_the_work_goes_on(tmp_path):
    """Whatever has become of the INSERT: the transaction is as it was."""
    url = new_database()
    business.create_tables(url)
    sidelight.configure(f"sqlite:///{tmp_path / 'events.db'}", otlp=False)
    for name, (reason, database, make) in SCENARIOS.items():
        if database != "postgresql" or "session" not in name or reason == "broken transaction":
            continue
        if reason == "read-only transaction":
            continue
        url = new_database()
        business.create_tables(url)
        with make(url) as given:
            order, unit = ordering(given)
            order(unit.target, "before")
            unit.flush()
            order(unit.target, "after")
            unit.commit()
        assert business.committed(url) == {"before", "after"}, name
        labels = {event.attributes["sidelight.not_joined"] for event in stored(tmp_path)}
        assert reason in labels, name
    restore()


def ordering(given):
    """A function that orders and emits, and the unit that it does it in."""
    if not isinstance(given, business.AsyncUnit):
        return business.decorated("transaction", add), business.SessionUnit(given)

    async def add_and_flush(target, name):
        order = add(target, name)
        await target.flush()
        return order

    order = business.decorated("transaction", add_and_flush)
    return lambda target, name: given.run(order(target, name)), given


def add(target, name):
    order = business.Order(name=name)
    target.add(order)
    return order


def test_every_reason_has_a_scenario():
    assert {reason for reason, *_ in SCENARIOS.values()} | {ENDED} == set(REASONS)
