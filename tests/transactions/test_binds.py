"""A session over several databases has a transaction in each, and an event belongs to none of them.

One exists where its work is committed, or it is counted; none exists where its work is not.
"""

import asyncio
import contextlib
import itertools

import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import NullPool
from tests.support import business
from tests.support.pairs import each_nth
from tests.support.proving import MODES, lost, told
from tests.support.telemetry import restore
from tests.transactions import test_proof as proof

import sidelight
from sidelight import arg, emits
from sidelight.emission.emitter import EMITTER
from sidelight.exceptions import TransactionError

DRIVERS = {name: proof.DRIVERS[name] for name in ("sqlite3", "aiosqlite", "psycopg", "asyncpg")}
#: What precedes the order and what follows it, on the other database.
BESIDE = ("before", "after", "before and after", "in the function", "nowhere")
ENDS = ("commit", "fails here", "fails there", "rollback", "close")


class OfAnother(DeclarativeBase):
    """Tables that only the other database has."""


class Note(OfAnother):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)


class Two:
    """Two databases: the orders are here, and something else is there."""

    def __init__(self, tmp_path, driver, run):
        self._database, self._asynchronous = DRIVERS[driver]
        self.run = run
        urls = []
        for name in ("here", "there"):
            (tmp_path / name).mkdir()
            urls.append(proof.created(tmp_path / name, self._database))
        self.url = urls[0]
        self.store = f"sqlite:///{tmp_path / 'events.db'}"
        sidelight.configure(self.store, outboxes=urls, otlp=False, deadline=1.0)
        self.engines = [self._engine(url) for url in urls]
        self.here, self.there = (getattr(each, "sync_engine", each) for each in self.engines)

    def _engine(self, url):
        engine = (
            business.async_engine_on(url, self._asynchronous, poolclass=NullPool)
            if self._asynchronous
            else business.engine_on(url, poolclass=NullPool)
        )
        sync = getattr(engine, "sync_engine", engine)
        business.begin_explicitly(sync)
        if self._database == "sqlite":
            sqlalchemy.event.listen(
                sync, "connect", lambda raw, _: raw.execute("PRAGMA foreign_keys = ON")
            )
        return engine

    @contextlib.contextmanager
    def session(self, **options):
        kind = AsyncSession if self._asynchronous else Session
        session = kind(binds={business.Order: self.engines[0]}, **options)
        try:
            yield session
        finally:
            self.run(session.close())

    def stored(self):
        sidelight.flush(20)
        with sidelight.Store(self.store) as store:
            return list(store.events())

    def close(self):
        for engine in self.engines:
            self.run(engine.dispose())


@pytest.fixture
def two(tmp_path, driver):
    with asyncio.Runner() as runner:
        is_async = DRIVERS[driver][1] is not None
        made = Two(
            tmp_path, driver, (lambda v: runner.run(proof._settled(v))) if is_async else lambda v: v
        )
        yield made
        made.close()
    restore()


def _insert(session, name, beside):
    session.add(business.Order(name=name))
    beside(session)


async def _insert_awaited(session, name, beside):
    session.add(business.Order(name=name))
    await proof._settled(beside(session))


def _flushed(session, name, beside):
    _insert(session, name, beside)
    session.flush()


async def _flushed_awaited(session, name, beside):
    await _insert_awaited(session, name, beside)
    await session.flush()


