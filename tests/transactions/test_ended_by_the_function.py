"""The function ends its transaction itself: in SQL, by a method, or by closing what it was given.

There is an event if all rows of the call are committed. There is none if no row is. What cannot be
known is counted, once.
"""

import contextlib
import itertools
import time

import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only
from tests.support import business
from tests.support.drivers import running
from tests.support.pairs import each_nth
from tests.support.proving import MODES, lost
from tests.transactions import test_proof as proof
from tests.transactions.test_past_the_session import (
    add,
    insert_and_add,
    select_and_add,
)

import sidelight
from sidelight import arg, emits
from sidelight.exceptions import TransactionError

pytestmark = pytest.mark.usefixtures("restored")

# -- what the function does: each row has the name of the call, and one letter ---------------------


def insert(target, name):
    target.execute(sqlalchemy.insert(business.Order).values(name=f"{name}i"))


def add_and_flush(session, name):
    add(session, name)
    session.flush()


def insert_and_fail(target, name):
    insert(target, name)
    with contextlib.suppress(sqlalchemy.exc.DBAPIError):  # PostgreSQL answers COMMIT by ROLLBACK
        connection_of(target).exec_driver_sql("SELECT * FROM nowhere")


def add_again(session, name):
    session.add(business.Order(name=f"{name}x"))
    session.flush()
    session.rollback()
    add(session, name)


def skip(session, name):
    # PostgreSQL has no savepoints in autocommit mode.
    with contextlib.suppress(ValueError, sqlalchemy.exc.DBAPIError), session.begin_nested():
        session.add(business.Order(name=f"{name}x"))
        raise ValueError


def fail_to_flush(session, name):
    with contextlib.suppress(sqlalchemy.exc.DBAPIError), session.begin_nested():
        session.add(business.Order(name=None))


def skip_and_add(session, name):
    skip(session, name)
    add(session, name)


def insert_by_another(target, name):
    """After a ROLLBACK in SQL psycopg2 and asyncpg begin no transaction, so that the row stays."""
    connection_of(target).exec_driver_sql("ROLLBACK")
    other = Session(connection_of(target), join_transaction_mode="rollback_only")
    other.add(business.Order(name=f"{name}o"))
    other.flush()
    other.rollback()


WORKS = {
    insert: "i",
    add: "a",
    select_and_add: "a",
    insert_and_add: "ia",
    add_and_flush: "a",
    insert_and_fail: "i",
    add_again: "a",
    skip: "x",  # never committed
    fail_to_flush: "x",
    skip_and_add: "a",
    insert_by_another: "o",
}
OF_CONNECTIONS = (insert, insert_and_fail, insert_by_another)


# -- how it ends what it has begun -----------------------------------------------------------------


def connection_of(target):
    return target.connection() if isinstance(target, Session) else target


def in_sql(text):
    def end(target):
        connection_of(target).exec_driver_sql(text)

    end.__name__ = text
    return end


def commit(target):
    target.commit()


def rollback(target):
    target.rollback()


def close(target):
    target.close()


def connection_commit(target):
    connection_of(target).commit()


def connection_rollback(target):
    connection_of(target).rollback()


def begin(target):
    target.begin()


def expunge_all(target):
    if isinstance(target, Session):
        target.expunge_all()


def nothing(_target):
    """Leave the transaction to the caller."""


def savepoint_undone(target):
    with target.begin_nested() as savepoint:
        savepoint.rollback()


def another_reads(target):
    with Session(connection_of(target), join_transaction_mode="create_savepoint") as other:
        other.execute(sqlalchemy.text("SELECT 1"))


METHODS = (commit, rollback, close)
SAMPLED = 613
ENDS = [
    (in_sql("COMMIT"),),
    (in_sql("COMMIT"), rollback),
    (in_sql("COMMIT"), close),
    (in_sql("ROLLBACK"),),
    (in_sql("ROLLBACK"), commit),
    (in_sql("ROLLBACK"), rollback),
    (in_sql("ROLLBACK"), close),
    (connection_commit,),
    (connection_rollback,),
    (commit,),
    (commit, close),
    (rollback,),
    (rollback, close),
    (close,),
    (rollback, begin),
    (close, begin),
    (expunge_all,),
    (nothing,),
    (in_sql("BEGIN"),),
    (savepoint_undone,),
    (another_reads,),
]
ISOLATIONS = (None, "AUTOCOMMIT", "AUTOCOMMIT and BEGIN")
#: How a session is on a connection that it was given.
JOINS = ("conditional_savepoint", "rollback_only", "control_fully", "create_savepoint")
CASES = [
    case
    for case in itertools.product(
        MODES,
        ("session", "connection", *JOINS),
        ISOLATIONS,
        (True, False),  # whether the caller has begun, and whether it commits the given connection
        WORKS,
        ENDS,
        METHODS,
    )
    if case[1] != "connection" or case[4] in OF_CONNECTIONS
    # Without its savepoint a session is broken. It cannot begin in autocommit mode.
    if case[1] != "create_savepoint"
    or (case[2] != "AUTOCOMMIT" and case[4] is not insert_by_another and case[5][0] in METHODS)
]


