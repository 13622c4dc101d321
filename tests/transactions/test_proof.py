"""A commit is believed on proof only: each way to end a transaction, on each setting and driver.

Every way orders something under its own name and ends the transaction. Afterwards there are events
for those orders that another connection finds in the database, and for no others.
"""

import asyncio
import contextlib
import gc
import subprocess
import sys
import weakref

import psycopg
import pytest
import sqlalchemy
from django.db import DatabaseError as django_errors
from django.db import connections
from psycopg import sql
from psycopg.rows import dict_row, scalar_row
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from tests.support import business
from tests.support.commands import wait_for
from tests.support.drivers import DRIVERS
from tests.support.pairs import each_pair
from tests.support.proving import DJANGO_ON_PSYCOPG2
from tests.support.telemetry import restore

import sidelight
from sidelight import arg, emits
from sidelight.emission import EMITTER

pytestmark = pytest.mark.usefixtures("restored")

INSERT = sql.SQL("INSERT INTO orders (name) VALUES ({})")
DEFERRED = "INSERT INTO invoices VALUES ('nobody')"  # fails at the commit


class Driven:
    """A psycopg connection, whose asynchronous calls are run to their end.

    Calls are passed on; `order` inserts an order with an event of each kind.
    """

    def __init__(self, target, run):
        self.target = target
        self._run = run

    def __getattr__(self, name):
        found = getattr(self.target, name)
        return lambda *args, **named: self._run(found(*args, **named))

    def order(self, name):
        insert = _insert_awaited if isinstance(self.target, psycopg.AsyncConnection) else _insert
        self._run(JOINED[insert](self.target, f"{name}|joined"))
        self._run(AFTER[insert](self.target, f"{name}|after"))

    def block(self, method, **options):
        """A ``with`` statement over what a method of the connection gives."""
        return business.entered(getattr(self.target, method)(**options), self._run)


def _insert(target, name):
    target.execute(INSERT.format(name))


async def _insert_awaited(target, name):
    await target.execute(INSERT.format(name))


def _decorated(type_, join):
    functions = (_insert, _insert_awaited)
    return {each: emits(type_, n=arg.name, **{join: arg.target})(each) for each in functions}


JOINED = _decorated("joined", "transaction")
AFTER = _decorated("after", "after_commit")

WAYS = {}


def way(function):
    """Register a way to end a transaction: a function of a connection and a name."""
    WAYS[function.__name__] = function
    return function


def in_sql(*texts):
    """Register ways that order, and then execute texts."""
    for text in texts:

        def execute(c, name, text=text):
            c.order(name)
            for part in text.split(" | "):
                c.execute(part)

        WAYS[text] = execute


in_sql(
    "COMMIT",
    "commit;",
    " End ;",
    "END TRANSACTION",
    "COMMIT WORK",
    "COMMIT AND NO CHAIN",
    "ROLLBACK",
    "abort",
    "ROLLBACK WORK",
    "rollback transaction;",
    "/* why */ ROLLBACK",
    "/* a /* COMMIT; */ */ ROLLBACK",
    "-- COMMIT\nROLLBACK",
    "/* why */ COMMIT",
    "COMMIT AND CHAIN | SELECT 1 | ROLLBACK",
    "ROLLBACK AND CHAIN | SELECT 1 | COMMIT",
    "COMMIT AND CHAIN | SELECT 1 | COMMIT",
    "SELECT 1; ROLLBACK",
    "SELECT 1; COMMIT",
    "SELECT 'COMMIT; ROLLBACK'; ROLLBACK",
    "SELECT $$;COMMIT;$$; ROLLBACK",
    "SELECT E'\\'; COMMIT; --'; ROLLBACK",
    "COMMIT; BEGIN; SELECT 1; ROLLBACK",
    "ROLLBACK; BEGIN; SELECT 1; COMMIT",
    "SAVEPOINT a | ROLLBACK TO a | COMMIT",
    "SAVEPOINT a; ROLLBACK TO a; COMMIT",
    "SAVEPOINT a; RELEASE a; ROLLBACK",
    "COMMIT | SELECT 1 | ROLLBACK",
    "ROLLBACK | SELECT 1 | COMMIT",
    "DO $$ BEGIN PERFORM 1; END $$; COMMIT",
)


@way
def commit(c, name):
    c.order(name)
    c.commit()


@way
def rollback(c, name):
    c.order(name)
    c.rollback()


