"""The function replaces the session or connection that its point names: it reconnects.

The event follows the transaction that has the work. Where nothing tells which one has it, the event
is counted, and a strict point raises.
"""

import asyncio
import inspect
import itertools

import psycopg
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from tests.support import business
from tests.support.proving import lost

import sidelight
from sidelight import arg, emits
from sidelight.emission import EMITTER
from sidelight.exceptions import TransactionError

pytestmark = pytest.mark.usefixtures("restored")

MODES = {
    "transaction": ("transaction", {}),
    "after_commit": ("after_commit", {}),
    "strict": ("transaction", {"strict": True}),
}


class Unit:
    """What a function works on, and what makes another one."""

    def __init__(self, make, scope=None):
        self.make = make
        self.scope = scope
        self.target = None
        self.old = []

    async def perform(self, word, name):
        match word:
            case "new":  # the old one stays as it is
                self.old.append(self.target)
                self.target = await awaited(self.make())
            case "removed":
                self.old.append(self.target)
                await awaited(self.scope.remove() if self.scope is not None else self.close())
                self.target = self.scope() if self.scope is not None else await self.renewed()
            case "none":
                self.old.append(self.target)
                self.target = None
            case "insert" | "pending":
                await self.insert(name, flush=word == "insert")
            case _:
                await awaited(getattr(self.target, word)())

    async def renewed(self):
        return await awaited(self.make())

    def close(self):
        return self.target.close()

    async def insert(self, name, *, flush):
        if isinstance(self.target, Session | AsyncSession):
            self.target.add(business.Order(name=name))
            if flush:
                await awaited(self.target.flush())
        elif isinstance(self.target, psycopg.Connection | psycopg.AsyncConnection):
            await awaited(self.target.execute(business.INSERT.format("%s"), (name,)))
        else:
            await awaited(self.target.execute(sqlalchemy.insert(business.Order).values(name=name)))


async def awaited(answer):
    return await answer if inspect.isawaitable(answer) else answer


def psycopg_of(url, _engine, _asynchronous):
    return lambda: psycopg.connect(url)


def async_psycopg_of(url, _engine, _asynchronous):
    return lambda: psycopg.AsyncConnection.connect(url)


def session_of(_url, engine, _asynchronous):
    return lambda: Session(engine)


def connection_of(_url, engine, _asynchronous):
    return engine.connect


def async_session_of(_url, _engine, asynchronous):
    return lambda: AsyncSession(asynchronous)


def async_connection_of(_url, _engine, asynchronous):
    return asynchronous.connect


def scoped_of(_url, engine, _asynchronous):
    return scoped_session(sessionmaker(engine))


def async_scoped_of(_url, _engine, asynchronous):
    return async_scoped_session(async_sessionmaker(asynchronous), asyncio.current_task)


KINDS = (
    psycopg_of,
    async_psycopg_of,
    session_of,
    connection_of,
    async_session_of,
    async_connection_of,
    scoped_of,
    async_scoped_of,
)
SCOPES = (scoped_of, async_scoped_of)
#: Steps of the function, and whether the event follows the transaction that is open then. Else
#: nothing tells which one has the work.
WORKS = {
    "insert": True,
    "pending": True,
    "removed | insert": True,
    "removed | pending": True,
    "new | insert": True,
    "insert | removed | insert": True,
    "pending | removed | pending": True,
    "insert | rollback | new | insert": True,
    "insert | commit | removed | insert": True,  # a part is committed
    "insert | none": True,
    "insert | commit | none": True,
    "insert | close | none": True,
    "insert | commit | removed": True,
    "insert | new | insert": False,
    "insert | new": False,
    "pending | new | pending": False,
    "removed | insert | commit": False,
    "insert | removed": False,
    "insert | removed | insert | rollback": False,
}
#: How the point names the target: an attribute, a callable, or the registry by itself or by an
#: attribute.
NAMES = {
    "attribute": arg.unit.target,
    "callable": lambda unit: unit.target,
    "item": arg.unit.__dict__["target"],
}
ENDS = ("commit", "rollback")
CASES = [
    case
    for case in itertools.product(MODES, KINDS, WORKS, (True, False), NAMES, ENDS)
    if case[1] not in SCOPES or not {"none", "new"} & set(case[2].split(" | "))
    if "pending" not in case[2] or "session" in case[1].__name__ or case[1] in SCOPES
]


async def perform(resources, case, name):
    mode, kind, work, is_begun, named, end = case
    made = kind(*resources)
    is_scope = kind in SCOPES
    unit = Unit(made, made if is_scope else None)
    unit.target = await awaited(made())

    async def body(unit, name):
        for number, word in enumerate(work.split(" | ")):
            await unit.perform(word, f"{name}{number}")

    def body_now(unit, name):
        with pytest.raises(StopIteration):
            body(unit, name).send(None)

    join, options = MODES[mode]
    asynchronous = kind.__name__.startswith("async")
    target = NAMES[named]
    if is_scope:
        target = {"attribute": made, "callable": lambda: made, "item": arg.unit.scope}[named]
    order = emits("ordered", n=arg.name, **{join: target}, **options)(
        body if asynchronous else body_now
    )
    if is_begun:
        await awaited(
            unit.target.execute(
                sqlalchemy.text("SELECT 1") if "psycopg" not in kind.__name__ else "SELECT 1"
            )
        )
    told = 0
    try:
        await awaited(order(unit, name))
    except TransactionError:
        told = 1
    left = [each for each in (unit.target, *unit.old) if each is not None]
    for each in left[:1] if told == 0 else []:
        if not getattr(each, "closed", False):
            await awaited(getattr(each, end)())
    for each in left:
        await awaited(each.close())
    if is_scope:
        await awaited(made.remove())
    return told


def wrong(case, rows, events, counted):
    """Return whether what has come of a case is none of what may come of it."""
    mode, _, work, *_ = case
    if WORKS[work]:
        is_told = mode == "strict" and counted
        return (events, counted) != (int(rows > 0), 0) and not is_told
    return (events, counted) != (0, 1)


def test_the_event_follows_what_has_the_work(tmp_path, full):
    url = business.DATABASES["postgresql"](tmp_path)
    business.create_tables(url)
    sidelight.configure(
        f"sqlite:///{tmp_path / 'events.db'}", outboxes=[url], otlp=False, deadline=1.0
    )
    engine = business.engine_on(url, poolclass=sqlalchemy.NullPool)
    asynchronous = business.async_engine_on(url, poolclass=sqlalchemy.NullPool)
    found = {}
    sidelight.flush(60)  # takes what other tests have lost
    with asyncio.Runner() as runner:
        for number in range(0, len(CASES), 1 if full else 47):
            before = lost()
            case = CASES[number]
            told = runner.run(perform((url, engine, asynchronous), case, f"{number}|"))
            found[number] = lost() - before + told
        runner.run(asynchronous.dispose())
    engine.dispose()
    assert "not recorded" not in EMITTER.losses
    sidelight.flush(60)
    with sidelight.Store(f"sqlite:///{tmp_path / 'events.db'}") as store:
        stored = [event.attributes["n"] for event in store.events()]
    rows = [name.partition("|")[0] for name in business.committed(url)]
    assert [
        (CASES[number], rows.count(str(number)), stored.count(f"{number}|"), counted)
        for number, counted in found.items()
        if wrong(CASES[number], rows.count(str(number)), stored.count(f"{number}|"), counted)
    ] == []
