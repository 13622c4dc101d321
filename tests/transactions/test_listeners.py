"""A function that a listener of SQLAlchemy calls has its event if and only if it is committed.

The listener executes in the middle of what the application or SQLAlchemy does.
"""

import contextlib

import pytest
import sqlalchemy
from sqlalchemy import event
from sqlalchemy.orm import Session, sessionmaker
from tests.support import business
from tests.support.proving import MODES
from tests.transactions import test_proof as proof

import sidelight
from sidelight import arg, emits
from sidelight.emission.emitter import EMITTER
from sidelight.exceptions import TransactionError

pytestmark = pytest.mark.usefixtures("restored")

#: Events of engines, of sessions and of mapped classes.
OF_ENGINES = (
    *("begin", "savepoint", "rollback_savepoint", "release_savepoint"),
    *("before_cursor_execute", "after_cursor_execute"),
)
OF_SESSIONS = (
    "after_begin",
    "before_flush",
    "after_flush",
    "after_flush_postexec",
    "before_commit",
)
OF_CLASSES = ("before_insert", "after_insert")
ENDS = ("commit", "rollback", "close", "savepoints")


def _insert(target, name):
    target.execute(sqlalchemy.text("INSERT INTO orders (name) VALUES (:name)"), {"name": name})


class Listening:
    """Calls a function once for each event, and not for what the function does."""

    def __init__(self, order, case):
        self._order, self._case, self._is_inside = order, case, True
        self.number = 0

    @contextlib.contextmanager
    def during(self):
        self._is_inside = False
        yield
        self._is_inside = True

    def on_engine(self, connection, *arguments):
        if arguments[1:2] != ("BEGIN",):  # what precedes it is not part of the transaction
            self._call(connection)

    def on_session(self, session, *arguments):
        is_begun = len(arguments) == 2 and isinstance(arguments[1], sqlalchemy.Connection)
        self._call(arguments[1] if is_begun else session)

    def on_class(self, _, connection, target):
        self._call(connection)

    def _call(self, target):
        if not self._is_inside:
            self._is_inside = True
            self.number += 1
            self._order(target, f"{self._case}: {self.number}")
            self._is_inside = False


def _use(unit, case, end):
    """Do the work of an application."""
    is_session = isinstance(unit, Session)

    def work(name):
        if is_session:
            unit.add(business.Order(name=f"{case}| {name}"))
            unit.flush()
        else:
            unit.execute(sqlalchemy.text("SELECT 1"))

    work("first")
    if end == "savepoints":
        with unit.begin_nested() as savepoint:
            work("undone")
            savepoint.rollback()
        with unit.begin_nested():
            work("kept")
    getattr(unit, end, unit.commit)()


@pytest.mark.parametrize("driver", ["sqlite3", "psycopg"])
def test_its_event_is_there_if_its_row_is(driver, tmp_path, full):
    database, _ = proof.DRIVERS[driver]
    url = proof.created(tmp_path, database)
    engine = business.engine_on(url)
    business.begin_explicitly(engine)
    heard = set()
    every = [
        (name, mode, end)
        for number, name in enumerate((*OF_ENGINES, *OF_SESSIONS, *OF_CLASSES))
        for mode in (MODES if full else [[*MODES][number % 3]])
        for end in ENDS
    ]
    for name, mode, end in every:
        case = f"{name}, {mode}, {end}"
        sessions = sessionmaker(engine)
        order = emits("ordered", n=arg.name, **MODES[mode])(_insert)
        listening = Listening(order, case)
        if name in OF_ENGINES:
            target, listener = engine, listening.on_engine
        elif name in OF_SESSIONS:
            target, listener = sessions, listening.on_session
        else:
            target, listener = business.Order, listening.on_class
        for is_session in (True, False) if name in OF_ENGINES else (True,):
            # The application's own listeners may be the first ones.
            event.listen(target, name, listener, insert=True)
            with sessions() if is_session else engine.connect() as unit, listening.during():
                _use(unit, f"{case}, {is_session}", end)
            event.remove(target, name, listener)
        heard |= {name} if listening.number else set()
    engine.dispose()
    assert heard == {*OF_ENGINES, *OF_SESSIONS, *OF_CLASSES}
    assert not EMITTER.losses
    rows = {name for name in business.committed(url) if "|" not in name}
    sidelight.flush(20)
    with sidelight.Store(f"sqlite:///{tmp_path / 'events.db'}") as store:
        stored = {each.attributes["n"] for each in store.events()}
    assert stored == rows


@pytest.mark.parametrize("name", [*OF_ENGINES, "rollback"])
def test_the_first_function_of_an_engine_may_be_called_by_a_listener(name, tmp_path):
    """SQLAlchemy is in a loop over the listeners then, and another thread may be."""
    url = proof.created(tmp_path, "sqlite")
    for mode, join in MODES.items():
        engine = business.engine_on(url)
        business.begin_explicitly(engine)
        order = emits("ordered", n=arg.name, **join)(_insert)
        listening = Listening(order, f"{mode}, {name}")
        event.listen(engine, name, listening.on_engine)
        for end in ENDS:
            suppressed = contextlib.suppress(TransactionError)
            with engine.connect() as unit, listening.during(), suppressed:
                _use(unit, f"{mode}, {name}", end)
        assert listening.number > 0
        event.remove(engine, name, listening.on_engine)
        with engine.begin() as unit:
            order(unit, f"{mode}, {name}: the last")
        engine.dispose()
    rows = business.committed(url)
    assert {f"{mode}, {name}: the last" for mode in MODES} <= rows
    sidelight.flush(20)
    with sidelight.Store(f"sqlite:///{tmp_path / 'events.db'}") as store:
        assert {each.attributes["n"] for each in store.events()} == rows
