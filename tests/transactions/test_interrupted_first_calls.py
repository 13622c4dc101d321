"""The error of a signal handler arrives at each place of the first call with a connection.

The connection goes on to be used. Each of its later events is there if and only if its work is.
"""

import contextlib
import itertools
import os
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy.orm import Session
from tests.support import business, stepping
from tests.support.proving import MODES
from tests.transactions import test_proof as proof

import sidelight
from sidelight import arg, emits

pytestmark = [
    pytest.mark.usefixtures("restored"),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning"),  # of a session that is broken
    # The interrupt may strike the end of an object of an earlier call.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SAMPLED = 109  # by default each so many places
SOURCES = stepping.SOURCE, f"{Path(sqlalchemy.__file__).parent}{os.sep}"
KINDS = Session, sqlalchemy.Connection
DRIVERS = {"sqlite3": "sqlite", "psycopg": "postgresql+psycopg", "psycopg2": "postgresql+psycopg2"}


def _insert(target, name):
    target.execute(sqlalchemy.insert(business.Order).values(name=name))


@pytest.mark.one_in(2)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("driver", DRIVERS)
def test_later_events_are_right(driver, kind, mode, tmp_path, full):
    url = proof.created(tmp_path, proof.DRIVERS[driver][0])
    there = sqlalchemy.make_url(url).set(drivername=DRIVERS[driver])
    function = emits("ordered", n=arg.name, **MODES[mode])(_insert)
    places, cases = {}, list(itertools.product(DRIVERS, KINDS, MODES))
    first = cases.index((driver, kind, mode)) * SAMPLED // len(cases)
    for step in itertools.count() if full else itertools.count(first, SAMPLED):
        engine = sqlalchemy.create_engine(there)
        with Session(engine) if kind is Session else engine.connect() as target:
            target.execute(sqlalchemy.text("SELECT 1"))
            steps = stepping.Steps(step, SOURCES)
            with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError):
                steps.run(lambda target=target, step=step: function(target, f"first {step}"))
            target.rollback()
            for end in ("commit", "rollback"):
                function(target, f"{end} {step}")
                getattr(target, end)()
        engine.dispose()
        places[f"commit {step}"] = steps.place
        if steps.place is None:
            break
    rows = business.committed(url)
    assert rows == set(places)
    sidelight.flush(60)
    with sidelight.Store(f"sqlite:///{tmp_path / 'events.db'}") as store:
        stored = [event.attributes["n"] for event in store.events()]
    wrong = {name: places.get(name) for name in rows.symmetric_difference(stored)}
    assert wrong == {}
    assert len(stored) == len(rows)
