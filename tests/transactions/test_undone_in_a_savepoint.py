"""The function undoes its work to a savepoint, and the caller's transaction stays open.

There is no event where all that the function has written is undone. There is one where a part
stands, or where the function only reads. Nothing is counted, and no strict call raises.
"""

import asyncio
import contextlib
import inspect
import itertools
import json
import subprocess
import sys

import psycopg
import pytest
from django.db import Error, connections, transaction
from tests.support import business
from tests.support.pairs import each_nth
from tests.support.proving import DJANGO_ON_PSYCOPG2, lost
from tests.support.telemetry import restore
from tests.transactions.test_proof_below_django import order_model

import sidelight
from sidelight import arg, emits
from sidelight.exceptions import TransactionError

pytestmark = pytest.mark.usefixtures("restored")

MODES = {
    "transaction": {"transaction": arg.target},
    "after_commit": {"after_commit": arg.target},
    "strict": {"transaction": arg.target, "strict": True},
}
#: Steps of the function; whether there is an event then. "(" … ")" is a block that is undone.
WORKS = {
    "": True,
    "SELECT": True,
    "( SELECT )": True,
    "insert": True,
    "( insert )": False,
    "( many )": False,
    "( bulk )": False,
    "( fails )": False,
    "( insert fails )": False,
    "( update )": False,
    "SELECT ( insert ) SELECT": False,
    "( [ insert ] )": False,
    "( ( insert ) insert )": False,
    "[ ( insert ) ]": False,
    "( insert ) ( many )": False,
    "( insert ) [ insert ]": True,
    "( insert ) many": True,
    "( insert ) update": True,
    "( insert ) bulk": True,
    "insert ( insert )": True,
    "[ insert ( insert ) ]": True,
    "SAVEPOINT_a insert ROLLBACK_TO_a": False,
    "insert SAVEPOINT_a insert ROLLBACK_TO_a": True,
    "SAVEPOINT_a insert SAVEPOINT_a insert ROLLBACK_TO_a": True,
    "SAVEPOINT_a insert RELEASE_a": True,
}
ENDS = ("commit", "rollback")
INSERT = "INSERT INTO orders (name) VALUES (%s)"
FAILS = "INSERT INTO orders (name) VALUES (NULL)"
UPDATE = "UPDATE orders SET name = name"

# -- Django ----------------------------------------------------------------------------------------

DRIVERS = {"sqlite3": "sqlite", "psycopg": "postgresql", "psycopg2": "postgresql"}
#: What the caller has opened.
OPENED = ("block", "savepoint", "manual")
CASES_OF_DJANGO = list(itertools.product(MODES, OPENED, ENDS, WORKS))


class Undo(Exception):
    """Ends a block."""


def django_step(cursor, alias, name, word, blocks):
    match word:
        case "(" | "[":
            blocks.append(transaction.atomic(using=alias))
            blocks[-1].__enter__()
        case ")" | "]":
            error = (Undo, Undo(), None) if word == ")" else (None, None, None)
            blocks.pop().__exit__(*error)
        case "insert":
            cursor.execute(INSERT, [name])
        case "many":
            names = [(f"{name}a",), (f"{name}b",)]
            cursor.executemany(INSERT, names)
        case "bulk":
            orders = order_model()
            orders.objects.using(alias).bulk_create([orders(name=f"{name}a")])
        case "fails":
            with contextlib.suppress(Error):
                cursor.execute(FAILS)
        case "update":
            cursor.execute(UPDATE)
        case "SELECT":
            assert order_model().objects.using(alias).filter(name="?").count() == 0
        case _:
            cursor.execute(word.replace("_", " "))


def django_body(target, name, work):
    blocks = []
    with connections[target].cursor() as cursor:
        for number, word in enumerate(work.split()):
            django_step(cursor, target, f"{name}{number}", word, blocks)


