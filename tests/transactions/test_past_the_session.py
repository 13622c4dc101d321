"""A connection's transaction ends past the session, while objects are pending in it.

Each case orders by a function that leaves its work pending, wholly or in part, and ends on one of
the ways. There is an event if all rows of the order are committed. There is none if no row is.
Where a part of the rows is committed, the event is counted. A loss is counted for nothing else,
except where the function has executed a statement, because nobody knows what it has done.
"""

import contextlib
import itertools

import pytest
import sqlalchemy
from sqlalchemy.orm import Session
from tests.support import business
from tests.support.drivers import running
from tests.support.pairs import each_nth
from tests.support.proving import lost
from tests.transactions import test_proof as proof

import sidelight
from sidelight import arg, emits

pytestmark = pytest.mark.usefixtures("restored")

# -- what the function does: each row has the name of the order, and one letter --------------------


def add(session, name):
    session.add(business.Order(name=f"{name}a"))


def select_and_add(session, name):
    session.execute(sqlalchemy.text("SELECT 1"))
    add(session, name)


def insert_and_add(session, name):
    session.execute(sqlalchemy.insert(business.Order).values(name=f"{name}i"))
    add(session, name)


def flush_and_add(session, name):
    session.add(business.Order(name=f"{name}i"))
    session.flush()
    add(session, name)


WORKS = {add: "a", select_and_add: "a", insert_and_add: "ai", flush_and_add: "ai"}


# -- ways to end: each calls `order` with a session, and ends the transaction ----------------------


def begun(session):
    """The session's connection, on which something was executed."""
    session.execute(sqlalchemy.text("SELECT 1"))
    return session.connection()


def in_sql(text):
    def way(engine, order, *, finish):
        with Session(engine) as session:
            connection = begun(session)
            order(session)
            connection.exec_driver_sql(text)
            finish(session)

    way.__name__ = text
    return way


def connection_commits(engine, order, *, finish):
    with Session(engine) as session:
        connection = begun(session)
        order(session)
        connection.commit()
        finish(session)


def connection_rolls_back(engine, order, *, finish):
    with Session(engine) as session:
        connection = begun(session)
        order(session)
        connection.rollback()
        finish(session)


def savepoint_is_rolled_back(engine, order, *, finish):
    with Session(engine) as session:
        connection = begun(session)
        connection.exec_driver_sql("SAVEPOINT a")
        order(session)
        connection.exec_driver_sql("ROLLBACK TO a")
        finish(session)


def savepoint_is_released(engine, order, *, finish):
    with Session(engine) as session:
        connection = begun(session)
        connection.exec_driver_sql("SAVEPOINT a")
        order(session)
        connection.exec_driver_sql("RELEASE a")
        finish(session)


def joined(mode, *, closed):
    def way(engine, order, *, finish):
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("SELECT 1"))
            with Session(connection, join_transaction_mode=mode) as session:
                begun(session)
                order(session)
                if closed:
                    finish(session)
                connection.commit()
                if not closed:
                    finish(session)
                    connection.rollback()

    way.__name__ = f"joined by {mode}, {closed=}"
    return way


def autocommit(engine, order, *, finish):
    engine = engine.execution_options(isolation_level="AUTOCOMMIT")
    with Session(engine) as session:
        begun(session)
        order(session)
        finish(session)


MODES = ("conditional_savepoint", "rollback_only", "control_fully", "create_savepoint")
WAYS = (
    in_sql("COMMIT"),
    in_sql("ROLLBACK"),
    connection_commits,
    connection_rolls_back,
    savepoint_is_rolled_back,
    savepoint_is_released,
    autocommit,
    *itertools.starmap(
        lambda mode, closed: joined(mode, closed=closed), itertools.product(MODES, (True, False))
    ),
)


# -- what the session does at its end --------------------------------------------------------------


def flush_and_commit(session):
    session.flush()
    session.commit()


def expunge_and_rollback(session):
    session.expunge_all()
    session.rollback()


FINISHES = (Session.close, Session.rollback, Session.commit, flush_and_commit, expunge_and_rollback)


def wrong(work, rows, events, losses):
    """Whether the event of an order does not fit its rows."""
    if rows == set(WORKS[work]):
        return losses if events == 1 else (events, losses) != (0, 1) or work is add
    if rows:
        return (events, losses) != (0, 1)
    return events or losses > (work is not add)


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")  # of a session that is broken
@pytest.mark.parametrize("driver", proof.DRIVERS)
def test_the_event_waits_for_the_flush_of_its_objects(driver, tmp_path, full):
    database, asynchronous = proof.DRIVERS[driver]
    url = proof.created(tmp_path, database)
    losses = {}
    sidelight.flush(60)  # takes what other tests have lost
    every = itertools.product(business.JOINS, WAYS, WORKS, FINISHES)
    with running(url, driver, asynchronous) as run:
        for join, way, work, finish in each_nth(every, 13, driver, proof.DRIVERS, full=full):
            before = lost()
            case = f"{join}, {way.__name__}, {work.__name__}, {finish.__name__}"
            function = emits("ordered", n=arg.name, **{join: arg.session})(work)

            def order(session, function=function, case=case):
                function(session, f"{case}|")

            def call(engine, way=way, order=order, finish=finish):
                with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError):
                    way(engine, order, finish=finish)

            run(call)
            losses[work, case] = lost() - before
    sidelight.flush(60)
    with sidelight.Store(f"sqlite:///{tmp_path / 'events.db'}") as store:
        stored = [event.attributes["n"] for event in store.events()]
    committed = business.committed(url)
    assert stored
    assert [
        (case, rows, events, number)
        for (work, case), number in losses.items()
        for rows in [{name[-1] for name in committed if name.startswith(f"{case}|")}]
        for events in [stored.count(f"{case}|")]
        if wrong(work, rows, events, number)
    ] == []
