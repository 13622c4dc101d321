"""A connection that SQLAlchemy's pool has let go of (`detach`) has its transactions as before."""

import itertools

import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session
from tests.support import business
from tests.support.pairs import each_nth
from tests.transactions import test_proof as proof

from sidelight.emission.emitter import EMITTER

pytestmark = pytest.mark.usefixtures("restored")

FORMS = (
    "detach | order",
    "order | detach",
    "order | commit | detach | order",
    "order | detach | commit | order",
    "detach | order | ( | order | ] | ( | order | )",
)
WAYS_OUT = ("commit", "rollback", "close", "commit | order | rollback", "rollback | order | commit")


def detach(unit):
    """Detach the connection; answers the driver's."""
    if isinstance(unit.target, Session | AsyncSession):
        connection = unit.run(unit.target.connection())
    else:
        connection = unit.target
    if isinstance(connection, AsyncConnection):
        connection = connection.sync_connection
    connection.detach()
    return connection.dialect.get_driver_connection(connection.connection.dbapi_connection)


@pytest.mark.parametrize("driver", proof.DRIVERS)
def test_the_events_are_those_of_the_committed_rows(driver, tmp_path, full):
    database, asynchronous = proof.DRIVERS[driver]
    url = there = proof.created(tmp_path, database)
    if driver == "psycopg2":
        there = url.replace("://", "+psycopg2://")
    every = itertools.product(FORMS, WAYS_OUT, proof.ORDERS)
    cases = each_nth(every, 4, driver, proof.DRIVERS, full=full)
    for number, (form, way_out, kind) in enumerate(cases):
        steps = f"{form} | {way_out}"
        with proof.opened(there, asynchronous, "session" in kind) as unit:
            stepping = proof.Stepping(unit, proof.ORDERS[kind], f"{number}: {kind}: {steps}")
            for step in steps.split(" | "):
                if step == "detach":
                    detached = detach(unit)
                else:
                    stepping.step(step)
            if driver == "async psycopg":  # SQLAlchemy leaves it open
                unit.close()
                unit.run(detached.close())
    assert not EMITTER.losses
    assert proof.check_events(url, tmp_path) == set()


@pytest.mark.parametrize("prepared", [True, False])
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_a_commit_in_two_phases(driver, prepared, tmp_path):
    url = proof.created(tmp_path, "postgresql")
    engine = sqlalchemy.create_engine(url.replace("://", f"+{driver}://"))
    for way in ("commit", "rollback", "close"):
        with engine.connect() as connection:
            transaction = connection.begin_twophase()
            orders = proof.Stepping(business.Unit(connection), proof.ORDERS["connection"], way)
            orders.step("order")
            if prepared:
                transaction.prepare()
            connection.detach()
            getattr(connection if way == "close" else transaction, way)()
    engine.dispose()
    assert not EMITTER.losses
    assert proof.check_events(url, tmp_path) == set()