def perform_one_of_django(alias, case, name):
    """Perform a case; return whether the call has raised."""
    mode, opened, end, work = case
    order = emits("ordered", n=arg.name, **MODES[mode])(django_body)
    connection = connections[alias]
    told = False
    with contextlib.suppress(Undo), contextlib.ExitStack() as blocks:
        if opened == "manual":
            connection.set_autocommit(False)
            blocks.callback(connection.set_autocommit, True)
            blocks.callback(getattr(connection, end))
        for _ in range(("manual", "block", "savepoint").index(opened)):
            blocks.enter_context(transaction.atomic(using=alias))
        with connection.cursor() as cursor:
            cursor.execute(INSERT, [f"{name}caller"])
        try:
            order(alias, name, work)
        except TransactionError:
            told = True
        if end == "rollback" and opened != "manual":
            raise Undo
    return told


def perform_django(driver, url, *, full):
    """Perform the cases; return each with what it has counted or told."""
    alias = business.django_database(url)
    found = []
    sidelight.flush(60)  # takes what other tests have lost
    for case in each_nth(CASES_OF_DJANGO, 7, driver, DRIVERS, full=full):
        before = lost()
        told = perform_one_of_django(alias, case, f"{len(found)}|")
        found.append((case, lost() - before + told))
    connections[alias].close()
    del connections.databases[alias]
    sidelight.flush(60)
    return found


ON_PSYCOPG2 = """
import json
import sidelight
from tests.transactions.test_undone_in_a_savepoint import perform_django

sidelight.configure(sys.argv[1], outboxes=[sys.argv[2]], otlp=False, deadline=1.0)
json.dump(perform_django("psycopg2", sys.argv[2], full=sys.argv[3] == "True"), sys.stdout)
"""


def wrong(found, store, works=WORKS):
    """Return the cases that have an event too many or too few, or a loss."""
    with sidelight.Store(store) as events:
        stored = [event.attributes["n"] for event in events.events()]
    assert stored
    return [
        (case, has, losses)
        for number, (case, losses) in enumerate(found)
        for has in [stored.count(f"{number}|")]
        if (has, losses) != (works[case[-1]] and case[-2] == "commit", 0)
    ]


@pytest.mark.parametrize("driver", DRIVERS)
def test_below_django(driver, tmp_path, full):
    url = business.DATABASES[DRIVERS[driver]](tmp_path)
    business.create_tables(url)
    store = f"sqlite:///{tmp_path / 'events.db'}"
    if driver == "psycopg2":
        restore()
        command = [sys.executable, "-c", DJANGO_ON_PSYCOPG2 + ON_PSYCOPG2, store, url, f"{full}"]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    else:
        sidelight.configure(store, outboxes=[url], otlp=False, deadline=1.0)
        found = perform_django(driver, url, full=full)
    assert wrong(found, store) == []


# -- psycopg ---------------------------------------------------------------------------------------

#: Steps beside those of Django's; "{" … "}" is a pipeline.
OF_PSYCOPG = {
    "( copy )": False,
    "( copy_fails )": False,
    "( server )": True,
    "( prepared )": False,
    "( insert ) stream server": False,
    "( insert ) copy": True,
    "( insert ) prepared": True,
    "{ ( insert ) }": False,
    "( { insert } )": False,
    "( { insert fails } )": False,
    "{ ( insert ) insert }": True,
    "{ ( insert ) } many": True,
    "{ insert } ( insert )": True,
    "( insert ) { insert }": True,
    "( insert ) { SELECT }": False,
}
WORKS_OF_PSYCOPG = {work: WORKS[work] for work in WORKS if "bulk" not in work} | OF_PSYCOPG
OPENED_OF_PSYCOPG = ("transaction", "manual", "BEGIN", "pipeline")
CASES_OF_PSYCOPG = [
    case
    for case in itertools.product((False, True), MODES, OPENED_OF_PSYCOPG, ENDS, WORKS_OF_PSYCOPG)
    # Within a pipeline of the caller an error fails all, and a strict call raises.
    if case[2] != "pipeline"
    or (case[1] != "strict" and case[4] in {"insert", "SELECT", "( insert ) many"})
]


async def settled(answer):
    return await answer if inspect.isawaitable(answer) else answer


