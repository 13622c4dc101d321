"""Several points in one session: the error of a strict one takes no event of the others along.

An event that waits for the flush of its objects is taken in within the commit. In autocommit
mode it cannot join there, so that a strict one raises, after the flush has committed all rows.
"""

import itertools

import pytest
import sqlalchemy
from sqlalchemy.orm import Session
from tests.support import business
from tests.support.drivers import running
from tests.support.pairs import each_nth
from tests.support.proving import MODES, lost
from tests.transactions import test_proof as proof

import sidelight
from sidelight import arg, emits
from sidelight.exceptions import TransactionError

pytestmark = pytest.mark.usefixtures("restored")

DRIVERS = [name for name in proof.DRIVERS if not proof.DRIVERS[name][1]]
CASES = list(
    itertools.product(
        (None, "AUTOCOMMIT"),
        MODES,  # of the first call
        MODES,  # of the second one
        ("before", "nested", "after"),  # where the second one is called
        (False, True),  # whether the first one has also executed a statement
    )
)


def perform(engine, case, name):
    """Call two points in one session and commit; return whether a strict one has raised."""
    isolation, first, second, where, executes = case
    if isolation:
        engine = engine.execution_options(isolation_level=isolation)

    def add(target, name):
        target.add(business.Order(name=name))

    def work(target, name):
        if executes:
            target.execute(sqlalchemy.insert(business.Order).values(name=f"{name}executed"))
        add(target, f"{name}first")
        if where == "nested":
            place_second(target, f"{name}second")

    place_second = emits("ordered", n=arg.name, **MODES[second])(add)
    place_first = emits("ordered", n=arg.name, **MODES[first])(work)
    calls = [lambda session: place_first(session, name)]
    if where != "nested":
        calls.append(lambda session: place_second(session, f"{name}second"))
    if where == "before":
        calls.reverse()
    with Session(engine) as session:
        try:
            for call in calls:
                call(session)
            session.commit()
        except TransactionError:
            return True
    return False


@pytest.mark.parametrize("driver", DRIVERS)
def test_each_event_is_there_or_counted(driver, tmp_path, full):
    url = proof.created(tmp_path, proof.DRIVERS[driver][0])
    found = []
    sidelight.flush(60)  # takes what other tests have lost
    with running(url, driver, None, explicitly=False) as run:
        for number, case in enumerate(each_nth(CASES, 5, driver, DRIVERS, full=full)):
            before = lost()

            def call(engine, number=number, case=case):
                found.append(perform(engine, case, f"{number}|"))

            run(call)
            found[-1] = case, found[-1], lost() - before
    sidelight.flush(60)
    with sidelight.Store(f"sqlite:///{tmp_path / 'events.db'}") as store:
        stored = [event.attributes["n"] for event in store.events()]
    committed = business.committed(url)
    wrong = []
    for number, (case, is_told, losses) in enumerate(found):
        rows = {row for row in committed if row.startswith(f"{number}|")}
        rows_of = {f"{number}|": f"{number}|first", f"{number}|second": f"{number}|second"}
        owed = sorted(name for name, row in rows_of.items() if row in rows)
        events = sorted(name for name in stored if name in rows_of)
        is_right = {*events} <= {*owed} and len(owed) == len(events) + losses + is_told
        if not is_right:
            wrong.append((case, rows, events, losses, is_told))
    assert wrong == []