@way
def rollback_then_commit(c, name):
    c.order(name)
    c.rollback()
    c.order(f"{name}|again")
    c.commit()


@way
def left_open(c, name):
    c.order(name)


@way
def composed(c, name):
    c.order(name)
    c.execute(sql.SQL("{}").format(sql.SQL("rollback")))


@way
def in_bytes(c, name):
    c.order(name)
    c.execute(b"rollback")


@way
def prepared(c, name):
    c.order(name)
    c.execute("ROLLBACK", prepare=True)


@way
def in_binary(c, name):
    c.order(name)
    c.execute("COMMIT", binary=True)


@way
def savepoints_of_any_case(c, name):
    c.execute("SAVEPOINT Mine" if c.info_open() else "SELECT 1")
    c.execute("SAVEPOINT Mine")
    c.order(name)
    c.execute("/* back */ ROLLBACK WORK TO SAVEPOINT mine")
    c.order(f"{name}|again")
    c.execute('ROLLBACK TO "mine"; RELEASE MINE')
    c.order(f"{name}|kept")
    c.execute("COMMIT")


@way
def savepoint_of_the_same_name(c, name):
    c.execute("SELECT 1")
    c.execute("SAVEPOINT sidelight")
    c.order(name)
    c.execute("ROLLBACK TO sidelight")
    c.order(f"{name}|kept")
    c.execute("COMMIT")


@way
def failed_then_commit(c, name):
    c.order(name)
    with contextlib.suppress(psycopg.Error):
        c.execute("SELECT * FROM nowhere")
    c.commit()


@way
def failed_then_commit_in_sql(c, name):
    c.order(name)
    with contextlib.suppress(psycopg.Error):
        c.execute("SELECT * FROM nowhere")
    c.execute("COMMIT")


@way
def failed_then_ordered(c, name):
    c.execute("SELECT 1")
    c.execute("SAVEPOINT a")
    with contextlib.suppress(psycopg.Error):
        c.execute("SELECT * FROM nowhere")
    with contextlib.suppress(psycopg.Error):
        c.order(name)
    c.execute("ROLLBACK TO a")
    c.order(f"{name}|kept")
    c.execute("COMMIT")


@way
def failed_at_the_commit(c, name):
    c.order(name)
    c.execute(DEFERRED)
    with contextlib.suppress(psycopg.Error):
        c.commit()


@way
def failed_at_the_commit_in_sql(c, name):
    c.order(name)
    c.execute(DEFERRED)
    with contextlib.suppress(psycopg.Error):
        c.execute("COMMIT")


@way
def failed_in_several(c, name):
    c.order(name)
    with contextlib.suppress(psycopg.Error):
        c.execute("ROLLBACK; SELECT * FROM nowhere")


@way
def block(c, name):
    with c.block("transaction"):
        c.order(name)


@way
def block_left_by_rollback(c, name):
    with c.block("transaction"):
        c.order(name)
        raise psycopg.Rollback


@way
def block_left_by_an_error(c, name):
    with contextlib.suppress(KeyError), c.block("transaction"):
        c.order(name)
        raise KeyError


@way
def block_of_rollback(c, name):
    with c.block("transaction", force_rollback=True):
        c.order(name)


@way
def nested_blocks(c, name):
    with c.block("transaction"):
        with c.block("transaction"):
            c.order(f"{name}|kept")
        with contextlib.suppress(KeyError), c.block("transaction"):
            c.order(name)
            raise KeyError
        with c.block("transaction"):
            c.order(f"{name}|left")
            raise psycopg.Rollback
    if c.info_open():
        c.commit()


@way
def in_a_pipeline(c, name):
    c.execute("SELECT 1")
    with c.block("pipeline"):
        c.order(name)
        c.execute("COMMIT")


@way
def pipeline_rolled_back(c, name):
    c.order(name)
    with c.block("pipeline"):
        c.execute("SELECT 1")
        c.rollback()


@way
def pipeline_committed(c, name):
    c.order(name)
    with c.block("pipeline"):
        c.execute("SELECT 1")
        c.commit()


@way
def pipeline_of_two(c, name):
    c.execute("SELECT 1")
    with c.block("pipeline"):
        c.order(f"{name}|first")
        c.execute("COMMIT")
        c.execute("BEGIN")
        c.order(f"{name}|second")
        c.execute("ROLLBACK")


