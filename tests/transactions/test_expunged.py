"""An object that leaves its session before a flush is never written, and its event with it."""

import contextlib
import itertools

import pytest
import sqlalchemy
from sqlalchemy.orm import Session
from tests.support import business
from tests.support.drivers import running
from tests.support.pairs import each_nth
from tests.support.proving import MODES, lost
from tests.transactions import test_proof as proof

import sidelight
from sidelight import arg, emits
from sidelight.exceptions import TransactionError

pytestmark = pytest.mark.usefixtures("restored")

# -- what the function does: each object and statement has a letter of its own ---------------------


def add(session, name):
    session.add(business.Order(name=f"{name}a"))


def add_two(session, name):
    session.add_all([business.Order(name=f"{name}a"), business.Order(name=f"{name}b")])


def execute_and_add(session, name):
    session.execute(sqlalchemy.insert(business.Order).values(name=f"{name}i"))
    add(session, name)


def change(session, name):
    session.get(business.Order, 1).name = f"{name}c"


def add_and_expunge(session, name):
    order = business.Order(name=f"{name}x")
    session.add(order)
    session.expunge(order)


def execute_and_roll_back(session, name):
    text = f"INSERT INTO orders (name) VALUES ('{name}x')"
    session.connection().exec_driver_sql(text)
    session.connection().rollback()


def nothing(_session, _name):
    """Work of another kind."""


# -- what the caller does ------------------------------------------------------------------------


def expunge(session):
    session.expunge(next(iter([*session.dirty, *session.new])))


def expunge_of_the_function(session):
    session.expunge([*session.dirty, *session.new][-1])


def expunge_all(session):
    session.expunge_all()


def commit_past_the_session(session):
    session.flush()
    session.connection().commit()


def keep(_session):
    """Leave the session as it is."""


SAMPLED = 29
#: The function undoes its work itself, so that none of it is pending after the call.
UNDONE = (add_and_expunge, execute_and_roll_back)
WORKS = (add, add_two, execute_and_add, change, nothing, *UNDONE)
LEAVES = (expunge, expunge_of_the_function, expunge_all, commit_past_the_session, keep)
CASES = [
    case
    for case in itertools.product(
        MODES,
        (False, True),  # whether an object of the caller is pending before the call
        WORKS,
        LEAVES,
        (False, True),  # whether another object is added after that, so that there is a flush
        (False, True),  # whether the caller flushes itself
    )
    if case[1] or case[2] not in {nothing, *UNDONE} or case[3] not in LEAVES[:2]
]


def perform(engine, case, name):
    mode, is_pending, work, leave, adds, flushes = case
    order = emits("ordered", n=arg.name, **MODES[mode])(lambda target, name: work(target, name))
    with Session(engine, autoflush=False) as session:
        known = session.get(business.Order, 1)  # kept, so that the function sends no SELECT
        if is_pending:
            session.add(business.Order(name=f"{name}before"))
        try:
            order(session, name)
        except TransactionError:  # nothing tells whether it has changed the objects of the caller
            assert mode == "strict"
            assert is_pending
            assert work in UNDONE
        leave(session)
        if adds:
            session.add(business.Order(name=f"{name}after"))
        if flushes:
            session.flush()
        with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError):  # the connection has ended
            session.commit()
        assert known


@pytest.mark.parametrize("driver", proof.DRIVERS)
def test_what_is_never_flushed_has_no_event(driver, tmp_path, full):
    database, asynchronous = proof.DRIVERS[driver]
    url = proof.created(tmp_path, database)
    cases = each_nth(CASES, SAMPLED, driver, proof.DRIVERS, full=full)
    with running(url, driver, asynchronous) as run:

        def first(engine):
            with Session(engine) as session, session.begin():
                session.add(business.Order(name="first"))

        run(first)
        seen = []
        for number, case in enumerate(cases):
            before = lost()
            run(lambda engine, case=case, number=number: perform(engine, case, f"{number}|"))
            names = [name.partition("|") for name in business.committed(url)]
            rows = {name for case, _, name in names if case == f"{number}"} - {"before", "after"}
            seen.append((rows, lost() - before))
    sidelight.flush(60)
    with sidelight.Store(f"sqlite:///{tmp_path / 'events.db'}") as store:
        stored = [event.attributes["n"] for event in store.events()]
    assert [
        (case, rows, events, lost)
        for number, (case, (rows, lost)) in enumerate(zip(cases, seen, strict=True))
        for events in [stored.count(f"{number}|")]
        if wrong(case, rows, events, lost)
    ] == []


def wrong(case, rows, events, lost):
    """Whether the event of a case does not fit its rows."""
    if rows == {"i"}:  # a part of the work is committed
        return events + lost != 1
    if case[2] in UNDONE:  # it may have changed the objects of the caller
        return events or lost > case[1]
    return (events, lost) != (bool(rows) or case[2] is nothing, 0)
