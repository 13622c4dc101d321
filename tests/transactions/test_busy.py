"""A decorated function returns while its connection is in the middle of another statement.

Each way below holds the driver's lock, or leaves the server busy, while code of the caller runs.
"""

import asyncio
import collections
import contextlib
import io
import itertools
import threading
import time

import psycopg
import pytest
import sqlalchemy
from django.db import connections, transaction
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from tests.support import business
from tests.support.proving import MODES
from tests.support.telemetry import restore

import sidelight
from sidelight import arg, emits
from sidelight.emission import EMITTER
from sidelight.exceptions import TransactionError
from sidelight.transactions.entry import BUSY, REASONS

COPY = "COPY orders (name) FROM STDIN"
MANY = "SELECT name FROM generate_series(1, 9) AS name"
BUDGET = 0.9  # seconds; three times the deadline, because a busy machine takes some
JOINED = "joined"


def slowly(function):
    """Return what a function returns, and check that it did not wait."""
    began = time.perf_counter()
    try:
        return function()
    finally:
        assert time.perf_counter() - began < BUDGET


# -- ways: each calls `work` once while psycopg's connection is in the middle of something ---------


def copy_in(raw, work):
    with raw.cursor().copy(COPY) as copy:
        copy.write_row(("mine",))
        work()


def copy_out(raw, work):
    raw.execute("INSERT INTO orders (name) VALUES ('mine')")
    with raw.cursor().copy("COPY orders TO STDOUT") as copy:
        for _ in copy:
            work()


def stream(raw, work):
    raw.execute("INSERT INTO orders (name) VALUES ('mine')")
    rows = raw.cursor().stream(MANY)
    next(rows)
    work()
    assert len(list(rows)) == 8


def server_side_cursor(raw, work):
    raw.execute("INSERT INTO orders (name) VALUES ('mine')")
    with raw.cursor(name="many") as cursor:
        cursor.execute(MANY)
        cursor.fetchone()
        work()
        assert len(cursor.fetchall()) == 8


def executemany(raw, work):
    def rows():
        yield ("mine",)
        work()

    raw.cursor().executemany("INSERT INTO orders (name) VALUES (%s)", rows())


def other_thread(raw, work):
    raw.execute("INSERT INTO orders (name) VALUES ('mine')")
    thread = threading.Thread(target=raw.execute, args=("SELECT pg_sleep(1)",))
    thread.start()
    while not raw.lock.locked():
        time.sleep(0.001)
    time.sleep(0.05)
    try:
        work()
    finally:
        thread.join()


def psycopg2_copy_in(raw, work):
    class File(io.StringIO):
        def read(self, size=-1):
            read = super().read(size)
            if read:
                work()
            return read

    with raw.cursor() as cursor:
        cursor.copy_expert(COPY, File("mine\n"))


def psycopg2_copy_out(raw, work):
    class File(io.StringIO):
        def write(self, text):
            work()
            return super().write(text)

    with raw.cursor() as cursor:
        cursor.execute("INSERT INTO orders (name) VALUES ('mine')")
        cursor.copy_expert("COPY orders TO STDOUT", File())


def psycopg2_server_side_cursor(raw, work):
    with raw.cursor() as cursor:
        cursor.execute("INSERT INTO orders (name) VALUES ('mine')")
    server_side_cursor_of = raw.cursor(name="many")
    server_side_cursor_of.execute(MANY)
    server_side_cursor_of.fetchone()
    work()
    assert len(server_side_cursor_of.fetchall()) == 8
    server_side_cursor_of.close()


PSYCOPG = {
    copy_in: BUSY,
    copy_out: BUSY,
    stream: BUSY,
    server_side_cursor: JOINED,
    executemany: "pipeline mode",
    other_thread: BUSY,
}
PSYCOPG2 = {
    psycopg2_copy_in: BUSY,
    psycopg2_copy_out: BUSY,
    psycopg2_server_side_cursor: JOINED,
}


# -- targets: each yields what the point names, the driver's connection, and the end ---------------


@contextlib.contextmanager
def plain(url):
    with psycopg.connect(url) as raw:
        yield raw, raw, raw


@contextlib.contextmanager
def core(url, driver="psycopg"):
    engine = sqlalchemy.create_engine(url.replace("://", f"+{driver}://"))
    with engine.connect() as connection:
        connection.begin()
        yield connection, connection.connection.driver_connection, connection
    engine.dispose()


@contextlib.contextmanager
def session(url, driver="psycopg"):
    engine = sqlalchemy.create_engine(url.replace("://", f"+{driver}://"))
    with Session(engine) as opened:
        yield opened, opened.connection().connection.driver_connection, opened
    engine.dispose()


def core_psycopg2(url):
    return core(url, "psycopg2")


