"""The error of a signal handler arrives at each place of the first look at a connection.

The caller handles it and goes on with the connection. Each later event is there if and only if its
work is committed, and none is counted.
"""

import asyncio
import contextlib
import itertools

import psycopg
import pytest
from django.db import connections, transaction
from tests.support import business, stepping
from tests.support.proving import lost
from tests.support.stepping import TimeLimit
from tests.support.telemetry import restore
from tests.transactions.test_undone_in_a_savepoint import settled

import sidelight
from sidelight import arg, emits
from sidelight.transactions.registry import transaction_of

SAMPLED = 2  # by default each so many places
INSERT = "INSERT INTO orders (name) VALUES (%s)"


class OnPsycopg:
    kind = psycopg.Connection

    async def open(self, url):
        self.target = await settled(self.kind.connect(url))

    @staticmethod
    def insert(target, name):
        target.execute(INSERT, (name,))

    async def end(self, how):
        await settled(getattr(self.target, how)())

    async def close(self):
        await settled(self.target.close())


class OnPsycopgAwaited(OnPsycopg):
    kind = psycopg.AsyncConnection

    @staticmethod
    async def insert(target, name):
        await target.execute(INSERT, (name,))


class OnDjango:
    async def open(self, url):
        self.target = business.django_database(url)
        connections[self.target].set_autocommit(False)

    @staticmethod
    def insert(target, name):
        with connections[target].cursor() as cursor:
            cursor.execute(INSERT, [name])

    async def end(self, how):
        getattr(transaction, how)(using=self.target)

    async def close(self):
        connections[self.target].close()
        del connections.databases[self.target]


class OnDjangoAgain(OnDjango):
    """Django has had another connection before."""

    async def open(self, url):
        await super().open(url)
        transaction_of(self.target)
        for how in ("commit", "rollback"):
            self.insert(self.target, f"before {how} {self.target}")
            await self.end(how)
        connections[self.target].close()
        connections[self.target].set_autocommit(False)


KINDS = {
    "psycopg": (OnPsycopg, "postgresql"),
    "psycopg, awaited": (OnPsycopgAwaited, "postgresql"),
    "Django on psycopg": (OnDjango, "postgresql"),
    "Django on psycopg, again": (OnDjangoAgain, "postgresql"),
    "Django on sqlite3": (OnDjango, "sqlite"),
}


@pytest.mark.parametrize("name", KINDS)
def test_each_later_event_follows_the_commit(name, interrupt, databases, tmp_path, full):
    kind, database = KINDS[name]
    url, store = databases[database], f"sqlite:///{tmp_path / 'events.db'}"
    sidelight.configure(store, outboxes=[url], otlp=False, deadline=1.0)
    order = {
        mode: emits("ordered", n=arg.name, **{mode: arg.target})(kind.insert)
        for mode in ("transaction", "after_commit")
    }

    async def perform(case, place):
        application = kind()
        await application.open(url)
        steps = stepping.Steps(place, (stepping.SOURCE,), interrupt)
        with contextlib.suppress(TimeLimit):
            steps.run(lambda: transaction_of(application.target))
        for number, how in enumerate(["commit", "rollback", "commit"]):
            for mode, function in order.items():
                await settled(function(application.target, name=f"{case} {mode} {number}"))
                await application.end(how)
        assert _wrappers(application.target) < 2, steps.place
        await application.close()
        return steps.place

    sidelight.flush(60)
    before, places = lost(), {}
    with asyncio.Runner() as runner:
        run = runner.run if kind is OnPsycopgAwaited else _run
        for place in itertools.count(0, 1 if full else SAMPLED):
            case = f"{name} {place}"
            places[case] = run(perform(case, place))
            if places[case] is None:
                break
    sidelight.flush(60)
    with sidelight.Store(store) as events:
        stored = sorted(event.attributes["n"] for event in events.events())
    restore()
    assert stored == sorted(each for each in business.committed(url) if each.startswith(f"{name} "))
    assert lost() == before
    assert len(places) > 3


def _run(coroutine):
    """Run a coroutine that awaits nothing, without an event loop, which Django refuses."""
    try:
        coroutine.send(None)
    except StopIteration as answered:
        return answered.value


def _wrappers(target):
    return len(connections[target].execute_wrappers) if isinstance(target, str) else 0