@contextlib.contextmanager
def opened(engine, case, asynchronous):
    """What the function is given, and its synchronous twin; asynchronous where the driver is."""
    _, kind, isolation, is_begun, *_ = case
    below = engine if kind == "session" else engine.connect()
    given = target = below
    if asynchronous and kind == "session":
        given = AsyncEngine(below)
    elif asynchronous:
        given = AsyncConnection(AsyncEngine(engine), below)
    if kind in JOINS and isolation == "AUTOCOMMIT and BEGIN":
        below.exec_driver_sql("BEGIN")
    elif kind in JOINS and is_begun:
        below.execute(sqlalchemy.text("SELECT 1"))
    if kind != "connection":
        options = {"join_transaction_mode": kind} if kind in JOINS else {}
        given = (AsyncSession if asynchronous else Session)(given, **options)
        target = given.sync_session if asynchronous else given
    try:
        yield given, target
        if kind in JOINS and is_begun:
            target.close()
            below.commit()
    finally:
        target.close()
        if kind != "session":
            below.close()


def perform(engine, case, name, *, asynchronous):
    mode, kind, isolation, is_begun, work, ends, finish = case

    def body(target, name):
        work(target, name)
        for end in ends:
            with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError):  # nothing is open
                end(target)

    async def body_awaited(target, name):
        await target.run_sync(body, name)

    order = emits("ordered", n=arg.name, **MODES[mode])(body_awaited if asynchronous else body)
    if isolation:
        engine = engine.execution_options(isolation_level="AUTOCOMMIT")
    with opened(engine, case, asynchronous) as (given, target):
        if is_begun:
            target.execute(sqlalchemy.text("SELECT 1"))
        if isolation == "AUTOCOMMIT and BEGIN" and kind not in JOINS:
            connection_of(target).exec_driver_sql("BEGIN")
        if asynchronous:
            await_only(order(given, name))
        else:
            order(given, name)
        with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError):  # the connection has ended
            finish(target)


def wrong(case, driver, rows, events, losses):
    """Whether the event of a call does not fit its rows."""
    mode, kind, isolation, _, work, ends, finish = case
    names = [end.__name__ for end in ends]
    is_past_the_session = kind != "connection" and (
        names[0] in {"COMMIT", "connection_commit"}
        or isolation
        or work is insert_by_another
        or (kind in JOINS and "close" in {*names, finish.__name__})
    )
    may_count = driver == "asyncpg" or is_past_the_session or (isolation and names[0] != "COMMIT")
    may_count = may_count or mode == "strict"  # the caller is told
    if rows >= set(WORKS[work]):
        return (events, losses) != (1, 0) and not (may_count and (events, losses) == (0, 1))
    if rows:  # what is committed beside the work that the function undoes counts as the work
        undoes = names[0] == "expunge_all" or "rollback" in names[0].lower()
        return (events, losses) != (0, 1) and not undoes
    # By the methods of some drivers, where SQL has begun the transaction.
    is_left_open = isolation and (isolation != "AUTOCOMMIT" or names[0] == "BEGIN")
    return events or losses > bool(is_left_open or (work is not add and may_count))


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")
@pytest.mark.parametrize("driver", proof.DRIVERS)
def test_a_function_that_ends_its_transaction_has_its_event_or_counts_it(driver, tmp_path, full):
    database, asynchronous = proof.DRIVERS[driver]
    url = proof.created(tmp_path, database)
    cases = each_nth(CASES, SAMPLED, driver, proof.DRIVERS, full=full)
    losses, told = {}, set()
    sidelight.flush(60)  # takes what other tests have lost
    with running(url, driver, asynchronous) as run:
        for number, case in enumerate(cases):
            if database == "sqlite" and case[2] == "AUTOCOMMIT and BEGIN":
                continue  # the engine has begun already
            before = lost()

            def call(engine, number=number, case=case):
                try:
                    perform(engine, case, f"{number}|", asynchronous=bool(asynchronous))
                except TransactionError:
                    told.add(number)

            run(call)
            losses[number] = lost() - before + (number in told)
    sidelight.flush(60)
    with sidelight.Store(f"sqlite:///{tmp_path / 'events.db'}") as store:
        stored = [event.attributes["n"] for event in store.events()]
    committed = business.committed(url)
    assert stored
    assert [
        (cases[number], rows, events, lost)
        for number, lost in losses.items()
        for rows in [{name[-1] for name in committed if name.startswith(f"{number}|")}]
        for events in [stored.count(f"{number}|")]
        if wrong(cases[number], driver, rows, events, lost)
    ] == []


