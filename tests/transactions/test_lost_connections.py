"""The connection of a transaction is lost before a call, or during it: SQLAlchemy on each driver.

The work of the transaction is undone. So there is no event, and nothing is counted. The caller sees
the errors that there are without sidelight. In autocommit mode the work before the loss stays.
"""

import itertools

import psycopg
import pytest
import sqlalchemy
from sqlalchemy.orm import Session
from tests.support import business, proving
from tests.support.drivers import running
from tests.support.pairs import each_nth
from tests.support.proving import lost, told
from tests.transactions import test_proof as proof

import sidelight
from sidelight import arg, emits
from sidelight.emission import EMITTER
from sidelight.exceptions import TransactionError

pytestmark = pytest.mark.usefixtures("restored")

# -- ways to lose a connection ---------------------------------------------------------------------


def connection_of(target):
    return target.connection() if isinstance(target, Session) else target


def invalidated(target):
    connection_of(target).invalidate()


def killed(target):
    """End the server's process; SQLAlchemy learns of it by the error of the next statement."""
    connection = connection_of(target)
    if connection.dialect.name != "postgresql":
        invalidated(target)
        return
    (process,) = connection.exec_driver_sql("SELECT pg_backend_pid()").one()
    url = connection.engine.url.set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s)", (process,))
    with pytest.raises(sqlalchemy.exc.DBAPIError):
        for _ in range(1000):
            connection.exec_driver_sql("SELECT pg_sleep(0.01)")


def closed(target):
    target.close()


def nothing(_):
    pass


LOSSES = (invalidated, killed, closed)


# -- what the function does; it takes a way to lose the connection ---------------------------------


def only_lose(target, name, lose):
    lose(target)


def insert(target, name, lose):
    target.execute(sqlalchemy.insert(business.Order).values(name=name))
    lose(target)


def lose_and_insert(target, name, lose):
    lose(target)
    target.execute(sqlalchemy.insert(business.Order).values(name=name))


def add(target, name, lose):
    if isinstance(target, Session):
        target.add(business.Order(name=name))
    lose(target)


WORKS = (only_lose, insert, lose_and_insert, add)
MODES = {"bare": None, **proving.MODES}
ENDS = (
    ("commit",),
    ("rollback",),
    ("rollback", "order", "commit"),
    ("commit", "rollback", "order"),
)
ISOLATIONS = (None, "AUTOCOMMIT")
CASES = [
    *itertools.product(
        (Session, sqlalchemy.Connection), ISOLATIONS, LOSSES, (True, False), WORKS, ENDS
    )
]