@way
def pipeline_that_fails(c, name):
    c.order(name)
    with contextlib.suppress(psycopg.Error), c.block("pipeline"):
        c.execute("SELECT * FROM nowhere")
        c.execute("COMMIT")
    c.rollback()


SETTINGS = {
    "defaults": {},
    "never prepared": {"prepare_threshold": None},
    "always prepared": {"prepare_threshold": 0},
    "rows and cursors": {"row_factory": dict_row, "cursor_factory": "ClientCursor"},
    "raw cursors": {"row_factory": scalar_row, "cursor_factory": "RawCursor"},
    "serializable": {"isolation_level": psycopg.IsolationLevel.SERIALIZABLE},
    "autocommit": {"autocommit": True},
    "after prepared statements": {"warm": 8},
}


def fill(url):
    """Make the tables, and one of invoices that is checked at the commit."""
    business.create_tables(url)
    engine = business.engine_on(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE invoices (name text REFERENCES orders (name)"
            " DEFERRABLE INITIALLY DEFERRED)"
        )
    engine.dispose()


def created(tmp_path, database):
    """The URL of a database with these tables."""
    url = business.shop(database, tmp_path, fill)
    sidelight.configure(
        f"sqlite:///{tmp_path / 'events.db'}", outboxes=[url], otlp=False, deadline=1.0
    )
    return url


def check_events(url, tmp_path):
    """There are events of what was committed, and of nothing else."""
    assert sidelight.flush(20)
    with sidelight.Store(f"sqlite:///{tmp_path / 'events.db'}") as store:
        found = sorted(event.attributes["n"] for event in store.events())
    assert found == sorted(business.committed(url))
    assert found, "something was committed"
    return {reason for reason in EMITTER.losses if "not joined" not in reason}


@contextlib.contextmanager
def driven(url, asynchronous, *, warm=0, isolation_level=None, autocommit=False, **options):
    """A connection that is set so; in autocommit mode a transaction is begun by hand."""
    if factory := options.pop("cursor_factory", None):
        options["cursor_factory"] = getattr(psycopg, f"Async{factory}" * asynchronous or factory)
    with asyncio.Runner() as runner:
        run = (lambda value: runner.run(_settled(value))) if asynchronous else lambda value: value
        kind = psycopg.AsyncConnection if asynchronous else psycopg.Connection
        connection = Driven(run(kind.connect(url, **options)), run)
        target = connection.target
        if isolation_level is not None:
            setter = getattr(target, "set_isolation_level", None)
            run(setter(isolation_level)) if asynchronous else setattr(
                target, "isolation_level", isolation_level
            )
        connection.info_open = lambda: target.info.transaction_status != 0
        for _ in range(warm):
            connection.execute("SELECT 1")
        if warm:
            connection.commit()
        if autocommit:
            run(target.set_autocommit(True)) if asynchronous else setattr(
                target, "autocommit", True
            )
            connection.execute("BEGIN")
        try:
            yield connection
        finally:
            connection.close()


async def _settled(value):
    return await value if hasattr(value, "__await__") else value


@pytest.mark.parametrize("setting", SETTINGS)
def test_psycopg_tells_how_its_transactions_end(setting, tmp_path, full):
    url = created(tmp_path, "postgresql")
    for given, name, is_async in each_pair(SETTINGS, WAYS, [False, True], full=full):
        if given != setting:
            continue
        with (
            driven(url, is_async, **SETTINGS[setting]) as connection,
            # Several statements cannot be prepared; client-side cursors refuse binary results.
            contextlib.suppress(psycopg.errors.SyntaxError, psycopg.NotSupportedError),
        ):
            WAYS[name](connection, f"{name}, {is_async=}")
    assert check_events(url, tmp_path) == set()


# -- SQLAlchemy --------------------------------------------------------------------------------

FAILS = "INSERT INTO orders (id, name) VALUES (1, 'first'), (1, 'again')"
UNDOES_ALL = "INSERT OR ROLLBACK INTO orders (id, name) VALUES (1, 'first'), (1, 'again')"
SQLITE_STEPS = [["order", UNDOES_ALL, "commit"], ["order", UNDOES_ALL, "order", "commit"]]
#: Steps: "order" orders; "(" and ")" are the ends of a savepoint that is rolled back, "]" is the
#: end of one that is released; methods are called, and all else is executed. Errors are swallowed.
STEPS = [
    ["order", "commit"],
    ["order", "rollback"],
    ["order"],
    ["order", "rollback", "order", "commit"],
    ["order", "commit", "order", "rollback"],
    ["order", "(", "order", ")", "order", "commit"],
    ["order", "(", "order", "(", "order", "]", ")", "commit"],
    ["order", "(", "order", "]", "commit"],
    ["order", "(", "order", "]", "rollback"],
    ["order", "SAVEPOINT a", "order", "ROLLBACK TO a", "order", "commit"],
    ["order", "SAVEPOINT a", "order", "RELEASE a", "commit"],
    ["order", "ROLLBACK", "order", "commit"],
    ["order", "/* why */ ROLLBACK", "commit"],
    ["order", FAILS, "commit"],
    ["order", FAILS, "rollback", "order", "commit"],
    ["order", "(", "order", FAILS, ")", "commit"],
    ["order", DEFERRED, "commit", "rollback"],
    ["order", DEFERRED, "commit", "rollback", "order", "commit"],
    *SQLITE_STEPS,
]


def _insert_in_sqlalchemy(target, name):
    return target.execute(sqlalchemy.insert(business.Order).values(name=name))


async def _insert_in_sqlalchemy_awaited(target, name):
    await _insert_in_sqlalchemy(target, name)


def _add(target, name):
    target.add(business.Order(name=name))


async def _add_awaited(target, name):
    _add(target, name)


ORDERS = {
    "connection": (_insert_in_sqlalchemy, _insert_in_sqlalchemy_awaited),
    "session": (_insert_in_sqlalchemy, _insert_in_sqlalchemy_awaited),
    "pending session": (_add, _add_awaited),
}


class Stepping:
    """Performs steps on a connection or session of SQLAlchemy."""

    def __init__(self, unit, functions, name):
        self._unit = unit
        insert = functions[hasattr(unit.target, "__aenter__")]
        self._orders = [
            (join, emits("ordered", n=arg.name, **{join: arg.target})(insert))
            for join in business.JOINS
        ]
        self._name = name
        self._savepoints = []

    def step(self, step):
        unit = self._unit
        if step == "order":
            self._name += "."
            for join, order in self._orders:
                unit.run(order(unit.target, f"{self._name} {join}"))
        elif step == "(":
            self._savepoints.append(unit.savepoint())
            self._savepoints[-1].__enter__()
        elif step == "]":
            self._savepoints.pop().__exit__(None, None, None)
        elif step == ")":
            self._savepoints.pop().__exit__(KeyError, KeyError(), None)
        elif step in {"commit", "rollback", "close"}:
            getattr(unit, step)()
        else:
            unit.execute(step)


@contextlib.contextmanager
def opened(url, driver, is_session):
    """A connection or session of SQLAlchemy."""
    with asyncio.Runner() as runner:
        run = (lambda value: runner.run(_settled(value))) if driver else lambda value: value
        engine = business.async_engine_on(url, driver) if driver else business.engine_on(url)
        business.begin_explicitly(engine.sync_engine if driver else engine)
        if url.startswith("sqlite"):
            sqlalchemy.event.listen(
                engine.sync_engine if driver else engine,
                "connect",
                lambda connection, _: connection.execute("PRAGMA foreign_keys = ON"),
            )
        kind = (AsyncSession if driver else Session) if is_session else type(engine).connect
        target = kind(engine)
        if driver and not is_session:
            run(target.start())
        try:
            yield business.Unit(target, run)
        finally:
            run(target.close())
            run(engine.dispose())


@pytest.mark.parametrize("driver", DRIVERS)
def test_sqlalchemy_tells_how_its_transactions_end(driver, tmp_path, full):
    database, asynchronous = DRIVERS[driver]
    url = there = created(tmp_path, database)
    if driver == "psycopg2":
        there = url.replace("://", "+psycopg2://")
    for given, steps, kind in each_pair(DRIVERS, STEPS, [*ORDERS], full=full):
        if given != driver or (steps in SQLITE_STEPS and database != "sqlite"):
            continue
        with opened(there, asynchronous, "session" in kind) as unit:
            stepping = Stepping(unit, ORDERS[kind], f"{kind}: {steps}")
            for step in steps:
                with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError):
                    stepping.step(step)
    assert check_events(url, tmp_path) == set()


