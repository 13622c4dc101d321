"""Applications with a database of their own: what ``transaction=`` is tried on.

Each does the same: it keeps orders, and its functions emit an event about each order that carries
the order's name. The scenarios are plain Python; where a way is asynchronous, an event loop runs
underneath.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
import sqlite3
import tempfile
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy
from django.db import connections, transaction
from psycopg.rows import namedtuple_row
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from tests.support.postgres import database_of, new_database

import sidelight
from sidelight import arg, emits, result
from sidelight.outbox import table


class Base(DeclarativeBase):
    """The tables of the application, the outbox among them."""


class Order(Base):
    """A row of the business."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


OUTBOX = table(Base.metadata)
INSERT = "INSERT INTO orders (name) VALUES ({}) RETURNING id"


def sqlite(directory: Path) -> str:
    """The URL of a database in a file, in WAL mode."""
    path = directory / "business.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    return f"sqlite:///{path}"


def postgresql(_: Path) -> str:
    """The URL of a database on this worker's server."""
    return new_database()


DATABASES: dict[str, Callable[[Path], str]] = {"sqlite": sqlite, "postgresql": postgresql}


def shop(database: str, directory: Path, fill: Callable[[str], None] | None = None) -> str:
    """The URL of a database with the tables, copied from one that was filled once.

    Args:
        database: kind of the database.
        directory: where a file shall lie.
        fill: makes the tables of a database, by its URL; `create_tables` if not given.
    """
    fill = fill or create_tables
    if database == "postgresql":
        return new_database(template=database_of(fill))
    path = directory / "business.db"
    path.write_bytes(_filled_file(fill))
    return f"sqlite:///{path}"


@functools.cache
def _filled_file(fill: Callable[[str], None]) -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        fill(sqlite(Path(directory)))
        return (Path(directory) / "business.db").read_bytes()


def engine_on(url: str, **options: Any) -> Engine:
    """An engine as an application would make it."""
    return create_engine(url.replace("postgresql://", "postgresql+psycopg://"), **options)


def async_engine_on(url: str, driver: str = "psycopg", **options: Any) -> AsyncEngine:
    """The same, asynchronous."""
    url = url.replace("postgresql://", f"postgresql+{driver}://")
    return create_async_engine(url.replace("sqlite://", "sqlite+aiosqlite://"), **options)


def committed(url: str) -> set[str]:
    """The names of the orders that another connection sees."""
    return set(keys(url))


def keys(url: str) -> dict[str, int]:
    """The same with the keys that the database gave."""
    query = "SELECT name, id FROM orders"
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            return dict(connection.execute(query).fetchall())
    with psycopg.connect(url) as connection:
        return dict(connection.execute(query).fetchall())


@contextlib.contextmanager
def watching(url: str) -> Iterator[Callable[[], set[str]]]:
    """Yield a function that returns the names, on one connection."""
    if url.startswith("sqlite"):
        yield lambda: committed(url)
        return
    with psycopg.connect(url, autocommit=True) as connection:
        yield lambda: {name for (name,) in connection.execute("SELECT name FROM orders")}


def count(url: str) -> int:
    """How many orders there are."""
    return len(keys(url))


def create_tables(url: str) -> None:
    """Make the tables, the outbox among them."""
    engine = engine_on(url)
    Base.metadata.create_all(engine)
    engine.dispose()


# Each function twice: with the event in the transaction, and after its commit.
JOINS = ("transaction", "after_commit")


def decorated(join: str, function: Callable[..., Any], **fields: Any) -> Any:
    """A function that emits "ordered", in or after the transaction of its first argument."""
    fields = {"artifact_id": result.id, "n": arg.name, **fields, join: arg.target}
    return emits("ordered", **fields)(function)


class Application:
    """One way to a database.

    Attributes:
        url: of the database.
        commits: whether a function can commit while its caller has a transaction.
    """

    name: str
    commits = True
    databases: tuple[str, ...] = ("sqlite", "postgresql")

    def __init__(self, url: str, join: str, *, strict: bool = False) -> None:
        self.url = url
        self.join = join
        options = {"strict": strict} if strict else {}
        self.order = decorated(join, self.insert, **options)
        self.order_and_commit = decorated(join, self.insert_and_commit, **options)
        self.commit_and_order = decorated(join, self.commit_and_insert, **options)

    def close(self) -> None:
        """Let go of the database."""

    def unit(self) -> contextlib.AbstractContextManager[Unit]:
        """A connection or session, with a transaction that the test has to end."""
        raise NotImplementedError

    def insert(self, target: Any, name: str) -> Any:
        """Insert an order."""
        raise NotImplementedError

    def insert_and_commit(self, target: Any, name: str) -> Any:
        """Insert an order and commit."""
        raise NotImplementedError

    def commit_and_insert(self, target: Any, name: str) -> Any:
        """Insert an order, commit, and insert another."""
        raise NotImplementedError


