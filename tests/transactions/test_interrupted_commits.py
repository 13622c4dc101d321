"""The error of a signal handler arrives at each place of a commit or a rollback, on each driver.

Each event of an order that is committed is stored or counted, and no other event is stored. Where
the caller rolls back, and the order is not committed, nothing is counted either.
"""

import contextlib
import gc
import itertools
import os
import signal
from pathlib import Path

import django.db
import psycopg
import pytest
import sqlalchemy
from django.db import connections, transaction
from sqlalchemy.orm import Session
from tests.support import business, stepping
from tests.support.proving import lost
from tests.support.stepping import TimeLimit
from tests.support.telemetry import restore

import sidelight
from sidelight import arg, emits

pytestmark = [
    # The interrupt may break the state of SQLAlchemy.
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning", "ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SAMPLED = 17  # by default each so many places
SOURCES = (
    stepping.SOURCE,
    *(f"{Path(each.__file__).parent}{os.sep}" for each in (sqlalchemy, psycopg, django.db)),
    contextlib.__file__,
)


def _ring(*_):
    raise TimeLimit


def _ring_exit(*_):
    raise KeyboardInterrupt


RINGS = (_ring, _ring_exit)
ARRIVING = (TimeLimit, KeyboardInterrupt)


@pytest.fixture
def interrupt():
    """Interrupts in one of two ways."""
    before = signal.getsignal(signal.SIGALRM)

    def interrupt(way):
        signal.signal(signal.SIGALRM, RINGS[way])
        signal.raise_signal(signal.SIGALRM)

    yield interrupt
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def urls(databases, directory):
    """The databases, and a store in the same directory."""
    sidelight.configure(f"sqlite:///{directory / 'events.db'}", otlp=False)
    yield databases
    restore()


# -- ways to commit: each makes a target, and is then interrupted ----------------------------------


class OnSqlalchemy:
    """A session or a connection, new for each commit that is interrupted."""

    def __init__(self, url, driver):
        url = sqlalchemy.make_url(url).set(drivername=driver)
        self.engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)

    def close(self):
        """Close nothing: an engine without a pool has nothing open."""


def _insert(target, name):
    target.execute(sqlalchemy.insert(business.Order).values(name=name))


def _add(target, name):
    target.add(business.Order(name=name))


class SessionCommit(OnSqlalchemy):
    insert = staticmethod(_add)

    def run(self, order, stepped):
        with Session(self.engine) as target:
            order(target)
            try:
                stepped(target.commit)
            finally:
                target.rollback()


class SessionBlock(OnSqlalchemy):
    insert = staticmethod(_insert)

    def run(self, order, stepped):
        with Session(self.engine) as target:
            block = target.begin()
            block.__enter__()
            order(target)
            stepped(lambda: block.__exit__(None, None, None))


class ConnectionCommit(OnSqlalchemy):
    insert = staticmethod(_insert)

    def run(self, order, stepped):
        with self.engine.connect() as target:
            order(target)
            try:
                stepped(target.commit)
            finally:
                target.rollback()


class ConnectionGivenUp(OnSqlalchemy):
    """The pool's next user commits what is left open."""

    insert = staticmethod(_insert)

    def __init__(self, url, driver):
        super().__init__(url, driver)
        self.engine = sqlalchemy.create_engine(self.engine.url, pool_size=1, max_overflow=0)

    def run(self, order, stepped):
        try:
            with self.engine.connect() as target:
                order(target)
                stepped(target.commit)
        finally:
            with self.engine.connect() as following:
                following.execute(sqlalchemy.text("SELECT 1"))
                following.commit()

    def close(self):
        self.engine.dispose()


class ConnectionBlock(OnSqlalchemy):
    insert = staticmethod(_insert)

    def run(self, order, stepped):
        block = self.engine.begin()
        order(block.__enter__())
        stepped(lambda: block.__exit__(None, None, None))


class ConnectionGoneOnWith(OnSqlalchemy):
    """SQLAlchemy forgets what was to be rolled back, and the next commit commits it."""

    insert = staticmethod(_insert)

    def run(self, order, stepped):
        with self.engine.connect() as target:
            order(target)
            try:
                stepped(target.rollback)
            finally:
                target.execute(sqlalchemy.text("SELECT 1"))
                target.commit()


class ConnectionInSql(OnSqlalchemy):
    insert = staticmethod(_insert)

    def run(self, order, stepped):
        with self.engine.connect() as target:
            order(target)
            stepped(lambda: target.execute(sqlalchemy.text("COMMIT")))


class SavepointOnly(OnSqlalchemy):
    insert = staticmethod(_insert)

    def run(self, order, stepped):
        with self.engine.connect() as target:
            block = target.begin_nested()
            block.__enter__()
            order(target)
            stepped(lambda: block.__exit__(None, None, None))


WITH_SQLALCHEMY = {
    f"{way.__name__} {driver}": (way, database, driver)
    for way in (
        *(SessionCommit, SessionBlock, ConnectionCommit),
        *(ConnectionGivenUp, ConnectionBlock, ConnectionGoneOnWith, ConnectionInSql),
    )
    for database, driver in (
        ("sqlite", "sqlite"),
        ("postgresql", "postgresql+psycopg"),
        ("postgresql", "postgresql+psycopg2"),
    )
}
WITH_SQLALCHEMY["SavepointOnly sqlite"] = (SavepointOnly, "sqlite", "sqlite")


