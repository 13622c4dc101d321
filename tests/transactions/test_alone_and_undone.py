"""In autocommit mode a part of the function's work has committed by itself, and a part is undone.

There is an event if and only if a row of the function stays, whatever the way in which it was
written, and in either order. Nothing is counted as lost, and a strict call raises instead.
"""

import asyncio
import contextlib
import itertools

import psycopg
import pytest
from django.db import connections
from tests.support import business
from tests.support.pairs import each_nth
from tests.support.proving import MODES, lost
from tests.support.telemetry import restore
from tests.transactions import test_undone_in_a_savepoint as undone

import sidelight
from sidelight import arg, emits
from sidelight.exceptions import TransactionError

#: Steps after which a row stays; "(" … ")" is a block that is undone, "{" … "}" a pipeline.
STAYS = (
    *("insert", "prepared", "many", "returning", "copy", "stream_insert"),
    *("[ insert ]", "{ insert }", "{ many }", "{ insert fetched }", "{ insert sync fails }"),
    *("{ copy_refused insert }", "{ insert copy_refused }", "many_short", "stream_without_rows"),
    *("BEGIN insert COMMIT", "ROLLBACK_insert"),
)
#: Steps after which no row stays.
GOES = (
    *("( insert )", "( many )", "( copy )", "( stream_insert )", "{ ( insert ) }"),
    *("fails", "many_fails", "returning_fails", "copy_fails", "copy_given_up", "stream_fails"),
    *("short", "{ insert fails }", "{ fails }", "{ insert fetched fails }", "( { insert fails } )"),
    *("BEGIN insert ROLLBACK", "{ BEGIN insert ROLLBACK }", "BEGIN_insert_ROLLBACK"),
)
READS = ("SELECT", "stream", "{ SELECT }")
WORKS = (
    *STAYS,
    *GOES,
    *(f"{first} {then}" for first, then in itertools.product(STAYS, GOES)),
    *(f"{first} {then}" for first, then in itertools.product(GOES, STAYS)),
    *(f"{first} {then}" for first, then in itertools.product(READS, GOES)),
    *(f"{first} {then}" for first, then in itertools.product(GOES, READS)),
)
CASES = list(itertools.product(MODES, WORKS))
SAMPLED = 29


async def step(target, name, word, blocks):
    """Perform a step beside those of `undone`, on a connection of psycopg of either kind."""
    settled, names = undone.settled, [(f"{name}a",), (f"{name}b",)]
    cursor = target.cursor()
    match word:
        case "returning":
            text = f"{undone.INSERT} RETURNING id"
            await settled(cursor.executemany(text, names, returning=True))
        case "many_fails" | "returning_fails":
            returning = word == "returning_fails"
            with contextlib.suppress(psycopg.Error):
                text = f"{undone.INSERT} RETURNING id" if returning else undone.INSERT
                await settled(cursor.executemany(text, [*names, (None,)], returning=returning))
        case "stream_insert":
            await undone.listed(cursor.stream(f"{undone.INSERT} RETURNING id", names[0]))
        case "stream_fails":
            with contextlib.suppress(psycopg.Error):
                await undone.listed(cursor.stream(f"{undone.INSERT} RETURNING id", (None,)))
        case "stream_without_rows":  # psycopg raises after the INSERT
            with contextlib.suppress(psycopg.ProgrammingError):
                await undone.listed(cursor.stream(undone.INSERT, names[0]))
        case "many_short":  # psycopg sends the first row and refuses the second
            with contextlib.suppress(psycopg.ProgrammingError):
                await settled(cursor.executemany(undone.INSERT, [names[0], ()]))
        case "short":
            with contextlib.suppress(psycopg.ProgrammingError):
                await settled(cursor.execute(undone.INSERT, ()))
        case "copy_given_up":
            copy, leave = await undone.entered(cursor.copy("COPY orders (name) FROM STDIN"))
            await settled(copy.write_row(names[0]))
            with contextlib.suppress(KeyError):
                await settled(leave(KeyError, KeyError(), None))
        case "copy_refused":
            with contextlib.suppress(psycopg.Error):
                await undone.entered(cursor.copy("COPY orders (name) FROM STDIN"))
        case "fetched":
            cursor = await settled(target.execute("SELECT 1"))
            await settled(cursor.fetchone())
        case "sync":
            await settled(target._pipeline.sync())
        case "ROLLBACK_insert" | "BEGIN_insert_ROLLBACK":
            text = word.replace("_", "; ").replace("insert", undone.INSERT)
            await settled(psycopg_client_cursor(target).execute(text, names[0]))
        case _:
            await undone.psycopg_step(target, name, word, blocks)


def psycopg_client_cursor(target):
    """Return a cursor that sends several statements with parameters as one text."""
    is_async = isinstance(target, psycopg.AsyncConnection)
    return (psycopg.AsyncClientCursor if is_async else psycopg.ClientCursor)(target)


body, body_awaited = undone.bodies(step)


