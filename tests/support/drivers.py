"""The drivers below SQLAlchemy, each with an engine whose calls a test can make in one way."""

import asyncio
import contextlib

import sqlalchemy
from sqlalchemy.pool import NullPool
from tests.support import business

#: The database of each driver, and its name where its calls are awaited.
DRIVERS = {
    "psycopg": ("postgresql", None),
    "psycopg2": ("postgresql", None),
    "async psycopg": ("postgresql", "psycopg"),
    "asyncpg": ("postgresql", "asyncpg"),
    "sqlite3": ("sqlite", None),
    "aiosqlite": ("sqlite", "aiosqlite"),
}


@contextlib.contextmanager
def running(url, driver, asynchronous, *, explicitly=True):
    """A function that calls another with an engine, where the driver's calls can be awaited.

    Args:
        explicitly: whether SQLAlchemy sends BEGIN to SQLite, instead of sqlite3 before a row.
    """
    there = url.replace("://", "+psycopg2://") if driver == "psycopg2" else url
    if not asynchronous:
        engine = business.engine_on(there, poolclass=NullPool)
        if explicitly:
            business.begin_explicitly(engine)
        yield lambda function: function(engine)
        engine.dispose()
        return
    engine = business.async_engine_on(there, asynchronous, poolclass=NullPool)
    if explicitly:
        business.begin_explicitly(engine.sync_engine)

    async def run(function):
        await sqlalchemy.util.greenlet_spawn(function, engine.sync_engine)

    with asyncio.Runner() as runner:
        yield lambda function: runner.run(run(function))
        runner.run(engine.dispose())