def session_psycopg2(url):
    return session(url, "psycopg2")


@contextlib.contextmanager
def django(url):
    alias = business.django_database(url)

    class Unit:
        @staticmethod
        def rollback():
            transaction.set_rollback(True, using=alias)

        @staticmethod
        def commit():
            pass

    with transaction.atomic(using=alias):
        connections[alias].ensure_connection()
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT 1")
        yield alias, connections[alias].connection, Unit
    connections[alias].close()


TABLE = [
    *itertools.product((plain, core, session, django), PSYCOPG.items()),
    *itertools.product((core_psycopg2, session_psycopg2), PSYCOPG2.items()),
]
TABLE = [(target, way, reason) for target, (way, reason) in TABLE]
#: Only a connection of psycopg itself may be shared by threads.
TABLE = [each for each in TABLE if each[1] is not other_thread or each[0] is plain]


def named(value):
    return getattr(value, "__name__", value)


@pytest.fixture
def url(tmp_path):
    url = business.shop("postgresql", tmp_path)
    sidelight.configure(
        f"sqlite:///{tmp_path / 'events.db'}", outboxes=[url], otlp=False, deadline=0.3
    )
    join_once(url)
    yield url
    restore()


def join_once(url):
    """Learn of the outbox, which may take longer than the budget."""
    with psycopg.connect(url) as connection:
        connection.execute("SELECT 1")
        emits("first", transaction=arg.target, strict=True)(lambda target: target)(connection)


def told(tmp_path):
    """What each case's events are marked with."""
    assert sidelight.flush(20)
    found = collections.defaultdict(list)
    with sidelight.Store(f"sqlite:///{tmp_path / 'events.db'}") as store:
        for event in store.events(type="held"):
            found[event.attributes["n"]].append(event.attributes.get("sidelight.not_joined"))
    return found


class Cases:
    """The modes and ends of one test, on one database."""

    def __init__(self, url, tmp_path):
        self._url = url
        self._tmp_path = tmp_path
        self._expected = {}

    def __iter__(self):
        """Yield each mode and end with an empty table, and compare the events at the end."""
        with psycopg.connect(self._url, autocommit=True) as self._other:
            yield from itertools.product(MODES, ("commit", "rollback"))
        found = told(self._tmp_path)
        assert {case: found[case] for case in self._expected} == self._expected
        assert found.keys() <= self._expected.keys()
        assert EMITTER.losses == {}

    def check(self, mode, end, reason, raised):
        """The event follows the commit, with the reason where it could not join; or it raised."""
        case = f"{mode}, {end}"
        is_refused = reason != JOINED and mode != "after_commit"
        is_told = is_refused and mode == "strict"
        assert [REASONS[reason][0] in each for each in raised] == [True] * is_told, case
        label = reason if is_refused else None
        self._expected[case] = [] if is_told or end == "rollback" else [label]
        rows = self._other.execute("DELETE FROM orders RETURNING name").fetchall()
        assert rows == ([] if end == "rollback" else [("mine",)]), case
        counted = {f"not joined: {reason}": 1} if is_refused and end == "commit" else {}
        assert EMITTER.losses == ({} if is_told else counted), case
        EMITTER.losses.clear()


@pytest.mark.one_in(2)
@pytest.mark.parametrize(("target", "way", "reason"), TABLE, ids=named)
def test_the_caller_does_not_wait_and_the_event_follows_the_commit(
    target, way, reason, url, tmp_path
):
    if "psycopg2" in target.__name__:
        pytest.importorskip("psycopg2", reason="pip install psycopg2-binary")
    cases = Cases(url, tmp_path)
    for mode, end in cases:
        work = emits("held", n=arg.case, **MODES[mode])(lambda target, case: target)
        raised = []

        def held(work=work, case=f"{mode}, {end}", raised=raised):
            try:
                slowly(lambda: work(named_target, case))
            except TransactionError as error:
                raised.append(str(error))

        with target(url) as (named_target, raw, unit):
            way(raw, held)
            getattr(unit, end)()
        cases.check(mode, end, reason, raised)


# -- asynchronous ----------------------------------------------------------------------------------


#: In autocommit mode a COPY is a transaction of its own; psycopg2 does not tell how it ends.
ALONE = {
    "psycopg": (copy_in, ["commit", "rollback"], {}),
    "psycopg2": (psycopg2_copy_in, [], {"commit without an answer": 1}),
}