def body_in_django(target, name, work):
    """Work in Django: by its cursor and its blocks, and by psycopg's where Django has nothing."""
    of_django = {"(", ")", "[", "]", "insert", "many", "bulk", "fails", "SELECT"}
    raw, blocks = connections[target].connection, []
    with connections[target].cursor() as cursor:
        for number, word in enumerate(work.split()):
            if word in of_django and raw.info.pipeline_status == 0:
                undone.django_step(cursor, target, f"{name}{number}", word, blocks)
            else:
                with contextlib.suppress(StopIteration):
                    step(raw, f"{name}{number}", word, blocks).send(None)


async def on_psycopg(url, number, mode, work, *, kind=psycopg.Connection):
    function = body if kind is psycopg.Connection else body_awaited
    connection = await undone.settled(kind.connect(url, autocommit=True))
    try:
        order = emits("ordered", n=arg.name, **MODES[mode])(function)
        await undone.settled(order(connection, f"{number}|", work))
    finally:
        await undone.settled(connection.close())


async def on_psycopg_awaited(url, number, mode, work):
    await on_psycopg(url, number, mode, work, kind=psycopg.AsyncConnection)


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    url = business.DATABASES["postgresql"](tmp_path_factory.mktemp("database"))
    business.create_tables(url)
    return url


@pytest.fixture
def store(url, tmp_path):
    store = f"sqlite:///{tmp_path / 'events.db'}"
    sidelight.configure(store, outboxes=[url], otlp=False, deadline=1.0)
    yield store
    restore()


@pytest.mark.parametrize("perform", [on_psycopg, on_psycopg_awaited])
def test_on_psycopg(perform, url, store, full):
    check(lambda *case: asyncio.run(perform(url, *case)), perform.__name__, url, store, full=full)


def test_below_django(url, store, full):
    alias = business.django_database(url)

    def perform(number, mode, work):
        connections[alias].ensure_connection()
        order = emits("ordered", n=arg.name, **MODES[mode])(body_in_django)
        try:
            order(alias, f"{number}|", work)
        finally:
            connections[alias].close()

    # Behind a stream that has failed Django's cursor of psycopg may read an answer that is left.
    cases = [case for case in CASES if "stream_fails" not in case[1]]
    check(perform, "django", url, store, cases, full=full)
    del connections.databases[alias]


def rows_until_an_error(name):
    yield (name,)
    raise ValueError


def test_rows_behind_an_error_of_their_iterator_are_counted(url, store):
    """Nothing tells whether they are committed."""

    @emits("ordered", n=arg.name, after_commit=arg.target)
    def order(target, name):
        with contextlib.suppress(ValueError):
            target.cursor().executemany(undone.INSERT, rows_until_an_error(name))

    before = lost()
    with psycopg.connect(url, autocommit=True) as connection:
        order(connection, "iterated")
    sidelight.flush(60)
    with sidelight.Store(store) as events:
        assert list(events.events()) == []
    assert lost() - before == 1


def test_rows_of_the_caller_that_a_function_commits_are_none_of_its_work(url, store):
    """They wait in a pipeline, which ends what it has sent where the function begins a block."""

    @emits("ordered", n=arg.name, after_commit=arg.target)
    def order(target, name):
        target.execute(undone.INSERT, (name,))
        with contextlib.suppress(ValueError), target.transaction():
            target.execute(undone.INSERT, (name + "2",))
            raise ValueError

    @emits("undone", n=arg.name, after_commit=arg.target)
    def undo(target, name):
        with contextlib.suppress(ValueError), target.transaction():
            target.execute(undone.INSERT, (name,))
            raise ValueError

    with psycopg.connect(url, autocommit=True) as connection, connection.pipeline():
        connection.execute(undone.INSERT, ("of the caller",))
        undo(connection, "undone")
        order(connection, "ordered")
    sidelight.flush(60)
    with sidelight.Store(store) as events:
        assert [event.attributes["n"] for event in events.events()] == ["ordered"]


def check(perform, name, url, store, cases=CASES, *, full):
    """Perform the cases; compare the rows that stay with the events."""
    found, raised, names = [], set(), ("on_psycopg", "on_psycopg_awaited", "django")
    sidelight.flush(60)  # takes what other tests have lost
    for mode, work in each_nth(cases, SAMPLED, name, names, full=full):
        before, case = lost(), f"{name}{len(found)}"
        try:
            perform(case, mode, work)
        except TransactionError:
            raised.add(case)
        found.append((case, mode, work, lost() - before))
    sidelight.flush(60)
    with sidelight.Store(store) as events:
        stored = [event.attributes["n"].partition("|")[0] for event in events.events()]
    staying = {each.partition("|")[0] for each in business.committed(url)}
    wrong = [
        (mode, work, case in staying, stored.count(case), losses)
        for case, mode, work, losses in found
        if losses
        or (case not in staying and (case in stored or case in raised))
        or (case in staying and stored.count(case) + (case in raised) != 1)
        or (case in raised and mode != "strict")
    ]
    assert wrong == []
    assert stored