def traced(engine, function, name, case):
    """Perform a case; return the errors that the caller has seen."""
    kind, isolation, lose, is_before, _, ends = case
    if isolation:
        engine = engine.execution_options(isolation_level=isolation)
    trace = []

    def step(call, *arguments):
        try:
            call(*arguments)
        except (sqlalchemy.exc.SQLAlchemyError, TransactionError) as error:
            trace.append((call.__name__, type(error)))
        else:
            trace.append((call.__name__, None))

    with Session(engine) if kind is Session else engine.connect() as target:
        target.execute(sqlalchemy.text("SELECT 1"))
        if is_before:
            lose(target)
        step(function, target, name, nothing if is_before else lose)
        trace.append(("is in a transaction", target.in_transaction()))
        if kind is not Session:
            trace.append(("is invalidated", target.invalidated))
        for number, end in enumerate(ends):
            if end == "order":
                step(function, target, f"{name}{number}", nothing)
            else:
                step(getattr(target, end))
    return trace


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")  # of a session that is broken
@pytest.mark.parametrize("driver", proof.DRIVERS)
def test_the_work_of_a_lost_connection_has_no_event(driver, tmp_path, full):
    database, asynchronous = proof.DRIVERS[driver]
    url = proof.created(tmp_path, database)
    losses, changed, writing = {}, [], set()
    sidelight.flush(60)  # takes what other tests have lost
    cases = [case for case in CASES if (case[0], case[2]) != (Session, closed)]
    with running(url, driver, asynchronous) as run:
        for case in each_nth(cases, 17, driver, proof.DRIVERS, full=full):
            name = ", ".join(getattr(each, "__name__", str(each)) for each in case)
            traces = {}
            for mode, join in MODES.items():
                function = emits("ordered", n=arg.name, **join)(case[4]) if join else case[4]
                before = lost()

                def call(engine, mode=mode, function=function, case=case, name=name):
                    traces[mode] = traced(engine, function, f"{mode}, {name}|", case)  # noqa: B023

                run(call)
                losses[f"{mode}, {name}"] = lost() - before
                if case[4] in {insert, lose_and_insert} or (case[0], case[4]) == (Session, add):
                    writing.add(f"{mode}, {name}")
            changed += [
                (mode, name, traces[mode], traces["bare"])
                for mode in ("transaction", "after_commit")
                if traces[mode] != traces["bare"]
            ]
    assert changed == []
    assert "not recorded" not in EMITTER.losses
    assert [case for case, number in losses.items() if number and "AUTOCOMMIT" not in case] == []
    sidelight.flush(60)
    with sidelight.Store(f"sqlite:///{tmp_path / 'events.db'}") as store:
        stored = [event.attributes["n"] for event in store.events()]
    assert len(set(stored)) == len(stored) > 0
    names = {name for name in business.committed(url) if not name.startswith("bare")}
    phantoms, missing = told(names, set(stored), losses)
    assert [case for case in missing if not case.startswith("strict")] == []
    assert [name for name in phantoms if name.partition("|")[0] in writing] == []


def commit_past_sqlalchemy(target):
    connection_of(target).connection.commit()


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")
@pytest.mark.parametrize("driver", proof.DRIVERS)
def test_the_caller_invalidates_the_connection(driver, tmp_path):
    """A transaction that was open is undone. One that the driver has ended before is counted."""
    database, asynchronous = proof.DRIVERS[driver]
    url = proof.created(tmp_path, database)
    sidelight.flush(60)  # takes what other tests have lost
    expected, seen = {}, {}
    with running(url, driver, asynchronous) as run:
        for case in itertools.product(
            ("after_commit", "not joined"),
            (Session, sqlalchemy.Connection),
            (nothing, commit_past_sqlalchemy),
            ("commit", "rollback", "close"),
        ):
            join, _, before, _ = case
            name = ", ".join(getattr(each, "__name__", each) for each in case)
            mode = "after_commit" if join == "after_commit" else "transaction"
            order = emits("ordered", n=arg.name, **MODES[mode])(insert)
            losses = lost()

            def call(engine, order=order, name=name, case=case):
                join, kind, before, end = case
                with Session(engine) if kind is Session else engine.connect() as target:
                    if join == "not joined":
                        target.execute(sqlalchemy.text("SELECT 1"))
                    with pytest.MonkeyPatch.context() as patched:
                        if join == "not joined":
                            refused = "sidelight.transactions.sqlalchemy.connections.bounded"
                            patched.setattr(refused, None)
                        order(target, f"{name}|", nothing)
                    before(target)
                    invalidated(target)
                    try:
                        getattr(target, end)()
                    except sqlalchemy.exc.PendingRollbackError:
                        target.rollback()

            run(call)
            seen[name] = lost() - losses
            expected[name] = int(before is commit_past_sqlalchemy)
    assert seen == expected
    assert set(EMITTER.losses) <= {"commit without an answer"}
    assert {name.rstrip("|") for name in business.committed(url)} == {
        name for name, is_counted in expected.items() if is_counted
    }
    sidelight.flush(60)
    with sidelight.Store(f"sqlite:///{tmp_path / 'events.db'}") as store:
        assert [event.attributes["n"] for event in store.events()] == []