class OnPsycopg:
    """A connection of psycopg, new for each commit that is interrupted."""

    def __init__(self, url, _):
        self.url = url

    @staticmethod
    def insert(target, name):
        target.execute("INSERT INTO orders (name) VALUES (%s)", (name,))

    def run(self, order, stepped):
        with contextlib.closing(psycopg.connect(self.url)) as target:
            self.commit(target, lambda: order(target), stepped)

    def close(self):
        """Close nothing."""


class PsycopgCommit(OnPsycopg):
    def commit(self, target, order, stepped):
        order()
        stepped(target.commit)


class PsycopgCommitAgain(OnPsycopg):
    def commit(self, target, order, stepped):
        order()
        try:
            stepped(target.commit)
        except ARRIVING:
            target.commit()
            raise


class PsycopgRollback(OnPsycopg):
    def commit(self, target, order, stepped):
        order()
        try:
            stepped(target.commit)
        finally:
            target.rollback()


class PsycopgInSql(OnPsycopg):
    def commit(self, target, order, stepped):
        order()
        stepped(lambda: target.execute("COMMIT"))


class PsycopgTwoPhases(OnPsycopg):
    def commit(self, target, order, stepped):
        target.tpc_begin(target.xid(1, os.urandom(8).hex(), "b"))
        order()
        stepped(target.tpc_commit)


class PsycopgBlock(OnPsycopg):
    def commit(self, target, order, stepped):
        block = target.transaction()
        block.__enter__()
        with target.transaction():
            order()
        stepped(lambda: block.__exit__(None, None, None))


class PsycopgWith(OnPsycopg):
    def commit(self, target, order, stepped):
        order()
        stepped(lambda: target.__exit__(None, None, None))


class OnDjango:
    """Django's alias of a database."""

    def __init__(self, url, _):
        self.alias = business.django_database(url)

    def insert(self, target, name):
        with connections[target].cursor() as cursor:
            cursor.execute("INSERT INTO orders (name) VALUES (%s)", (name,))

    def run(self, order, stepped):
        try:
            self.commit(lambda: order(self.alias), stepped)
        finally:
            with contextlib.suppress(Exception):
                connections[self.alias].close()
            del connections[self.alias]

    def close(self):
        connections[self.alias].close()
        del connections.databases[self.alias]


class DjangoBlock(OnDjango):
    def commit(self, order, stepped):
        block = transaction.atomic(using=self.alias)
        block.__enter__()
        with transaction.atomic(using=self.alias):
            order()
        stepped(lambda: block.__exit__(None, None, None))


class DjangoHook(OnDjango):
    def commit(self, order, stepped):
        block = transaction.atomic(using=self.alias)
        block.__enter__()
        transaction.on_commit(lambda: None, using=self.alias)
        order()
        stepped(lambda: block.__exit__(None, None, None))


class DjangoByHand(OnDjango):
    def commit(self, order, stepped):
        connection = connections[self.alias]
        connection.set_autocommit(False)
        order()
        stepped(connection.commit)


OTHERS = {
    way.__name__: (way, "postgresql", "")
    for way in (
        PsycopgCommit,
        PsycopgCommitAgain,
        PsycopgRollback,
        PsycopgInSql,
        PsycopgTwoPhases,
        PsycopgBlock,
        PsycopgWith,
    )
}
OTHERS |= {
    f"{way.__name__} {database}": (way, database, "")
    for way in (DjangoBlock, DjangoHook, DjangoByHand)
    for database in ("sqlite", "postgresql")
}


WAYS = WITH_SQLALCHEMY | OTHERS


@pytest.mark.one_in(2)
@pytest.mark.parametrize("way", WAYS)
def test_each_event_of_a_commit_is_stored_or_counted(way, interrupt, urls, directory, full):
    kind, database, driver = WAYS[way]
    if "psycopg2" in driver:
        pytest.importorskip("psycopg2", reason="pip install psycopg2-binary")
    application = kind(urls[database], driver)
    function = emits("ordered", n=arg.name, after_commit=arg.target)(application.insert)
    places, losses = {}, {}
    number = [*WAYS].index(way)
    cases = itertools.count() if full else itertools.count(number % SAMPLED * 2, SAMPLED * 2 + 1)
    for case in cases:  # each place twice, once for each kind of error
        steps = stepping.Steps(case // 2, SOURCES, lambda case=case: interrupt(case % 2))
        name, before = f"{way} {case}", lost()
        try:
            application.run(lambda target, name=name: function(target, name=name), steps.run)
        except (*ARRIVING, psycopg.OperationalError, django.db.Error):
            pass
        except sqlalchemy.exc.SQLAlchemyError:  # the state of the session is broken
            gc.collect()  # it may have a connection open
        losses[name], places[name] = lost() - before, steps.place
        if steps.place is None:
            break
    application.close()
    gc.collect()  # what interrupts have left open is no matter of the next test
    names = {name for name in business.committed(urls[database]) if name in places}
    sidelight.flush(60)
    with sidelight.Store(f"sqlite:///{directory / 'events.db'}") as store:
        known = [event.attributes["n"] for event in store.events()]
    stored = [name for name in known if name in places]

    def where(wrong):
        return [f"{name}: {place}" for name, place in places.items() if wrong(name)]

    assert len({*stored}) == len(stored) > 0
    assert where(lambda name: name in names and (name in stored) == bool(losses[name])) == []
    assert where(lambda name: name not in names and (name in stored or losses[name])) == []
    assert max(losses.values()) < 2