class Unit:
    """A connection or session with a transaction that a scenario has to end.

    Attributes:
        target: what ``transaction=`` names.
        run: runs an awaitable to its end, where the target is asynchronous.
    """

    def __init__(self, target: Any, run: Callable[[Any], Any] = lambda value: value) -> None:
        self.target = target
        self.run = run

    def commit(self) -> None:
        """Commit."""
        self.run(self.target.commit())

    def rollback(self) -> None:
        """Roll back."""
        self.run(self.target.rollback())

    def close(self) -> None:
        """Close the connection or session."""
        self.run(self.target.close())

    def flush(self) -> None:
        """Send what is pending, where this kind holds it back."""
        if isinstance(self.target, Session | AsyncSession):
            self.run(self.target.flush())

    def execute(self, text: str) -> None:
        """Execute a statement."""
        is_psycopg = isinstance(self.target, psycopg.Connection | psycopg.AsyncConnection)
        self.run(self.target.execute(text if is_psycopg else sqlalchemy.text(text)))

    def savepoint(self) -> contextlib.AbstractContextManager[None]:
        """A savepoint: released at the end of the block, rolled back to where it raises."""
        begin = getattr(self.target, "begin_nested", None) or self.target.transaction
        return entered(begin(), self.run)


@contextlib.contextmanager
def entered(manager: Any, run: Callable[[Any], Any]) -> Iterator[None]:
    """A context manager, asynchronous or not, around a block."""
    if not hasattr(manager, "__aenter__"):
        with manager:
            yield
        return
    run(manager.__aenter__())
    try:
        yield
    except BaseException as error:
        if not run(manager.__aexit__(type(error), error, error.__traceback__)):
            raise
    else:
        run(manager.__aexit__(None, None, None))


class WithSession(Application):
    """SQLAlchemy's Session."""

    name = "session"

    def __init__(self, url: str, join: str, **options: Any) -> None:
        super().__init__(url, join, **options)
        self.engine = engine_on(url)
        begin_explicitly(self.engine)

    def close(self) -> None:
        self.engine.dispose()

    @contextlib.contextmanager
    def unit(self) -> Iterator[Unit]:
        with Session(self.engine) as session:
            yield Unit(session)

    def insert(self, target: Session, name: str) -> Order:
        order = Order(name=name)
        target.add(order)
        return order

    def insert_and_commit(self, target: Session, name: str) -> Order:
        order = self.insert(target, name)
        target.commit()
        return order

    def commit_and_insert(self, target: Session, name: str) -> Order:
        self.insert_and_commit(target, f"{name} before")
        return self.insert(target, name)


class WithConnection(WithSession):
    """SQLAlchemy's Connection."""

    name = "connection"

    @contextlib.contextmanager
    def unit(self) -> Iterator[Unit]:
        with self.engine.connect() as connection:
            yield Unit(connection)

    def insert(self, target: Any, name: str) -> Any:
        insert = sqlalchemy.insert(Order).values(name=name).returning(Order.id)
        return target.execute(insert).one()


class _Looping(Application):
    """A way that is asynchronous."""

    def __init__(self, url: str, join: str, **options: Any) -> None:
        super().__init__(url, join, **options)
        self._runner = asyncio.Runner()
        for name in ("order", "order_and_commit", "commit_and_order"):
            setattr(self, name, _running(self.run, getattr(self, name)))

    def run(self, awaitable: Any) -> Any:
        """Run to its end."""
        return self._runner.run(awaited(awaitable))

    def close(self) -> None:
        self._runner.close()


async def awaited(awaitable: Any) -> Any:
    """Any awaitable, as a coroutine."""
    return await awaitable


