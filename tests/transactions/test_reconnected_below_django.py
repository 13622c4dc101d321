"""The function closes Django's connection, and works on the one that Django opens then.

There is an event if any row of the call is committed, and none if no row is. Nothing is counted.
"""

import contextlib
import itertools
import json
import subprocess
import sys

import pytest
from django.db import Error, connections, transaction
from tests.support import business
from tests.support.proving import DJANGO_ON_PSYCOPG2, lost
from tests.support.telemetry import restore

import sidelight
from sidelight import arg, emits
from sidelight.exceptions import TransactionError

pytestmark = pytest.mark.usefixtures("restored")

DRIVERS = {"sqlite3": "sqlite", "psycopg": "postgresql", "psycopg2": "postgresql"}
MODES = {
    "transaction": {"transaction": arg.alias},
    "after_commit": {"after_commit": arg.alias},
    "strict": {"transaction": arg.alias, "strict": True},
}
#: What the caller has done: nothing, begun a block, or ended autocommit mode.
BEFORE = ("nothing", "block", "manual", "manual and begun")
#: Steps of the function: "(" … is a block with an insert, which is undone or not.
WORKS = (
    "insert | close",
    "insert | driver's close",
    "insert | commit | close",
    "insert | rollback | close",
    "insert | close | insert",
    "insert | close | ( undone )",
    "insert | close | ( insert )",
    "insert | close | connect | insert",
    "close | insert",
    "close | ( insert )",
    "close | ( undone )",
    "close | manual | insert",
    "close | manual | insert | commit | automatic",
    "close | manual | insert | automatic",
    "manual | insert | close",
    "manual | insert | driver's close",
    "manual | insert | commit | close",
    "manual | insert | close | insert",
    "( insert ) | close",
    "( undone )",
    "( undone ) | close",
    "( undone ) | close | ( insert )",
    "( insert ) | close | ( undone )",
    "insert | manual | insert",
)
CASES = [
    case
    for case in itertools.product(MODES, BEFORE, WORKS, ("commit", "rollback"))
    # In a transaction of the caller the event follows that, whatever the function undoes.
    if case[1] == "nothing" or case[2] != "( undone )"
]


def insert(alias, name):
    with connections[alias].cursor() as cursor:
        cursor.execute(business.INSERT.format("%s"), (name,))


def step(alias, name, word):
    connection = connections[alias]
    match word:
        case "insert":
            insert(alias, name)
        case "( insert )" | "( undone )":
            with transaction.atomic(using=alias):
                insert(alias, name)
                if word == "( undone )":
                    transaction.set_rollback(True, using=alias)
        case "driver's close":
            connection.connection.close()
        case "manual" | "automatic":
            connection.set_autocommit(word == "automatic")
        case _:
            getattr(connection, word)()


def body(alias, name, work):
    for number, word in enumerate(work.split(" | ")):
        # A block refuses what would end it, and a connection that was closed in it.
        with contextlib.suppress(Error, transaction.TransactionManagementError):
            step(alias, f"{name}{number}", word)


def perform_one(alias, case, name):
    """Perform a case; return whether the call has raised."""
    mode, before, work, end = case
    order = emits("ordered", n=arg.name, **MODES[mode])(body)
    connection = connections[alias]
    block = transaction.atomic(using=alias) if before == "block" else contextlib.nullcontext()
    if before.startswith("manual"):
        connection.set_autocommit(False)
    if before == "manual and begun":
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    told = 0
    with contextlib.suppress(Error):
        with block:
            try:
                order(alias, name, work)
            except TransactionError:
                told = 1
        if not connection.get_autocommit():
            getattr(connection, end)()
    with contextlib.suppress(Error):
        connection.close()
    return told


def perform(url, *, full):
    """Perform the cases; return how many events each has counted, or the error that told it."""
    business_alias = business.django_database(url)
    losses = {}
    sidelight.flush(60)  # takes what other tests have lost
    for number in range(0, len(CASES), 1 if full else 23):
        before = lost()
        told = perform_one(business_alias, CASES[number], f"{number}|")
        losses[number] = lost() - before + told
    del connections.databases[business_alias]
    sidelight.flush(60)
    return losses


ON_PSYCOPG2 = """
import json
import sidelight
from tests.transactions.test_reconnected_below_django import perform

sidelight.configure(sys.argv[1], outboxes=[sys.argv[2]], otlp=False, deadline=1.0)
json.dump(perform(sys.argv[2], full=sys.argv[3] == "True"), sys.stdout)
"""


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_event_follows_the_work_over_a_new_connection(driver, tmp_path, full):
    url = business.DATABASES[DRIVERS[driver]](tmp_path)
    business.create_tables(url)
    store = f"sqlite:///{tmp_path / 'events.db'}"
    if driver == "psycopg2":
        restore()
        command = [sys.executable, "-c", DJANGO_ON_PSYCOPG2 + ON_PSYCOPG2, store, url, f"{full}"]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    else:
        sidelight.configure(store, outboxes=[url], otlp=False, deadline=1.0)
        found = perform(url, full=full)
    with sidelight.Store(store) as events:
        stored = [event.attributes["n"] for event in events.events()]
    committed = {name.partition("|")[0] for name in business.committed(url)}
    assert stored
    assert [
        (CASES[int(number)], events, losses)
        for number, losses in found.items()
        for events in [stored.count(f"{number}|")]
        for is_committed in [str(number) in committed]
        if (events, losses) != (is_committed, 0)
        # The caller is told of committed work without an event.
        if (CASES[int(number)][0], is_committed, events, losses) != ("strict", True, 0, 1)
    ] == []
