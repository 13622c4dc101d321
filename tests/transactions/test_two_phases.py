"""Two-phase commit: the event is prepared with the work and shares its fate."""

import contextlib
import secrets

import psycopg
import pytest
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from tests.support import business
from tests.support.postgres import new_database
from tests.support.telemetry import restore

import sidelight
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
def url():
    url = new_database()
    with psycopg.connect(url) as connection:
        (allowed,) = connection.execute("SHOW max_prepared_transactions").fetchone()
    if allowed == "0":
        pytest.skip("this server prepares no transactions: set max_prepared_transactions=10")
    business.create_tables(url)
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


@pytest.mark.parametrize("join", business.JOINS)
def test_what_is_prepared_is_no_event_until_it_is_committed(begin, watched, url, join):
    phases = begin(join)
    phases.order("one")
    phases.prepare()
    assert watched.names() == business.committed(url) == set()
    phases.commit()
    assert watched.names() == business.committed(url) == {"one"}
    assert not EMITTER.losses


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