@pytest.mark.parametrize("way", ["rollback", "commit", "savepoint"])
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_flush_whose_error_is_swallowed_leaves_no_event(database, way, tmp_path):
    url = created(tmp_path, database)
    engine = business.engine_on(url)

    def add(target, name, key):
        target.add(order := business.Order(id=key, name=name))
        return order

    for key, join in enumerate(business.JOINS, start=1):
        order = business.decorated(join, add)
        with Session(engine) as session:
            order(session, f"{join}: first", key)
            session.flush()
            inside = session.begin_nested() if way == "savepoint" else contextlib.nullcontext()
            with contextlib.suppress(sqlalchemy.exc.IntegrityError), inside:
                order(session, f"{join}: with the same key", key)
                session.flush()
            with contextlib.suppress(sqlalchemy.exc.PendingRollbackError):
                session.rollback() if way == "rollback" else session.commit()
        with Session(engine) as session:
            order(session, f"{join}: later", 10 * key)
            session.commit()
    engine.dispose()
    assert check_events(url, tmp_path) == set()


@pytest.mark.parametrize("flushed", [True, False])
@pytest.mark.parametrize("join", business.JOINS)
def test_a_session_that_is_dropped_gives_its_connection_back(join, flushed, tmp_path, caplog):
    url = created(tmp_path, "postgresql")
    engine = business.engine_on(url)

    def order(target, name):
        order = business.Order(name=name)
        target.add(order)
        return order

    session = Session(engine)
    session.execute(sqlalchemy.text("SELECT 1"))
    business.decorated(join, order)(session, "one")
    if flushed:
        session.flush()
    dropped = weakref.ref(session)
    del session
    caplog.clear()  # pytest keeps the frames of an exception that was logged
    # A collection that another thread has begun makes this one return at once.
    wait_for(lambda: gc.collect() is not None and dropped() is None)
    assert engine.pool.checkedout() == 0
    engine.dispose()


