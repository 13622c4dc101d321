"""The function closes the connection of psycopg that it was given: the server undoes what is open.

There is an event if any row of the call is committed, and none if no row is. Nothing is counted.
"""

import asyncio
import contextlib
import inspect
import itertools

import psycopg
import pytest
from tests.support import business
from tests.support.proving import MODES, lost

import sidelight
from sidelight import arg, emits
from sidelight.exceptions import TransactionError

pytestmark = pytest.mark.usefixtures("restored")

#: Steps of the function: "(" and ")" are a transaction of psycopg, "<" and ">" `with connection`,
#: "{" and "}" a pipeline, "[" and "]" a COPY.
WORKS = (
    "insert | close",
    "insert | closing",
    "insert | finish",
    "close",
    "( | insert | close | )",
    "( | insert | ) | close",
    "( | ( | insert | ) | close | )",
    "( | insert | ) | ( | insert | close | )",
    "< | insert | close | >",
    "< | insert | >",
    "BEGIN | insert | close",
    "BEGIN | insert | COMMIT | close",
    "BEGIN | insert | finish | COMMIT",
    "insert | commit | close",
    "insert | rollback | close",
    "insert | commit | insert | close",
    "insert | ROLLBACK",
    "( | insert | rollback | )",
    "BEGIN | insert | rollback",
    "insert | BEGIN | insert | ROLLBACK | close",
    "insert | SELECT 1/0",
    "insert | BEGIN | insert",
    "insert | BEGIN | SELECT 1/0 | ROLLBACK",
    "SELECT 1 | BEGIN | insert | ROLLBACK",
    "INSERT INTO orders VALUES (1/0) | rollback",
    "insert | close | insert",
    "insert | close | commit",
    "insert | SELECT 1/0 | close",
    "{ | insert | close | }",
    "{ | BEGIN | insert | close | }",
    "{ | insert | finish | }",
    "insert | { | SELECT 1 | close | }",
    "[ | close | ]",
)
OPENED = {
    "(": lambda connection: connection.transaction(),
    "<": lambda connection: connection,
    "{": lambda connection: connection.pipeline(),
    "[": lambda connection: connection.cursor().copy("COPY orders (name) FROM STDIN"),
}
#: What the caller has done before: nothing, begun a transaction, or called a function in one.
BEFORE = ("nothing", "begun", "ordered")
CASES = [
    *itertools.product(MODES, (*WORKS, "close"), (False, True), BEFORE, (False, True)),
]
CASES = [case for case in CASES if (case[1], case[3]) != ("close", "nothing")]


def step_of(connection, name, word, entered):
    """Return what performs a step of the function."""
    match word:
        case "insert":
            return lambda: connection.execute(business.INSERT.format("%s"), (name,))
        case "closing" | "close":
            return connection.close
        case "finish":
            return connection.pgconn.finish
        case "commit" | "rollback":
            return getattr(connection, word)
        case "(" | "<" | "{" | "[":
            entered.append(OPENED[word](connection))
            return getattr(entered[-1], "__aenter__", None) or entered[-1].__enter__
        case ")" | ">" | "}" | "]":
            left = entered.pop()
            leave = getattr(left, "__aexit__", None) or left.__exit__
            return lambda: leave(None, None, None)
        case _:
            return lambda: connection.execute(word)


async def body_awaited(target, name, work):
    entered = []
    for number, word in enumerate(work.split(" | ")):
        with contextlib.suppress(psycopg.Error):
            answer = step_of(target, f"{name}{number}", word, entered)()
            if inspect.isawaitable(answer):
                await answer


def body(target, name, work):
    with contextlib.suppress(StopIteration):
        body_awaited(target, name, work).send(None)  # it awaits nothing


async def perform(url, case, number):
    """Perform a case; return how many of its calls have raised."""
    mode, work, autocommit, before, asynchronous = case
    order = emits("ordered", n=arg.name, **MODES[mode])(body_awaited if asynchronous else body)
    kind = psycopg.AsyncConnection if asynchronous else psycopg.Connection
    told = 0

    async def perform(call, *arguments):
        nonlocal told
        try:
            answer = call(*arguments)
            if inspect.isawaitable(answer):
                return await answer
        except TransactionError:
            told += 1
        else:
            return answer

    connection = await perform(lambda: kind.connect(url, autocommit=autocommit))
    try:
        if before != "nothing":
            await perform(connection.execute, "BEGIN" if autocommit else "SELECT 1")
        if before == "ordered":
            await perform(order, connection, f"{number}b|", "insert")
        await perform(order, connection, f"{number}|", work)
    finally:
        await perform(connection.close)
    return told


def allowed(case, *, is_committed):
    """Return what may come of a case: how many events, and how many that are counted or raised."""
    mode, work, autocommit, before, _ = case
    counted = {(0, 1)}
    if mode == "strict" and (is_committed or work == "insert | SELECT 1/0"):
        return {(int(is_committed), 0), *counted}
    if autocommit and before == "nothing" and "{" in work and "BEGIN" not in work:
        return counted  # the pipeline is a transaction of its own
    return {(int(is_committed), 0)}


def test_what_a_function_leaves_open_where_it_closes_its_connection_has_no_event(tmp_path, full):
    url = business.DATABASES["postgresql"](tmp_path)
    business.create_tables(url)
    sidelight.configure(
        f"sqlite:///{tmp_path / 'events.db'}", outboxes=[url], otlp=False, deadline=1.0
    )
    losses, told = {}, {}
    sidelight.flush(60)  # takes what other tests have lost
    for number in range(0, len(CASES), 1 if full else 29):
        before = lost()
        told[number] = asyncio.run(perform(url, CASES[number], number))
        losses[number] = lost() - before
    sidelight.flush(60)
    with sidelight.Store(f"sqlite:///{tmp_path / 'events.db'}") as store:
        stored = [event.attributes["n"] for event in store.events()]
    committed = {name.partition("|")[0] for name in business.committed(url)}
    assert [
        (CASES[number], found)
        for number in losses
        for found in [(stored.count(f"{number}|"), losses[number] + told[number])]
        if found not in allowed(CASES[number], is_committed=str(number) in committed)
    ] == []
    assert [name for name in stored if name.endswith("b|") and name[:-1] not in committed] == []
