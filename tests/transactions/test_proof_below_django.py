"""A generated list: statement forms by settings by ways out, on each database of Django.

Each case orders, performs a form, and leaves its transaction on one of the ways. There is an event
for each order that another connection finds, or the case has counted a loss; and there is no event
for any other order.
"""

import contextlib
import functools
import itertools
import json
import subprocess
import sys

import psycopg
import pytest
from django.db import Error, connections, models, transaction
from tests.support import business
from tests.support.pairs import each_nth
from tests.support.proving import DJANGO_ON_PSYCOPG2, lost, told
from tests.support.telemetry import restore
from tests.transactions import test_proof as proof

import sidelight
from sidelight import arg, emits
from sidelight.exceptions import TransactionError

pytestmark = pytest.mark.usefixtures("restored")

#: Steps of `Stepping`, separated by bars.
FORMS = (
    "SELECT 1",
    "( | order | ]",
    "( | order | )",
    "(joined | order | ]",
    "(joined | order | )",
    "(durable | order | ]",
    "(durable | order | )",
    "savepoint | order | savepoint_commit",
    "savepoint | order | savepoint_rollback",
    "SAVEPOINT a | order | ROLLBACK TO a",
    "SAVEPOINT a | order | RELEASE a",
    "COMMIT",
    "/* why */ ROLLBACK",
    "COMMIT | BEGIN",
    "ROLLBACK | BEGIN",
    "COMMIT | order",
    "ROLLBACK | order",
    "set_rollback",
    "( | order | set_rollback | ]",
    "commit",
    "rollback",
    "manual",
    "automatic",
    "on_commit raises",
    "on_commit raises robustly",
    proof.FAILS,
    proof.FAILS + " | unset_rollback",
    "( | " + proof.FAILS + " | )",
    proof.DEFERRED,
)
WAYS_OUT = (
    "]",
    ")",
    "order | ]",
    "order | )",
    "close | ]",
    "order | close | ]",
    "close | order",
    "break | ]",
    "order | break | ]",
    "order | commit",
    "order | rollback",
    "commit | order | rollback",
    "commit | order | rollback | automatic",
    "commit | automatic | order",
    "order | COMMIT | ]",
    "order | ROLLBACK | ]",
    "] | ( | order | ]",
    ") | ( | order | ]",
    "( | order | ] | rollback",
    "( | order | ] | commit | ( | order | ] | rollback",
)
FIRST = ("order", "save", "savepoint | order | savepoint_rollback", "( | order | ] | order")
OPENED = ("", "( | ", "manual | ", "manual | ( | ")
SETTINGS = {
    "defaults": {},
    "no autocommit": {"AUTOCOMMIT": False},
    "kept": {"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True},
}
SERIALIZABLE = {"serializable": {"OPTIONS": {"isolation_level": 4}}}
BINDING = {"bound by the server": {"OPTIONS": {"server_side_binding": True}}}
IMMEDIATE = {"immediate": {"OPTIONS": {"transaction_mode": "IMMEDIATE"}}}
DRIVERS = {
    "psycopg": ("postgresql", SETTINGS | SERIALIZABLE | BINDING),
    "psycopg2": ("postgresql", SETTINGS | SERIALIZABLE),
    "sqlite3": ("sqlite", SETTINGS | IMMEDIATE),
}
SAMPLED = 1021  # prime, so that each pair of values has its turn


def cases(driver, *, full):
    """Yield setting and steps of each case; of a driver's cases each 509th by default."""
    every = itertools.product(DRIVERS[driver][1], OPENED, FIRST, FORMS, WAYS_OUT)
    for setting, opened, first, form, way_out in each_nth(
        every, SAMPLED, driver, DRIVERS, full=full
    ):
        yield setting, f"{opened}{first} | {form} | {way_out}"


@functools.cache
def order_model():
    """The orders as a model of Django, which must be configured."""

    class Order(models.Model):
        name = models.TextField(unique=True)

        class Meta:
            app_label = "proof"
            db_table = "orders"

    return Order


def _insert(alias, name):
    with connections[alias].cursor() as cursor:
        cursor.execute("INSERT INTO orders (name) VALUES (%s)", [name])


def _save(alias, name):
    order_model()(name=name).save(using=alias)


def _raise():
    raise RuntimeError


class Stepping:
    """Performs steps on a database of Django."""

    def __init__(self, alias, name):
        self._alias = alias
        self._name = name
        self._blocks = []
        self._savepoints = []

    def step(self, step):
        alias = self._alias
        if step in {"order", "save"}:
            self._name += "."
            for join in business.JOINS:
                self._order(_insert if step == "order" else _save, join)
        elif step[0] == "(":
            options = {"savepoint": step != "(joined", "durable": step == "(durable"}
            block = transaction.atomic(using=alias, **options)
            block.__enter__()
            self._blocks.append(block)
        elif step == "]":
            self._blocks.pop().__exit__(None, None, None)
        elif step == ")":
            self._blocks.pop().__exit__(KeyError, KeyError(), None)
        elif step == "savepoint":
            self._savepoints.append(transaction.savepoint(using=alias))
        elif step.startswith("savepoint_"):
            getattr(transaction, step)(self._savepoints.pop(), using=alias)
        elif step in {"commit", "rollback"}:
            getattr(transaction, step)(using=alias)
        elif step in {"manual", "automatic"}:
            transaction.set_autocommit(step == "automatic", using=alias)
        elif step in {"set_rollback", "unset_rollback"}:
            transaction.set_rollback(step == "set_rollback", using=alias)
        elif step.startswith("on_commit"):
            transaction.on_commit(_raise, using=alias, robust=step.endswith("robustly"))
        elif step == "close":
            connections[alias].close()
        elif step == "break":
            self._break()
        else:
            with connections[alias].cursor() as cursor:
                cursor.execute(step)

    def _order(self, insert, join):
        done = []

        def order(target, name):
            insert(target, name)
            done.append(name)

        emitting = emits("ordered", n=arg.name, **{join: arg.target})(order)
        try:
            emitting(self._alias, f"{self._name} {join}")
        except TransactionError:
            raise
        except Exception as error:
            assert not done, f"{self._name}: the event has raised {error!r}"
            raise

    def _break(self):
        raw = connections[self._alias].connection
        if raw is None or connections[self._alias].vendor == "sqlite":
            return
        with psycopg.connect(self.url, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", [raw.info.backend_pid])

    url = ""

    def end(self):
        """Leave what is open by an error, as the end of a request does."""
        while self._blocks:
            with contextlib.suppress(Error):
                self.step(")")
        connections[self._alias].close()
        del connections[self._alias]


#: A step that does not fit the one before it is refused; a savepoint may not be there.
REFUSED = (Error, transaction.TransactionManagementError, RuntimeError, IndexError)


def perform(driver, url, *, full):
    """Perform the cases of a driver; the events that each has counted as lost."""
    Stepping.url = url
    aliases = {
        name: business.django_database(url, **options)
        for name, options in DRIVERS[driver][1].items()
    }
    losses = {}
    sidelight.flush(60)  # takes what other tests have lost
    for number, (setting, steps) in enumerate(cases(driver, full=full)):
        before = lost()
        case = f"{number}: {setting}: {steps.replace('|', '-')}"
        stepping = Stepping(aliases[setting], f"{case}|")
        for step in steps.split(" | "):
            with contextlib.suppress(*REFUSED, TransactionError):
                stepping.step(step)
        stepping.end()
        losses[case] = lost() - before
    for alias in aliases.values():
        del connections.databases[alias]
    assert sidelight.flush(60) is not any(losses.values()), "a flush tells of losses"
    return losses


ON_PSYCOPG2 = """
import json
import sidelight
from tests.transactions.test_proof_below_django import perform

sidelight.configure(sys.argv[1], outboxes=[sys.argv[2]], otlp=False, deadline=1.0)
json.dump(perform("psycopg2", sys.argv[2], full=sys.argv[3] == "True"), sys.stdout)
"""


@pytest.mark.parametrize("driver", DRIVERS)
def test_each_way_out_has_its_events_or_counts_them(driver, tmp_path, full):
    url = proof.created(tmp_path, DRIVERS[driver][0])
    store = f"sqlite:///{tmp_path / 'events.db'}"
    if driver == "psycopg2":
        restore()
        command = [sys.executable, "-c", DJANGO_ON_PSYCOPG2 + ON_PSYCOPG2, store, url, f"{full}"]
        losses = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    else:
        losses = perform(driver, url, full=full)
    with sidelight.Store(store) as events:
        stored = [event.attributes["n"] for event in events.events()]
    assert len(set(stored)) == len(stored) > 0
    assert told(business.committed(url), set(stored), losses) == ([], [])