@pytest.mark.parametrize("setting", [{}, {"prepare_threshold": 0}])
def test_of_two_that_cannot_be_serialized_one_has_events(setting, tmp_path):
    url = created(tmp_path, "postgresql")
    both = [psycopg.connect(url, **setting) for _ in range(2)]
    for connection in both:
        connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        connection.execute("SELECT count(*) FROM orders")
    for number, connection in enumerate(both):
        driven = Driven(connection, lambda value: value)
        with contextlib.suppress(psycopg.Error):
            driven.order(f"{number}")
    refused = 0
    for connection in both:
        try:
            connection.commit()
        except psycopg.errors.SerializationFailure:
            refused += 1
        connection.close()
    assert refused == 1
    assert check_events(url, tmp_path) == set()


#: For Django: what follows an order in its atomic block, and whether the order is committed then.
DJANGO = {
    "postgresql": {
        "kept": "SELECT 1",
        "failed": "SELECT * FROM nowhere",
        "failed at the commit": DEFERRED,
    },
    "sqlite": {
        "kept": "SELECT 1",
        "only a statement failed": "SELECT * FROM nowhere",
        "all undone": UNDOES_ALL,
        "failed at the commit": DEFERRED,
    },
}


def django_orders(url):
    """Order in Django's atomic blocks that end in each way."""
    application = business.WithDjango(url, "after_commit")
    for name, statement in DJANGO[url.partition(":")[0]].items():
        with contextlib.suppress(django_errors), application.unit() as unit:
            application.order(unit.target, name)
            with (
                contextlib.suppress(django_errors),
                connections[unit.target].cursor() as cursor,
            ):
                cursor.execute(statement)
            unit.commit()
    application.close()


@pytest.mark.parametrize("database", DJANGO)
def test_django_is_told_of_no_commit_that_the_server_has_refused(database, tmp_path):
    url = created(tmp_path, database)
    django_orders(url)
    assert check_events(url, tmp_path) == set()


ON_PSYCOPG2 = """
import sidelight
from tests.transactions.test_proof import django_orders

sidelight.configure(f"sqlite:///{sys.argv[1]}/events.db", otlp=False)
django_orders(sys.argv[2])
assert sidelight.flush(60)
"""


def test_django_on_psycopg2(tmp_path):
    pytest.importorskip("psycopg2", reason="pip install psycopg2-binary")
    url = created(tmp_path, "postgresql")
    restore()
    command = [sys.executable, "-c", DJANGO_ON_PSYCOPG2 + ON_PSYCOPG2, str(tmp_path), url]
    subprocess.run(command, check=True, timeout=120)
    with sidelight.Store(f"sqlite:///{tmp_path / 'events.db'}") as store:
        found = {event.attributes["n"] for event in store.events()}
    assert found == business.committed(url) != set()