@pytest.mark.parametrize("target", [core, session])
@pytest.mark.parametrize("driver", ALONE)
def test_a_copy_in_autocommit_mode_has_its_event_or_counts_it(driver, target, url, tmp_path):
    way, events, losses = ALONE[driver]
    for end in ("commit", "rollback", "error"):
        sidelight.flush(20)  # takes what was lost before
        before = collections.Counter(EMITTER.losses)

        def work(end=end):
            insert = emits("ordered", n=arg.n, after_commit=arg.target)(lambda target, n: None)
            insert(named, end)
            if end == "error":
                raise KeyError

        with target(url, driver) as (named, raw, ending):
            raw.rollback()
            raw.autocommit = True
            with contextlib.suppress(KeyError, getattr(raw, "DataError", psycopg.Error).__base__):
                way(raw, work)
            (ending.rollback if end == "rollback" else ending.commit)()
            raw.autocommit = False
        assert collections.Counter(EMITTER.losses) - before == losses, end
        assert sidelight.flush(20) is not bool(losses), end
        empty(url)
    with sidelight.Store(f"sqlite:///{tmp_path / 'events.db'}") as store:
        assert [event.attributes["n"] for event in store.events(type="ordered")] == events


def empty(url):
    """Delete the row of a case, whose name the next one uses again."""
    with psycopg.connect(url) as other:
        other.execute("DELETE FROM orders")


async def copy_in_awaited(raw, work):
    async with raw.cursor().copy(COPY) as copy:
        await copy.write_row(("mine",))
        await work()


async def stream_awaited(raw, work):
    await raw.execute("INSERT INTO orders (name) VALUES ('mine')")
    rows = raw.cursor().stream(MANY)
    await anext(rows)
    await work()
    assert len([row async for row in rows]) == 8


async def other_task(raw, work):
    await raw.execute("INSERT INTO orders (name) VALUES ('mine')")
    other = asyncio.ensure_future(raw.execute("SELECT pg_sleep(0.3)"))
    await asyncio.sleep(0.05)
    await work()
    await other


async def asyncpg_copy_in(raw, work):
    async def rows():
        yield ("mine",)
        await work()

    await raw.copy_records_to_table("orders", columns=["name"], records=rows())


async def asyncpg_copy_out(raw, work):
    async def output(_):
        await work()

    await raw.execute("INSERT INTO orders (name) VALUES ('mine')")
    await raw.copy_from_query("SELECT name FROM orders", output=output)


async def asyncpg_cursor(raw, work):
    await raw.execute("INSERT INTO orders (name) VALUES ('mine')")
    async for _ in raw.cursor("SELECT 1"):
        await work()


async def asyncpg_other_task(raw, work):
    await raw.execute("INSERT INTO orders (name) VALUES ('mine')")
    other = asyncio.ensure_future(raw.execute("SELECT pg_sleep(0.3)"))
    await asyncio.sleep(0.05)
    await work()
    await other


@contextlib.asynccontextmanager
async def plain_awaited(url):
    async with await psycopg.AsyncConnection.connect(url) as raw:
        yield raw, raw, raw


@contextlib.asynccontextmanager
async def core_awaited(url, driver="psycopg"):
    engine = business.async_engine_on(url, driver)
    async with engine.connect() as connection:
        await connection.execute(sqlalchemy.text("SELECT 1"))
        pooled = await connection.get_raw_connection()
        yield connection, pooled.driver_connection, connection
    await engine.dispose()


@contextlib.asynccontextmanager
async def session_awaited(url, driver="psycopg"):
    engine = business.async_engine_on(url, driver)
    async with AsyncSession(engine) as opened:
        await opened.execute(sqlalchemy.text("SELECT 1"))
        pooled = await (await opened.connection()).get_raw_connection()
        yield opened, pooled.driver_connection, opened
    await engine.dispose()


def core_asyncpg(url):
    return core_awaited(url, "asyncpg")


def session_asyncpg(url):
    return session_awaited(url, "asyncpg")


PSYCOPG_AWAITED = {copy_in_awaited: BUSY, stream_awaited: BUSY, other_task: BUSY}
ASYNCPG = {
    asyncpg_copy_in: BUSY,
    asyncpg_copy_out: BUSY,
    asyncpg_cursor: JOINED,
    asyncpg_other_task: BUSY,
}
TABLE_AWAITED = [
    *itertools.product((plain_awaited, core_awaited, session_awaited), PSYCOPG_AWAITED.items()),
    *itertools.product((core_asyncpg, session_asyncpg), ASYNCPG.items()),
]
TABLE_AWAITED = [(target, way, reason) for target, (way, reason) in TABLE_AWAITED]


