"""The error of a signal handler arrives at each place of the INSERT of an event, in PostgreSQL.

The caller handles it and commits. Its own work before the call is committed, or the commit raises.
"""

import contextlib
import gc
import itertools
import os
from pathlib import Path

import django.db
import psycopg
import pytest
import sqlalchemy
from django.db import connections, transaction
from tests.support import business, stepping
from tests.support.postgres import new_database
from tests.support.stepping import TimeLimit
from tests.support.telemetry import restore

import sidelight
from sidelight import arg, emits
from sidelight.transactions import statements

# An interrupt may leave a coroutine that was not begun.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

SAMPLED = 17  # by default each so many places
SOURCES = (stepping.SOURCE, f"{Path(psycopg.__file__).parent}{os.sep}", contextlib.__file__)


@pytest.fixture(scope="module")
def databases():
    """A database, and one whose outbox refuses each row."""
    urls = {"stores": new_database(), "refuses": new_database()}
    for url in urls.values():
        business.create_tables(url)
    with psycopg.connect(urls["refuses"]) as connection:
        connection.execute("ALTER TABLE sidelight_outbox ADD CHECK (position < 0)")
    return urls


@pytest.fixture
def urls(databases, tmp_path):
    sidelight.configure(f"sqlite:///{tmp_path / 'events.db'}", otlp=False, deadline=1.0)
    yield databases
    restore()


class OnSqlalchemy:
    def __init__(self, url, driver):
        url = sqlalchemy.make_url(url).set(drivername=driver)
        self.target = sqlalchemy.create_engine(url).connect()

    @staticmethod
    def insert(target, name):
        target.execute(sqlalchemy.insert(business.Order).values(name=name))

    def committed(self):
        with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError):
            self.target.commit()
            return True
        self.begin_again()
        return False

    def begin_again(self):
        self.target.rollback()

    def close(self):
        self.target.close()
        self.target.engine.dispose()


class OnPsycopg:
    def __init__(self, url, _):
        self.url = url
        self.target = psycopg.connect(url)

    @staticmethod
    def insert(target, name):
        target.execute("INSERT INTO orders (name) VALUES (%s)", (name,))

    def committed(self):
        with contextlib.suppress(psycopg.Error):
            self.target.commit()
            return True
        self.begin_again()
        return False

    def begin_again(self):
        self.close()
        self.target = psycopg.connect(self.url)

    def close(self):
        self.target.close()


class OnDjango:
    def __init__(self, url, _):
        self.target = business.django_database(url)
        connections[self.target].set_autocommit(False)

    @staticmethod
    def insert(target, name):
        with connections[target].cursor() as cursor:
            cursor.execute("INSERT INTO orders (name) VALUES (%s)", (name,))

    def committed(self):
        try:
            transaction.commit(using=self.target)
        except django.db.Error:
            self.begin_again()
            return False
        return True

    def begin_again(self):
        connections[self.target].close()
        connections[self.target].set_autocommit(False)

    def close(self):
        connections[self.target].close()
        del connections.databases[self.target]


APPLICATIONS = {
    "psycopg": (OnPsycopg, ""),
    "SQLAlchemy on psycopg": (OnSqlalchemy, "postgresql+psycopg"),
    "SQLAlchemy on psycopg2": (OnSqlalchemy, "postgresql+psycopg2"),
    "Django": (OnDjango, ""),
}


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("outbox", "strict"), [("stores", False), ("stores", True), ("refuses", False)]
)
@pytest.mark.parametrize("name", APPLICATIONS)
def test_the_work_of_the_caller_is_committed_or_the_commit_raises(
    name, outbox, strict, interrupt, urls, full
):
    kind, driver = APPLICATIONS[name]
    if driver.endswith("psycopg2"):
        pytest.importorskip("psycopg2", reason="pip install psycopg2-binary")
    application = kind(urls[outbox], driver)
    decorate = emits("ordered", n=arg.name, transaction=arg.target, strict=strict)
    function, expected, raised = decorate(lambda target, name: None), {}, {}
    start = list(APPLICATIONS).index(name)
    for step in itertools.count() if full else itertools.count(start, SAMPLED):
        if step % 2:
            statements._found.clear()  # as at the first event
        steps, case = stepping.Steps(step, SOURCES, interrupt), f"{name} {outbox} {strict} {step}"
        application.insert(application.target, case)
        try:
            steps.run(lambda case=case: function(application.target, name=case))
        except TimeLimit:
            (expected if application.committed() else raised)[case] = steps.place
        else:
            expected[case] = steps.place
            assert application.committed()
        if steps.place is None:
            break
    application.close()
    gc.collect()  # what interrupts have left open is no matter of the next test
    names = business.committed(urls[outbox])
    assert [place for case, place in expected.items() if case not in names] == []
    assert expected
    # What is under way in the driver cannot be undone.
    assert strict or [place for place in raised.values() if "psycopg" not in place] == []
