"""Two-phase commit: the event is prepared with the work and shares its fate."""

import contextlib
import gc
import itertools
import secrets

import psycopg
import pytest
import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from tests.support import business
from tests.support.drivers import running
from tests.support.pairs import each_nth
from tests.support.proving import lost
from tests.support.telemetry import restore
from tests.transactions import test_proof as proof

import sidelight
from sidelight import arg, emits
from sidelight.emission.emitter import EMITTER


class Phases:
    """A transaction that is prepared, and then committed or rolled back."""

    def __init__(self, application):
        self.application = application
        self.name = secrets.token_hex(8)

    def order(self, name):
        """Work that is part of it."""
        self.application.order(self.target, name)


class OfSession(Phases):
    way = "session"

    def __init__(self, application):
        super().__init__(application)
        self.target = Session(application.engine, twophase=True)

    def prepare(self):
        self.target.prepare()

    def commit(self):
        self.target.commit()

    def rollback(self):
        self.target.rollback()

    def leave(self):
        self.target.close()


class OfConnection(Phases):
    way = "connection"

    def __init__(self, application):
        super().__init__(application)
        self.target = application.engine.connect()
        self._transaction = self.target.begin_twophase(self.name)

    def prepare(self):
        self._transaction.prepare()

    def commit(self):
        self._transaction.commit()

    def rollback(self):
        self._transaction.rollback()

    def leave(self):
        self.target.close()


class OfPsycopg(Phases):
    way = "psycopg"

    def __init__(self, application):
        super().__init__(application)
        self.target = psycopg.connect(application.url, row_factory=psycopg.rows.namedtuple_row)
        self.target.tpc_begin(self.target.xid(1, self.name, "test"))

    def prepare(self):
        self.target.tpc_prepare()

    def commit(self):
        self.target.tpc_commit()

    def rollback(self):
        self.target.tpc_rollback()

    def leave(self):
        self.target.close()


class InSql(OfPsycopg):
    way = "psycopg in SQL"

    def __init__(self, application):
        Phases.__init__(self, application)
        self.target = psycopg.connect(application.url, row_factory=psycopg.rows.namedtuple_row)
        self._autocommit(on=False)

    def prepare(self):
        self.target.execute(f"PREPARE TRANSACTION '{self.name}'")

    def commit(self):
        self._end("COMMIT")

    def rollback(self):
        self._end("ROLLBACK")

    def _end(self, verb):
        self._autocommit(on=True)
        self.target.execute(f"{verb} PREPARED '{self.name}'")

    def _autocommit(self, *, on):
        self.target.autocommit = on


WAYS = (OfSession, OfConnection, OfPsycopg, InSql)


@pytest.fixture(params=WAYS, ids=lambda way: way.way)
def way(request):
    return request.param


@pytest.fixture
def url(tmp_path):
    url = business.shop("postgresql", tmp_path)
    with psycopg.connect(url) as connection:
        (allowed,) = connection.execute("SHOW max_prepared_transactions").fetchone()
    if allowed == "0":
        pytest.skip("this server prepares no transactions: set max_prepared_transactions=10")
    return url


@pytest.fixture
def begin(way, url, tmp_path, request):
    """Begins a transaction of the given kind of join; and the reader of the store."""
    sidelight.configure(
        f"sqlite:///{tmp_path / 'events.db'}", outboxes=[url], otlp=False, deadline=1.0
    )
    made = []

    def begin(join):
        application = business.APPLICATIONS[way.way](url, join)
        made.append((way(application), application))
        return made[-1][0]

    yield begin
    for phases, application in made:
        with contextlib.suppress(psycopg.Error, SQLAlchemyError):  # gone, in one of the tests
            phases.leave()
        application.close()
    restore()


@pytest.fixture
def watched(begin, tmp_path):
    return business.Watched(f"sqlite:///{tmp_path / 'events.db'}")


@pytest.mark.one_in(2)
@pytest.mark.parametrize("join", business.JOINS)
def test_what_is_prepared_is_no_event_until_it_is_committed(begin, watched, url, join):
    phases = begin(join)
    phases.order("one")
    phases.prepare()
    assert watched.names() == business.committed(url) == set()
    phases.commit()
    assert watched.names() == business.committed(url) == {"one"}
    assert not EMITTER.losses


@pytest.mark.one_in(2)
@pytest.mark.parametrize("join", business.JOINS)
def test_what_is_prepared_and_rolled_back_never_was(begin, watched, url, join):
    phases = begin(join)
    phases.order("one")
    phases.prepare()
    phases.rollback()
    assert watched.names() == business.committed(url) == set()
    assert not EMITTER.losses