@pytest.mark.one_in(2)
@pytest.mark.parametrize(("target", "way", "reason"), TABLE_AWAITED, ids=named)
async def test_the_same_awaited(target, way, reason, url, tmp_path):
    async def nothing(target, case):
        return target

    cases = Cases(url, tmp_path)
    for mode, end in cases:
        work = emits("held", n=arg.case, **MODES[mode])(nothing)
        raised = []

        async def held(work=work, case=f"{mode}, {end}", raised=raised):
            began = time.perf_counter()
            try:
                await asyncio.wait_for(work(named_target, case), 20)
            except TransactionError as error:
                raised.append(str(error))
            assert time.perf_counter() - began < BUDGET

        async with target(url) as (named_target, raw, unit):
            await way(raw, held)
            await getattr(unit, end)()
        waits = way is other_task and mode == "strict"  # for its turn
        cases.check(mode, end, JOINED if waits else reason, raised)


@contextlib.asynccontextmanager
async def core_autocommit(url, *, begins=True):
    engine = business.async_engine_on(url, "asyncpg", isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        if begins:
            await connection.execute(sqlalchemy.text("SELECT 1"))
        pooled = await connection.get_raw_connection()
        yield connection, pooled.driver_connection, connection
    await engine.dispose()


def core_autocommit_not_begun(url):
    return core_autocommit(url, begins=False)


@contextlib.asynccontextmanager
async def session_autocommit(url):
    engine = business.async_engine_on(url, "asyncpg", isolation_level="AUTOCOMMIT")
    async with AsyncSession(engine) as opened:
        pooled = await (await opened.connection()).get_raw_connection()
        yield opened, pooled.driver_connection, opened
    await engine.dispose()


@contextlib.asynccontextmanager
async def core_that_has_sent_nothing(url):
    """SQLAlchemy has begun, but sends its BEGIN before the first statement only."""
    engine = business.async_engine_on(url, "asyncpg")
    async with engine.connect() as connection:
        await connection.begin()
        pooled = await connection.get_raw_connection()
        yield connection, pooled.driver_connection, connection
    await engine.dispose()


WAYS_AND_ENDS = [
    *itertools.product([asyncpg_copy_in, asyncpg_copy_out], ["commit", "rollback"]),
    (asyncpg_copy_in, "error"),  # an error in the output of a COPY blocks asyncpg for ever
]


@pytest.mark.parametrize(
    "target",
    [
        core_autocommit,
        core_autocommit_not_begun,
        session_autocommit,
        core_that_has_sent_nothing,
    ],
)
async def test_asyncpg_does_not_tell_how_a_copy_ends_that_is_a_transaction_of_its_own(
    target, url, tmp_path
):
    async def nothing(target):
        return target

    for (way, end), mode in itertools.product(WAYS_AND_ENDS, MODES):
        case = f"{way.__name__}, {end}, {mode}"
        work = emits("held", **MODES[mode])(nothing)
        raised = []

        async def held(work=work, end=end, raised=raised):
            try:
                await asyncio.wait_for(work(named_target), 20)
            except TransactionError as error:
                raised.append(str(error))
            if end == "error":
                raise KeyError

        sidelight.flush(20)  # takes what was lost before
        before = collections.Counter(EMITTER.losses)
        async with target(url) as (named_target, raw, unit):
            with contextlib.suppress(KeyError):
                await way(raw, held)
            await (unit.rollback if end == "rollback" else unit.commit)()
        told = [REASONS[BUSY][0] in each for each in raised]
        assert told == ([True] if mode == "strict" else []), case
        losses = collections.Counter(EMITTER.losses) - before
        assert losses == ({} if raised else {"commit without an answer": 1}), case
        assert sidelight.flush(20) is bool(raised), case
        empty(url)
    with sidelight.Store(f"sqlite:///{tmp_path / 'events.db'}") as store:
        assert not list(store.events(type="held"))


@pytest.mark.parametrize("mode", MODES)
async def test_what_asyncpg_has_committed_has_its_event_while_another_task_executes(
    mode, url, tmp_path
):
    async def order(target, case):
        await target.execute(sqlalchemy.text("INSERT INTO orders (name) VALUES ('mine')"))
        other.append(asyncio.ensure_future(target.execute(sqlalchemy.text("SELECT pg_sleep(0.1)"))))
        await asyncio.sleep(0.02)

    other, raised = [], []
    async with core_autocommit(url) as (target, _, _):
        try:
            await emits("held", n=arg.case, **MODES[mode])(order)(target, "case")
        except TransactionError as error:
            raised.append(str(error))
        await asyncio.gather(*other)
    check_told_at_once(mode, raised, tmp_path)


def check_told_at_once(mode, raised, tmp_path):
    """In autocommit mode the work is committed: the event is there, or the call has raised."""
    label = "autocommit" if mode == "transaction" else None
    assert [REASONS["autocommit"][0] in each for each in raised] == [True] * (mode == "strict")
    assert told(tmp_path)["case"] == ([] if mode == "strict" else [label])
    assert EMITTER.losses == ({"not joined: autocommit": 1} if label else {})
