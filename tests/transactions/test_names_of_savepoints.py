"""The names of savepoints are compared as the database does.

Each case makes two savepoints, and undoes or releases one of them by a third spelling. There is an
event for each order that another connection finds, and for no others.
"""

import contextlib
import itertools
import subprocess
import sys

import psycopg
import pytest
import sqlalchemy
from django.db import Error, connections, transaction
from tests.support import business
from tests.support.pairs import each_nth
from tests.support.postgres import new_database
from tests.support.proving import DJANGO_ON_PSYCOPG2, lost
from tests.support.telemetry import restore
from tests.transactions import test_proof as proof
from tests.transactions import test_proof_below_django as below_django

import sidelight
from sidelight.transactions import control

pytestmark = pytest.mark.usefixtures("restored")

ANY = ("a", "A", '"a"', '"A"', "Ä", "ä", '"Ä"', "a$1", "a$2", "a\u00a0b")
LONG = "s" * 63
NAMES = {
    "postgresql": (
        *ANY,
        *(f"{LONG}a", f"{LONG}b", f'"{LONG}"', "ß" * 32, f'"{"ß" * 31}"', f"{LONG[1:]}ä", LONG[1:]),
        *('U&"\\0061"', "u&\"!0041\" UESCAPE '!'", 'U&"\\\\"', '"\\"', 'U&"\\D83D\\DE00"', '"😀"'),
    ),
    "sqlite": (
        *ANY,
        *("'a'", "'A'", "[a]", "[A]", "`a`", '"a""b"', "'a\"b'", "[Ä]", f"{LONG}a", f"{LONG}b"),
        "a /* /* */",
    ),
}
VERBS = ("ROLLBACK TO", "RELEASE")
SAMPLED = {"postgresql": 613, "sqlite": 421}
#: Those who share the cases of a database.
USERS = (
    *proof.DRIVERS,
    *("psycopg itself", "psycopg itself, awaited"),
    *(f"Django on {driver}" for driver in below_django.DRIVERS),
)


def cases(database, user, *, full):
    """Yield the steps of each case of a user; by default of a few."""
    every = itertools.product(NAMES[database], VERBS, NAMES[database], NAMES[database])
    for one, verb, two, three in each_nth(every, SAMPLED[database], user, USERS, full=full):
        yield (
            f"order | SAVEPOINT {one} | order | SAVEPOINT {two} | order"
            f" | {verb} {three} | order | ROLLBACK TO {one} | order"
        )


ERRORS = (psycopg.Error, sqlalchemy.exc.SQLAlchemyError, Error)


def perform(database, user, opened, *, full):
    """Perform the cases; the number of those that the database has not refused.

    Args:
        database: kind of the database.
        user: one of `USERS`.
        opened: takes the name of a case; its context gives a step and commits at its end.
        full: whether to perform all of them.
    """
    before, done = lost(), 0
    for number, steps in enumerate(cases(database, user, full=full)):
        name = f"{number}: {steps.replace('|', '-')}|"
        with contextlib.suppress(*ERRORS), opened(name) as step:
            for each in steps.split(" | "):
                step(each)
            done += 1
    assert lost() == before
    return done


def check(url, tmp_path):
    """There are events of what was committed, and of nothing else."""
    with sidelight.Store(f"sqlite:///{tmp_path / 'events.db'}") as store:
        stored = [event.attributes["n"] for event in store.events()]
    assert sorted(stored) == sorted(business.committed(url))
    assert stored


@pytest.mark.parametrize("driver", proof.DRIVERS)
def test_below_sqlalchemy(driver, tmp_path, full):
    database, asynchronous = proof.DRIVERS[driver]
    url = there = proof.created(tmp_path, database)
    if driver == "psycopg2":
        there = url.replace("://", "+psycopg2://")
    with proof.opened(there, asynchronous, is_session=False) as unit:

        @contextlib.contextmanager
        def opened(name):
            try:
                yield proof.Stepping(unit, proof.ORDERS["connection"], name).step
                unit.commit()
            finally:
                unit.rollback()

        assert perform(database, driver, opened, full=full)
    assert sidelight.flush(60)
    check(url, tmp_path)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_on_psycopg(asynchronous, tmp_path, full):
    url = proof.created(tmp_path, "postgresql")
    with proof.driven(url, asynchronous) as connection:

        @contextlib.contextmanager
        def opened(name):
            numbers = itertools.count()

            def step(text):
                if text == "order":
                    connection.order(f"{name}{next(numbers)}")
                else:
                    connection.execute(text)

            try:
                yield step
                connection.commit()
            finally:
                connection.rollback()

        user = "psycopg itself, awaited" if asynchronous else "psycopg itself"
        assert perform("postgresql", user, opened, full=full)
    assert sidelight.flush(60)
    check(url, tmp_path)