@pytest.mark.parametrize("verb", ["COMMIT", "ROLLBACK"])
def test_another_may_decide(begin, watched, url, verb):
    """Commits as a transaction manager does after the death of the preparing process."""
    phases = begin("transaction")
    phases.order("one")
    phases.prepare()
    with psycopg.connect(url, autocommit=True) as manager:
        manager.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid != pg_backend_pid()"
        )
        query = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
        ((name,),) = manager.execute(query).fetchall()
        manager.execute(f"{verb} PREPARED '{name}'")
    assert watched.names() == business.committed(url) == ({"one"} if verb == "COMMIT" else set())


# -- what SQLAlchemy does after another connection may have decided --------------------------------


def commits(transaction):
    transaction.commit()


def rolls_back(transaction):
    transaction.rollback()


def closes(transaction):
    transaction.close()


def invalidates(transaction):
    transaction.connection.invalidate()
    transaction.close()


def forgets(_):
    """Leave the connection to the garbage collector."""


class OnConnection:
    """The transaction of a connection."""

    def __init__(self, engine, name):
        self.target = self.connection = engine.connect()
        self._transaction = self.connection.begin_twophase(name)

    def __getattr__(self, name):
        return getattr(self._transaction, name)


class InSession:
    """The transaction of a session."""

    def __init__(self, engine, _):
        self.target = Session(engine, twophase=True)
        self.connection = self.target.connection()

    def __getattr__(self, name):
        return getattr(self.target, name)


DRIVERS = {name: driver for name, driver in proof.DRIVERS.items() if driver[0] == "postgresql"}
CASES = list(
    itertools.product(
        (OnConnection, InSession),
        business.JOINS,
        (False, True),  # whether a statement fails, so that the server answers PREPARE by ROLLBACK
        ("COMMIT", "ROLLBACK", None),  # what another connection does with what is prepared
        (commits, rolls_back, closes, invalidates, forgets),
    )
)


def insert(target, name):
    target.execute(sqlalchemy.insert(business.Order).values(name=name))


ORDERS = {
    join: emits("ordered", n=arg.name, **{join: arg.target})(insert) for join in business.JOINS
}


def decide(url, verb):
    """Decide on what is prepared, by another connection."""
    with psycopg.connect(url, autocommit=True) as manager:
        prepared = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
        for (gid,) in manager.execute(prepared).fetchall():
            manager.execute(f"{verb} PREPARED '{gid}'")


def perform(engine, url, case, name):
    kind, join, fails, verb, then = case
    transaction = kind(engine, secrets.token_hex(8))
    ORDERS[join](transaction.target, name)
    if fails:
        with contextlib.suppress(sqlalchemy.exc.DBAPIError):
            transaction.connection.exec_driver_sql("SELECT * FROM nowhere")
    transaction.prepare()
    if verb:
        decide(url, verb)
    with contextlib.suppress(sqlalchemy.exc.DBAPIError):
        then(transaction)
    decide(url, "ROLLBACK")


def expected(case):
    """How many events and losses a case has."""
    _, join, fails, verb, then = case
    if join == "transaction":
        is_committed = verb == "COMMIT" or (verb is None and then is commits)
        return (int(is_committed and not fails), 0)
    if fails:
        return (0, 0)
    if verb or then in {invalidates, forgets}:
        return (0, 1)
    return (int(then is commits), 0)


@pytest.mark.filterwarnings("ignore")  # connections are left to the garbage collector
@pytest.mark.parametrize("driver", DRIVERS)
def test_what_another_may_have_decided_is_counted(driver, url, tmp_path, full):
    store = f"sqlite:///{tmp_path / 'events.db'}"
    sidelight.configure(store, outboxes=[url], otlp=False, deadline=1.0)
    cases, found = each_nth(CASES, 13, driver, DRIVERS, full=full), {}
    with running(url, driver, DRIVERS[driver][1]) as run:
        for number, case in enumerate(cases):
            before = lost()
            run(lambda engine, case=case, name=f"{number}": perform(engine, url, case, name))
            gc.collect()
            found[number] = lost() - before
    sidelight.flush(60)
    with sidelight.Store(store) as events:
        stored = [event.attributes["n"] for event in events.events()]
    restore()
    assert set(stored) <= business.committed(url)
    assert [
        (case, *seen)
        for number, case in enumerate(cases)
        for seen in [(stored.count(f"{number}"), found[number])]
        if seen != expected(case)
    ] == []