async def entered(manager):
    """Enter a manager of either kind; return what it gives, and what leaves it."""
    value = await settled((getattr(manager, "__aenter__", None) or manager.__enter__)())
    return value, getattr(manager, "__aexit__", None) or manager.__exit__


async def listed(answer):
    """Take all rows of a cursor or a stream of either kind."""
    return [row async for row in answer] if hasattr(answer, "__aiter__") else list(answer)


async def psycopg_step(target, name, word, blocks):  # one step each
    match word:
        case "(" | "[":
            blocks.append((await entered(target.transaction()))[1])
        case "{":
            blocks.append((await entered(target.pipeline()))[1])
        case ")":
            await settled(blocks.pop()(psycopg.Rollback, psycopg.Rollback(), None))
        case "]" | "}":
            with contextlib.suppress(psycopg.Error):  # of a step in the pipeline
                await settled(blocks.pop()(None, None, None))
        case "insert" | "prepared":
            await settled(target.execute(INSERT, (name,), prepare=word == "prepared"))
        case "many":
            names = [(f"{name}a",), (f"{name}b",)]
            await settled(target.cursor().executemany(INSERT, names))
        case "copy" | "copy_fails":
            copy, leave = await entered(target.cursor().copy("COPY orders (name) FROM STDIN"))
            await settled(copy.write_row((name if word == "copy" else None,)))
            with contextlib.suppress(psycopg.Error):
                await settled(leave(None, None, None))
        case "fails":
            with contextlib.suppress(psycopg.Error):
                await settled(target.execute(FAILS))
        case "update":
            await settled(target.execute(UPDATE))
        case "server":
            cursor = target.cursor("c")
            await settled(cursor.execute("SELECT 1"))
            await listed(cursor)
            await settled(cursor.close())
        case "stream":
            await listed(target.cursor().stream("SELECT 1"))
        case _:
            text = "SELECT count(*) FROM orders" if word == "SELECT" else word.replace("_", " ")
            await settled(target.execute(text))


def bodies(step):
    """Return a function that does the steps of a text, and one that awaits them.

    Args:
        step: does one of them.
    """

    async def body_awaited(target, name, work):
        blocks = []
        for number, word in enumerate(work.split()):
            await step(target, f"{name}{number}", word, blocks)

    def body(target, name, work):
        with contextlib.suppress(StopIteration):
            body_awaited(target, name, work).send(None)  # it awaits nothing

    return body, body_awaited


body, body_awaited = bodies(psycopg_step)


async def perform_one(url, case, name):
    """Perform a case; return whether the call has raised."""
    is_async, mode, opened, end, work = case
    order = emits("ordered", n=arg.name, **MODES[mode])(body_awaited if is_async else body)
    kind = psycopg.AsyncConnection if is_async else psycopg.Connection
    connection = await settled(kind.connect(url, autocommit=opened == "BEGIN"))
    told, blocks = False, []
    try:
        opening = {"transaction": "(", "pipeline": "{"}.get(opened)
        for word in [opening or opened][opened == "manual" :]:
            await psycopg_step(connection, name, word, blocks)
        await settled(connection.execute(INSERT, (f"{name}caller",)))
        try:
            await settled(order(connection, name, work))
        except TransactionError:
            told = True
        if opened == "transaction":
            await psycopg_step(connection, name, "]" if end == "commit" else ")", blocks)
        else:
            await settled(getattr(connection, end)())
            if blocks:
                await psycopg_step(connection, name, "}", blocks)
    finally:
        await settled(connection.close())
    return told


def test_on_psycopg(tmp_path, full):
    url, store = business.DATABASES["postgresql"](tmp_path), f"sqlite:///{tmp_path / 'events.db'}"
    business.create_tables(url)
    sidelight.configure(store, outboxes=[url], otlp=False, deadline=1.0)
    found = []
    sidelight.flush(60)  # takes what other tests have lost
    for case in CASES_OF_PSYCOPG[:: 1 if full else 29]:
        before = lost()
        told = asyncio.run(perform_one(url, case, f"{len(found)}|"))
        found.append((case, lost() - before + told))
    sidelight.flush(60)
    assert wrong(found, store, WORKS_OF_PSYCOPG) == []