FUNCTIONS = {"pending": (_insert, _insert_awaited), "flushed": (_flushed, _flushed_awaited)}


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")  # of a session that is broken
@pytest.mark.parametrize("driver", DRIVERS)
def test_there_is_an_event_of_committed_work_or_a_loss(two, driver, full):
    losses = {}
    is_async = DRIVERS[driver][1] is not None
    every = itertools.product(business.JOINS, FUNCTIONS, BESIDE, ENDS)
    cases = each_nth(every, 3, driver, DRIVERS, full=full)
    for number, (join, pending, beside, end) in enumerate(cases):
        function = FUNCTIONS[pending][is_async]
        order = emits("ordered", n=arg.name, **{join: arg.session})(function)
        case, before = f"{number}: {join}, {pending}, {beside}, {end}", lost()

        def execute(session, text="SELECT 1", bind=two.there):
            return session.execute(sqlalchemy.text(text), bind_arguments={"bind": bind})

        with two.session() as session:
            if "before" in beside:
                two.run(execute(session))
            two.run(order(session, f"{case}|", execute if "function" in beside else lambda _: None))
            if "after" in beside:
                two.run(execute(session))
            if "fails" in end:
                bind = two.here if "here" in end else two.there
                two.run(execute(session, proof.DEFERRED, bind))
            with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError):
                two.run(getattr(session, end, session.commit)())
        losses[case] = lost() - before
    stored = {event.attributes["n"] for event in two.stored()}
    assert told(business.committed(two.url), stored, losses) == ([], [])
    assert stored


@pytest.mark.parametrize("driver", ["sqlite3", "psycopg"])
def test_the_event_follows_all_commits_and_tells_why(two, driver):
    strict = emits("ordered", transaction=arg.session, n=arg.name, strict=True)(_flushed)

    def elsewhere(session):  # in the function
        session.execute(sqlalchemy.text("SELECT 1"), bind_arguments={"bind": two.there})

    with two.session() as session:
        order = emits("ordered", transaction=arg.session, n=arg.name)(_flushed)
        order(session, "in two databases", elsewhere)
        session.commit()
    with two.session() as session, pytest.raises(TransactionError, match="several databases"):
        strict(session, "strict", elsewhere)
    assert EMITTER.losses == {"not joined: several databases": 1}
    (event,) = two.stored()
    assert event.attributes == {
        "n": "in two databases",
        "sidelight.not_joined": "several databases",
    }
    assert business.committed(two.url) == {"in two databases"}


@pytest.mark.parametrize("driver", ["sqlite3", "psycopg"])
def test_an_event_joins_the_connection_that_is_named(two, driver):
    @emits(
        "ordered",
        transaction=lambda session: session.connection(bind_arguments={"mapper": business.Order}),
        n=arg.name,
        strict=True,
    )
    def order(session, name):
        session.add(business.Order(name=name))
        session.execute(sqlalchemy.text("SELECT 1"), bind_arguments={"bind": two.there})
        session.flush()

    with two.session() as session:
        order(session, "kept")
        session.commit()
        order(session, "undone")
        session.rollback()
    assert not EMITTER.losses
    assert [event.attributes["n"] for event in two.stored()] == ["kept"]


def _added(target, name):
    target.add(business.Order(name=name))


def _executed_and_added(target, name):
    target.execute(sqlalchemy.text("SELECT 1"), bind_arguments={"mapper": business.Order})
    target.add(business.Order(name=name))


@pytest.mark.parametrize("driver", ["sqlite3", "psycopg"])
def test_an_event_joins_the_database_to_which_its_function_adds(two, driver):
    OfAnother.metadata.create_all(two.there)
    functions = (_added, _executed_and_added)
    for end, mode, function in itertools.product(("commit", "rollback", "fails"), MODES, functions):
        order = emits("ordered", n=arg.name, **MODES[mode])(function)
        with two.session() as session:
            session.bind_mapper(Note, two.there)
            order(session, f"{end}, {mode}, {function.__name__}")
            session.add(Note())
            if end == "fails":
                session.flush()
                bind = {"mapper": business.Order}
                session.execute(sqlalchemy.text(proof.DEFERRED), bind_arguments=bind)
            with contextlib.suppress(sqlalchemy.exc.IntegrityError):
                getattr(session, end, session.commit)()
    # SQLite keeps a transaction open whose COMMIT fails, and SQLAlchemy gives it back to the pool.
    left_open = {"commit without an answer": len(functions)} if driver == "sqlite3" else {}
    assert left_open == EMITTER.losses
    names = {event.attributes["n"] for event in two.stored()}
    assert names == business.committed(two.url) != set()
