"""A transaction is ended past SQLAlchemy, by the driver's own connection or cursor.

SQLAlchemy tells nothing then. Nothing proves how the transaction has ended, so that an event that
waits for its commit is counted as lost, whatever SQLAlchemy does next.
"""

import asyncio
import contextlib
import itertools

import pytest
import sqlalchemy
from sqlalchemy.orm import Session
from tests.support import business

import sidelight
from sidelight import arg, emits
from sidelight.emission import EMITTER

pytestmark = pytest.mark.usefixtures("restored")

INSERT = sqlalchemy.text("INSERT INTO orders (name) VALUES (:name)")
UNPROVED = {"commit without an answer": 1}
#: The database, and whether the driver is asynchronous.
DRIVERS = {
    "pysqlite": ("sqlite", False),
    "aiosqlite": ("sqlite", True),
    "psycopg": ("postgresql", False),
    "psycopg_async": ("postgresql", True),
    "psycopg2": ("postgresql", False),
    "asyncpg": ("postgresql", True),
}


class Paused(dict):
    """Databases none of which was quick enough a moment ago: each event waits for its commit."""

    def get(self, database, default=None):
        return float("inf")


# -- ways to end a transaction past SQLAlchemy -----------------------------------------------------


def commit(pooled):
    pooled.commit()


def rollback(pooled):
    pooled.rollback()


def commit_in_sql(pooled):
    pooled.cursor().execute("COMMIT")


def rollback_in_sql(pooled):
    pooled.cursor().execute("ROLLBACK")


def script(pooled):
    pooled.driver_connection.executescript("CREATE TABLE other (x)")  # commits before


ENDS = (commit, rollback, commit_in_sql, rollback_in_sql)
CASES = [(driver, end) for driver in DRIVERS for end in ENDS]
CASES.append(("pysqlite", script))

# -- what SQLAlchemy does next ---------------------------------------------------------------------


def commits(unit):
    unit.commit()


def rolls_back(unit):
    unit.rollback()


def closes(unit):
    unit.close()


def executes_and_commits(unit):
    unit.execute(INSERT, {"name": "other"})
    unit.commit()


def executes_and_rolls_back(unit):
    unit.execute(INSERT, {"name": "other"})
    unit.rollback()


NEXT = (commits, rolls_back, closes, executes_and_commits, executes_and_rolls_back)


#: Each seventh of all, so that each pair of values has its turn.
TABLE = [
    (*case, after, kind, mode)
    for case, after, kind, mode in itertools.product(
        CASES, NEXT, ("core", "session"), ("transaction", "after_commit")
    )
][::7]


def on_driver(url, driver, work):
    """Call a function with a connection of a driver, in SQLAlchemy's greenlet where it awaits."""
    dialect = url.split(":")[0]
    there = url.replace(f"{dialect}:", f"{dialect}+{driver}:", 1)
    if not DRIVERS[driver][1]:
        engine = sqlalchemy.create_engine(there)
        with engine.connect() as connection:
            work(connection)
        engine.dispose()
        return

    async def awaited():
        engine = business.async_engine_on(url, driver.removesuffix("_async"))
        async with engine.connect() as connection:
            await connection.run_sync(work)
        await engine.dispose()

    asyncio.run(awaited())


def named(value):
    return getattr(value, "__name__", value)


@pytest.mark.one_in(3)
@pytest.mark.parametrize(("driver", "end", "after", "kind", "mode"), TABLE, ids=named)
def test_an_event_whose_transaction_ended_past_sqlalchemy_is_counted(
    driver, end, after, kind, mode, tmp_path, monkeypatch
):
    monkeypatch.setattr("sidelight.transactions.statements._paused_until", Paused())
    url = business.shop(DRIVERS[driver][0], tmp_path)
    sidelight.configure(f"sqlite:///{tmp_path / 'events.db'}", otlp=False, deadline=1.0)

    @emits("ordered", **{mode: arg.unit})
    def order(unit):
        unit.execute(INSERT, {"name": "mine"})

    def work(connection):
        with Session(connection) if kind == "session" else contextlib.nullcontext(connection) as u:
            order(u)
            end(connection.connection)
            after(u)

    on_driver(url, driver, work)
    is_committed = end in {commit, commit_in_sql, script}
    assert ("mine" in business.committed(url)) is is_committed
    assert dict(EMITTER.losses) == UNPROVED
    sidelight.flush(20)
    with sidelight.Store(f"sqlite:///{tmp_path / 'events.db'}") as store:
        assert not list(store.events(type="ordered"))