def perform_below_django(driver, url, *, full):
    """Perform the cases on a database of Django."""
    alias = business.django_database(url)

    @contextlib.contextmanager
    def opened(name):
        with transaction.atomic(using=alias):
            yield below_django.Stepping(alias, name).step

    user = f"Django on {driver}"
    assert perform(below_django.DRIVERS[driver][0], user, opened, full=full)
    connections[alias].close()
    del connections[alias]
    del connections.databases[alias]
    assert sidelight.flush(60)


ON_PSYCOPG2 = """
import sidelight
from tests.transactions.test_names_of_savepoints import perform_below_django

sidelight.configure(sys.argv[1], outboxes=[sys.argv[2]], otlp=False, deadline=1.0)
perform_below_django("psycopg2", sys.argv[2], full=sys.argv[3] == "True")
"""


@pytest.mark.parametrize("driver", below_django.DRIVERS)
def test_below_django(driver, tmp_path, full):
    url = proof.created(tmp_path, below_django.DRIVERS[driver][0])
    if driver == "psycopg2":
        restore()
        store = f"sqlite:///{tmp_path / 'events.db'}"
        command = [sys.executable, "-c", DJANGO_ON_PSYCOPG2 + ON_PSYCOPG2, store, url, f"{full}"]
        subprocess.run(command, check=True)
    else:
        perform_below_django(driver, url, full=full)
    check(url, tmp_path)


def test_what_the_encoding_decides_is_counted(tmp_path):
    """In a single-byte encoding the locale of the database folds more letters than ASCII."""
    url = new_database(encoding="LATIN1")
    business.create_tables(url)
    sidelight.configure(f"sqlite:///{tmp_path / 'events.db'}", otlp=False)
    with proof.driven(url, asynchronous=False) as connection:

        def order(name):
            proof.AFTER[proof._insert](connection.target, name)

        for one, two in itertools.product(["a", "A", "Ä", "ä"], repeat=2):
            before = lost()
            order(f"{one}{two} before")
            connection.execute(f"SAVEPOINT {one}")
            order(f"{one}{two} between")
            connection.execute(f"SAVEPOINT {two}")
            order(f"{one}{two} after")
            connection.execute(f"ROLLBACK TO {one}")
            connection.commit()
            is_told = one == two or {one, two} == {"a", "A"}
            assert lost() - before == (not is_told), (one, two)
    sidelight.flush(60)
    with sidelight.Store(f"sqlite:///{tmp_path / 'events.db'}") as store:
        stored = {event.attributes["n"] for event in store.events()}
    assert stored == business.committed(url)  # the locale is C, which folds ASCII only


UTF8 = control.in_postgresql("UTF8")


@pytest.mark.parametrize(
    ("dialect", "text", "verbs"),
    [
        (control.SQLITE, "/* /* */ COMMIT", ["COMMIT"]),
        (control.SQLITE, "-- \rROLLBACK", []),
        (control.SQLITE, "SELECT [;COMMIT;]; ROLLBACK", ["", "ROLLBACK"]),
        (UTF8, "/* /* */ COMMIT", []),
        (UTF8, "-- \rCOMMIT", ["COMMIT"]),
        (
            control.in_postgresql("UTF8"),
            "SELECT a$$ FROM b; COMMIT; SELECT c$$",
            ["", "COMMIT", ""],
        ),
        (UTF8, "SELECT $ä$;COMMIT;$ä$; ROLLBACK", ["", "ROLLBACK"]),
    ],
)
def test_texts_are_read_as_the_database_does(dialect, text, verbs):
    assert [each.verb for each in control.statements(text, dialect)] == verbs