def _running(run: Callable[[Any], Any], function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments, **named: run(function(*arguments, **named))


class WithAsyncSession(_Looping):
    """SQLAlchemy's AsyncSession."""

    name = "async session"
    driver = "psycopg"

    def __init__(self, url: str, join: str, **options: Any) -> None:
        super().__init__(url, join, **options)
        self.engine = async_engine_on(url, self.driver)
        begin_explicitly(self.engine.sync_engine)

    def close(self) -> None:
        self.run(self.engine.dispose())
        super().close()

    @contextlib.contextmanager
    def unit(self) -> Iterator[Unit]:
        session = AsyncSession(self.engine)
        try:
            yield Unit(session, self.run)
        finally:
            self.run(session.close())

    async def insert(self, target: AsyncSession, name: str) -> Order:
        order = Order(name=name)
        target.add(order)
        return order

    async def insert_and_commit(self, target: Any, name: str) -> Any:
        order = await self.insert(target, name)
        await target.commit()
        return order

    async def commit_and_insert(self, target: Any, name: str) -> Any:
        await self.insert_and_commit(target, f"{name} before")
        return await self.insert(target, name)


class WithFlushedAsyncSession(WithAsyncSession):
    """The same, where nothing is left pending: the event is awaited."""

    name = "flushed async session"

    async def insert(self, target: AsyncSession, name: str) -> Order:
        order = await super().insert(target, name)
        await target.flush()
        return order


class WithAsyncConnection(WithAsyncSession):
    """SQLAlchemy's AsyncConnection."""

    name = "async connection"

    @contextlib.contextmanager
    def unit(self) -> Iterator[Unit]:
        connection = self.run(self.engine.connect().start())
        try:
            yield Unit(connection, self.run)
        finally:
            self.run(connection.close())

    async def insert(self, target: Any, name: str) -> Any:
        insert = sqlalchemy.insert(Order).values(name=name).returning(Order.id)
        return (await target.execute(insert)).one()


class _OnAsyncpg:
    """The same on another driver, which prepares what SQLAlchemy gives it."""

    databases = ("postgresql",)
    driver = "asyncpg"


class WithAsyncSessionOnAsyncpg(_OnAsyncpg, WithAsyncSession):
    """SQLAlchemy's AsyncSession on asyncpg."""

    name = "async session on asyncpg"


class WithFlushedAsyncSessionOnAsyncpg(_OnAsyncpg, WithFlushedAsyncSession):
    """The same, where nothing is left pending."""

    name = "flushed async session on asyncpg"


class WithAsyncConnectionOnAsyncpg(_OnAsyncpg, WithAsyncConnection):
    """SQLAlchemy's AsyncConnection on asyncpg."""

    name = "async connection on asyncpg"


class WithPsycopg(Application):
    """psycopg's connection."""

    name = "psycopg"
    databases = ("postgresql",)

    @contextlib.contextmanager
    def unit(self) -> Iterator[Unit]:
        with contextlib.closing(psycopg.connect(self.url, row_factory=namedtuple_row)) as target:
            yield Unit(target)

    def insert(self, target: Any, name: str) -> Any:
        return target.execute(INSERT.format("%s"), (name,)).fetchone()

    def insert_and_commit(self, target: Any, name: str) -> Any:
        order = self.insert(target, name)
        target.commit()
        return order

    def commit_and_insert(self, target: Any, name: str) -> Any:
        self.insert_and_commit(target, f"{name} before")
        return self.insert(target, name)


class WithPsycopgInSql(WithPsycopg):
    """The same, where the application says in SQL what psycopg has methods for."""

    name = "psycopg in SQL"

    @contextlib.contextmanager
    def unit(self) -> Iterator[Unit]:
        with contextlib.closing(psycopg.connect(self.url, row_factory=namedtuple_row)) as target:
            yield SqlUnit(target)

    def insert_and_commit(self, target: Any, name: str) -> Any:
        order = self.insert(target, name)
        target.execute("commit")
        return order


class SqlUnit(Unit):
    """Commits and rolls back in SQL."""

    def commit(self) -> None:
        self.target.execute("COMMIT")

    def rollback(self) -> None:
        self.target.execute("ROLLBACK")

    @contextlib.contextmanager
    def savepoint(self) -> Iterator[None]:
        self.target.execute("SAVEPOINT mine")
        try:
            yield
        except BaseException:
            self.target.execute("ROLLBACK TO mine")
            raise
        self.target.execute("RELEASE SAVEPOINT mine")


class WithAsyncPsycopg(_Looping):
    """psycopg's AsyncConnection."""

    name = "async psycopg"
    databases = ("postgresql",)

    @contextlib.contextmanager
    def unit(self) -> Iterator[Unit]:
        target = self.run(psycopg.AsyncConnection.connect(self.url, row_factory=namedtuple_row))
        try:
            yield Unit(target, self.run)
        finally:
            self.run(target.close())

    async def insert(self, target: Any, name: str) -> Any:
        return await (await target.execute(INSERT.format("%s"), (name,))).fetchone()

    insert_and_commit = WithAsyncSession.insert_and_commit
    commit_and_insert = WithAsyncSession.commit_and_insert


class DjangoUnit(Unit):
    """The alias of a database of Django."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self._atomic: Any = None
        self.begin()

    def begin(self) -> None:
        """Enter an atomic block."""
        self._atomic = transaction.atomic(using=self.target)
        self._atomic.__enter__()

    def commit(self) -> None:
        self._leave(None)
        self.begin()

    def rollback(self) -> None:
        self._leave(RuntimeError())
        self.begin()

    def _leave(self, error: Exception | None) -> None:
        self._atomic.__exit__(error and type(error), error, None)

    def close(self) -> None:
        """Leave the block that is open."""
        self._leave(RuntimeError())

    def execute(self, text: str) -> None:
        with connections[self.target].cursor() as cursor:
            cursor.execute(text)

    def savepoint(self) -> contextlib.AbstractContextManager[None]:
        return transaction.atomic(using=self.target)


class WithDjango(Application):
    """Django, by a database's alias."""

    name = "django"
    commits = False

    def __init__(self, url: str, join: str, **options: Any) -> None:
        super().__init__(url, join, **options)
        self.alias = django_database(url)

    def close(self) -> None:
        connections[self.alias].close()
        del connections.databases[self.alias]

    @contextlib.contextmanager
    def unit(self) -> Iterator[Unit]:
        with contextlib.closing(DjangoUnit(self.alias)) as unit:
            yield unit

    def insert(self, target: Any, name: str) -> Any:
        with connections[target].cursor() as cursor:
            cursor.execute(INSERT.format("%s"), (name,))
            return types.SimpleNamespace(id=cursor.fetchone()[0])


def django_database(url: str, **options: Any) -> str:
    """Tell Django of a database that is set so; answers its alias."""
    import django  # noqa: PLC0415
    from django.conf import settings  # noqa: PLC0415

    if not settings.configured:
        settings.configure(DATABASES={}, USE_TZ=True)
        django.setup()
    given = sqlalchemy.make_url(url)
    alias = f"db{len(connections.databases)}_{secrets.token_hex(4)}"
    backend = given.get_backend_name().replace("sqlite", "sqlite3")
    named = {"ENGINE": f"django.db.backends.{backend}", "NAME": given.database}
    connections.databases[alias] = connections.configure_settings(
        {
            "default": {},
            alias: {
                **named,
                "USER": given.username or "",
                "HOST": given.host or "",
                "PORT": given.port or "",
                "PASSWORD": given.password or "",
                **options,
            },
        }
    )[alias]
    return alias


APPLICATIONS: dict[str, type[Application]] = {
    application.name: application
    for application in (
        WithSession,
        WithConnection,
        WithAsyncSession,
        WithFlushedAsyncSession,
        WithAsyncConnection,
        WithAsyncSessionOnAsyncpg,
        WithFlushedAsyncSessionOnAsyncpg,
        WithAsyncConnectionOnAsyncpg,
        WithPsycopg,
        WithPsycopgInSql,
        WithAsyncPsycopg,
        WithDjango,
    )
}
CASES = [
    (name, database)
    for name, application in APPLICATIONS.items()
    for database in application.databases
]
"""Which way to which database."""


def begin_explicitly(engine: Engine) -> None:
    """As SQLAlchemy's documentation has it for savepoints in SQLite: the driver begins too late."""
    if engine.dialect.name != "sqlite":
        return

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def _begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN")


class Watched:
    """The store into which the events of an application go."""

    def __init__(self, store: str) -> None:
        self.store = store

    def events(self) -> list[sidelight.Event]:
        """The events in the store, once all committed ones have been moved there."""
        assert sidelight.flush(20)
        with sidelight.Store(self.store) as store:
            return list(store.events(type="ordered"))

    def names(self) -> set[str]:
        """The names of the orders that there are events about, each of them once."""
        return _once(self.events())

    def stored_names(self) -> set[str]:
        """The same, without waiting for what is under way."""
        with sidelight.Store(self.store) as store:
            return _once(list(store.events(type="ordered")))


def _once(events: list[sidelight.Event]) -> set[str]:
    names = [event.attributes["n"] for event in events]
    assert len(set(names)) == len(names)
    return set(names)