@pytest.mark.parametrize("finish", ["commit", "rollback"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("driver", [name for name in proof.DRIVERS if not proof.DRIVERS[name][1]])
def test_a_flush_in_a_transaction_does_not_complete_what_has_committed_by_itself(
    driver, mode, finish, tmp_path
):
    url = proof.created(tmp_path, proof.DRIVERS[driver][0])

    @emits("ordered", n=arg.name, **MODES[mode])
    def order(target, name):
        insert_and_add(target, name)

    before = lost()
    with running(url, driver, None, explicitly=False) as run:

        def call(engine):
            with Session(engine.execution_options(isolation_level="AUTOCOMMIT")) as session:
                order(session, "1|")
                session.connection().exec_driver_sql("BEGIN")
                session.flush()
                session.connection().exec_driver_sql(finish)

        run(call)
    rows = {"1|i", "1|a"} if finish == "commit" else {"1|i"}
    assert business.committed(url) == rows
    assert lost() - before == 1
    sidelight.flush(60)
    with sidelight.Store(f"sqlite:///{tmp_path / 'events.db'}") as store:
        assert [*store.events()] == []


@pytest.mark.parametrize("database", business.DATABASES)
def test_a_transaction_may_end_between_two_items_of_a_generator(database, tmp_path):
    url = proof.created(tmp_path, database)
    expected, losses = {}, lost()
    with running(url, "psycopg", None) as run:
        for case in itertools.product(
            MODES, ("session", "connection"), (commit, rollback), (True, False), (commit, rollback)
        ):
            mode, kind, between, is_last, finish = case
            name = f"{mode}, {kind}, {between.__name__}, {is_last=}, {finish.__name__}"
            expected[name] = between is commit or (is_last and finish is commit)

            @emits("ordered", n=arg.name, **MODES[mode])
            def order(target, name, is_last=is_last):
                insert(target, f"{name}|1")
                yield 1
                if is_last:
                    insert(target, f"{name}|2")
                yield 2

            def call(engine, order=order, case=case, name=name):
                _, kind, between, _, finish = case
                with Session(engine) if kind == "session" else engine.connect() as target:
                    for item in order(target, name):
                        if item == 1:
                            between(target)
                    finish(target)

            run(call)
    assert sidelight.flush(60)
    with sidelight.Store(f"sqlite:///{tmp_path / 'events.db'}") as store:
        stored = [event.attributes["n"] for event in store.events()]
    assert {name: stored.count(name) for name in expected} == expected
    assert {name.partition("|")[0] for name in business.committed(url)} == {
        name for name, is_there in expected.items() if is_there
    }
    assert lost() == losses


def execute_and_roll_back(target):
    insert(target, f"{time.perf_counter_ns()}|other")
    target.rollback()


@pytest.mark.parametrize("driver", ["sqlite3", "aiosqlite"])
def test_the_release_of_a_savepoint_may_commit_in_sqlite(driver, tmp_path):
    """By default sqlite3 begins no transaction before a savepoint, so that its end commits."""
    url = proof.created(tmp_path, "sqlite")
    seen, before = {}, lost()
    with running(url, driver, proof.DRIVERS[driver][1], explicitly=False) as run:
        for case in itertools.product(
            MODES,
            ("session", "connection"),
            (insert, add),
            (False, True),  # whether the caller has written, so that a transaction is open
            (1, 2),  # calls
            (commit, rollback, close, execute_and_roll_back),
        ):
            mode, kind, work, *_ = case
            if work is add and kind == "connection":
                continue

            def body(target, name, work=work):
                with target.begin_nested():
                    work(target, name)

            order = emits("ordered", n=arg.name, **MODES[mode])(body)

            def call(engine, order=order, case=case):
                _, kind, _, has_written, calls, finish = case
                with Session(engine) if kind == "session" else engine.connect() as target:
                    if has_written:
                        insert(target, f"{len(seen)} before|")
                    for _ in range(calls):
                        name = f"{len(seen)}|"
                        try:
                            order(target, name)
                            is_told = False
                        except TransactionError:
                            is_told = True
                        seen[name] = case, is_told
                    finish(target)

            run(call)
    assert sidelight.flush(60)
    with sidelight.Store(f"sqlite:///{tmp_path / 'events.db'}") as store:
        stored = [event.attributes["n"] for event in store.events()]
    committed = {name.partition("|")[0] for name in business.committed(url)}
    assert [
        (case, name, stored.count(name), is_told)
        for name, (case, is_told) in seen.items()
        if stored.count(name) + is_told != (name.rstrip("|") in committed)
    ] == []
    assert lost() == before
