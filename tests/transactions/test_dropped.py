"""A session or a connection that is dropped without a close lives no longer than without sidelight.

Until it is collected, its transaction stays open: others wait for its locks, and its pool has one
connection less.
"""

import asyncio
import contextlib
import contextvars
import gc
import itertools
import weakref

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session
from tests.support import business, callable_kinds
from tests.support.pairs import each_pair
from tests.support.proving import MODES, lost
from tests.transactions import test_proof as proof

import sidelight
from sidelight import arg, emits

pytestmark = [
    pytest.mark.usefixtures("restored"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of the drivers
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def _twin(function):
    return function


#: The declarations of a function.
DECLARED = {
    "twin": lambda function: function,
    **{mode: emits("ordered", n=arg.name, **options) for mode, options in MODES.items()},
}
KINDS = ("connection", "pending session")
#: "no table" has no outbox, so that the INSERT is refused.
CASES = ("succeeds", "raises", "emits", "no table")


def _function(case, kind, contexts):
    """A function that orders; it keeps its context, as a task that it begins would."""
    insert, _ = proof.ORDERS[kind]

    def order(target, name):
        contexts.append(contextvars.copy_context())
        insert(target, name)
        if isinstance(target, Session):
            target.flush()
        if case == "raises":
            raise KeyError
        return sidelight.emit("emitted", transaction=target) if case == "emits" else None

    async def order_awaited(target, name):
        contexts.append(contextvars.copy_context())
        await target.run_sync(insert, name)
        if isinstance(target, AsyncSession):
            await target.flush()
        if case == "raises":
            raise KeyError
        return await sidelight.emit("emitted", transaction=target) if case == "emits" else None

    return order, order_awaited


async def _dropped(engine, kind, order, name):
    """Order, and drop the session or the connection; return what is to be collected."""
    is_async, receipt = isinstance(engine, AsyncEngine), None
    target = engine.connect()
    if "session" in kind:
        target = (AsyncSession if is_async else Session)(engine)
    elif is_async:
        await target
    with contextlib.suppress(KeyError):
        receipt = await proof._settled(order(target, name))
    left = [target, getattr(target, "sync_session", target)]
    if "session" in kind:
        left.append(await proof._settled(target.connection()))
    left.append(getattr(left[-1], "sync_connection", left[-1]))
    return receipt, [weakref.ref(each) for each in left]


@pytest.fixture
def frozen():
    """Collections are short, because what is alive before the test is left out."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    gc.collect()
    gc.freeze()  # as the conftest has left it for the tests that follow


# The thread of an aiosqlite connection that is dropped may answer to a loop that is closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.usefixtures("frozen")
@pytest.mark.parametrize("driver", proof.DRIVERS)
def test_it_is_collected_at_once(driver, tmp_path, caplog, full):
    database, asynchronous = proof.DRIVERS[driver]
    url, bare = proof.created(tmp_path, database), _without_outbox(tmp_path / "bare", database)
    alive = []
    with asyncio.Runner() as runner:
        for declared, case, kind in each_pair(DECLARED, CASES, KINDS, full=full):
            if (declared, case) == ("strict", "no table"):
                continue
            engine = _engine(bare if case == "no table" else url, driver, asynchronous)
            order = DECLARED[declared](_function(case, kind, contexts := [])[bool(asynchronous)])
            for event in ("first", "second"):
                name = f"{declared}, {case}, {kind}, {event}"
                receipt, left = runner.run(_dropped(engine, kind, order, name))
                caplog.clear()  # pytest keeps the frames of an exception that was logged
                if not _are_collected(runner, engine.pool, left):
                    alive.append(name)
                    break
                del receipt
            assert contexts
            runner.run(proof._settled(engine.dispose()))
    assert alive == []


def _without_outbox(directory, database):
    directory.mkdir()
    url = business.DATABASES[database](directory)
    engine = business.engine_on(url)
    business.Order.__table__.create(engine)
    engine.dispose()
    return url


def _engine(url, driver, asynchronous, **options):
    options |= {"pool_size": 1, "max_overflow": 0, "pool_timeout": 5}
    if asynchronous:
        return business.async_engine_on(url, asynchronous, **options)
    if driver == "psycopg2":
        url = url.replace("://", "+psycopg2://")
    return business.engine_on(url, **options)


def _are_collected(runner, pool, left):
    for _ in range(10):  # a collection that another thread has begun makes this one return
        gc.collect()
        runner.run(asyncio.sleep(0))
        if not any(each() for each in left) and not pool.checkedout():
            return True
    return False


def _noted(contexts):
    contexts.append(contextvars.copy_context())


@pytest.mark.usefixtures("frozen")
def test_no_kind_of_call_keeps_its_session(tmp_path):
    sidelight.configure(f"sqlite:///{tmp_path / 'events.db'}", otlp=False)
    sessions, contexts, alive = [], [], []

    def get():
        return sessions.pop()

    for kind, number in itertools.product(callable_kinds.KINDS, (1, -1)):
        decorate = emits("ended", start="begun", after_commit=get, n=lambda: _noted(contexts))
        _, call = callable_kinds.built(kind, decorate)
        sessions.append(Session())
        left = weakref.ref(sessions[0])
        with contextlib.suppress(ValueError):
            call(number)
        gc.collect()
        if sessions or left() is not None:
            alive.append((kind, number))
    assert contexts
    assert alive == []


#: What follows an order, before the session or the connection is dropped.
WAYS = ("drop", "close", "commit", "rollback", "invalidate", "detach", "dispose")


def _ended(unit, way, engine):
    connection = unit.connection() if isinstance(unit, Session) else unit
    match way:
        case "drop":
            return
        case "dispose":
            engine.dispose()
        case "invalidate" | "detach":
            getattr(connection, way)()
        case _:
            getattr(unit, way)()


@pytest.mark.usefixtures("frozen")
@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")
@pytest.mark.parametrize("driver", ["sqlite3", "psycopg", "psycopg2"])
def test_a_pool_that_commits_what_is_dropped_has_its_loss_counted(driver, tmp_path, full):
    database, _ = proof.DRIVERS[driver]
    url, bare = proof.created(tmp_path, database), _without_outbox(tmp_path / "bare", database)
    wrong = []
    for reset, way, kind in each_pair(["rollback", "commit", None], WAYS, KINDS, full=full):
        for mode, place in (("after_commit", url), ("transaction", bare)):
            engine = _engine(place, driver, None, pool_reset_on_return=reset)
            insert, _ = proof.ORDERS[kind]
            order = DECLARED[mode](insert)
            before, name = lost(), f"{reset}, {way}, {kind}, {mode}"
            unit = Session(engine) if "session" in kind else engine.connect()
            order(unit, name)
            if "session" in kind and way in {"drop", "dispose"}:
                unit.flush()
            _ended(unit, way, engine)
            del unit
            gc.collect()
            with engine.begin() as connection:  # commits what the pool has left open
                connection.exec_driver_sql("SELECT 1")
            engine.dispose()
            counted, is_committed = lost() - before, name in business.committed(place)
            # A pool that was disposed of drops what it was to leave open, which nothing tells.
            may_be_committed = is_committed or (reset, way) == (None, "dispose")
            if counted != (may_be_committed and way != "commit"):
                wrong.append((name, f"{is_committed=}", f"{counted=}"))
    assert wrong == []
    sidelight.flush(20)
    with sidelight.Store(f"sqlite:///{tmp_path / 'events.db'}") as store:
        stored = {event.attributes["n"] for event in store.events()}
    assert stored
    assert all(", commit, " in name for name in stored)
