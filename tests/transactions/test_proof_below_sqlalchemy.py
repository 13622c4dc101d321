"""A generated list: statement forms by settings by ways out, on each driver below SQLAlchemy.

Each case orders, executes a form, and leaves its transaction on one of the ways. There is an event
for each order that another connection finds, or the case has counted a loss; and there is no event
for any other order.
"""

import asyncio
import contextlib
import itertools
import sys

import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool
from tests.support import business
from tests.support.pairs import each_nth
from tests.support.proving import lost, told
from tests.transactions import test_proof as proof

import sidelight

pytestmark = pytest.mark.usefixtures("restored")

#: Steps of `proof.Stepping`, separated by bars.
FORMS = (
    "SELECT 1",
    "COMMIT",
    "End ;",
    "COMMIT AND CHAIN",
    "/* why */ ROLLBACK",
    "ROLLBACK AND CHAIN",
    "SELECT 1; ROLLBACK",
    "SELECT 1; COMMIT",
    "ROLLBACK; BEGIN; SELECT 1",
    "COMMIT; BEGIN; SELECT 1",
    "BEGIN",
    "COMMIT | BEGIN",
    "ROLLBACK | BEGIN",
    "SAVEPOINT a | order | ROLLBACK TO a",
    "SAVEPOINT a | order | RELEASE a",
    "SAVEPOINT a; ROLLBACK TO a",
    "( | order | )",
    "( | order | ]",
    proof.FAILS,
    proof.DEFERRED,
    "commit",
    "rollback",
)
WAYS_OUT = (
    "commit",
    "rollback",
    "close",
    "order | commit",
    "order | rollback",
    "order | close",
    "order | COMMIT",
    "order | ROLLBACK",
    "SELECT 2 | COMMIT | order | rollback",
    "order | COMMIT | order | rollback | order | commit",
    "order | commit | COMMIT | order | commit",
)
FIRST = ("order", "( | order | ] | order", "SAVEPOINT b | order | RELEASE b")
POSTGRESQL = {
    "defaults": {},
    "serializable": {"isolation_level": "SERIALIZABLE"},
    "autocommit": {"isolation_level": "AUTOCOMMIT"},
    "autocommit, begun in SQL": {"isolation_level": "AUTOCOMMIT", "first": "BEGIN"},
    "autocommit of one transaction": {"later": {"isolation_level": "AUTOCOMMIT"}},
}
#: Asynchronous connections have them by `stream()` only, which no statement of this list needs.
CURSORS = {"server-side cursors": {"later": {"stream_results": True}}}
SQLITE = {
    "begun by SQLAlchemy": {"explicitly": True},
    "begun by sqlite3": {},
    "autocommit": {"isolation_level": "AUTOCOMMIT"},
    "autocommit, begun in SQL": {"isolation_level": "AUTOCOMMIT", "first": "BEGIN"},
}
if sys.version_info >= (3, 12):
    SQLITE |= {
        f"sqlite3's autocommit is {value}": {"connect_args": {"autocommit": value}}
        for value in (False, True)
    }
PREPARING = {
    f"prepare_threshold={number}": {"connect_args": {"prepare_threshold": number}}
    for number in (0, None)
}
SETTINGS = {
    "psycopg": POSTGRESQL | CURSORS | PREPARING,
    "psycopg2": POSTGRESQL | CURSORS,
    "async psycopg": POSTGRESQL | PREPARING,
    "asyncpg": POSTGRESQL
    | {"nothing cached": {"connect_args": {"prepared_statement_cache_size": 0}}},
    "sqlite3": SQLITE,
    "aiosqlite": SQLITE,
}
SAMPLED = 613  # prime, so that each pair of values has its turn


def cases(driver, *, full):
    """Yield setting, steps and kind of each case; of a driver's cases each 307th by default."""
    every = itertools.product(SETTINGS[driver], FIRST, FORMS, WAYS_OUT, proof.ORDERS)
    for setting, first, form, way_out, kind in each_nth(
        every, SAMPLED, driver, SETTINGS, full=full
    ):
        yield setting, f"{first} | {form} | {way_out}", kind


class Engines:
    """The engines of one database, one for each setting."""

    def __init__(self, url, asynchronous, run):
        self._url = url
        self._asynchronous = asynchronous
        self._run = run
        self._engines = {}

    def _engine(self, options):
        options = dict(options)
        key = repr(options)
        if key not in self._engines:
            explicitly = options.pop("explicitly", False)
            if self._asynchronous:
                engine = business.async_engine_on(
                    self._url, self._asynchronous, poolclass=NullPool, **options
                )
            else:
                engine = business.engine_on(self._url, poolclass=NullPool, **options)
            sync = engine.sync_engine if self._asynchronous else engine
            if explicitly:
                business.begin_explicitly(sync)
            if sync.dialect.name == "sqlite":
                sqlalchemy.event.listen(
                    sync, "connect", lambda raw, _: raw.execute("PRAGMA foreign_keys = ON")
                )
            self._engines[key] = engine
        return self._engines[key]

    @contextlib.contextmanager
    def opened(self, kind, *, first=None, later=None, **options):
        """A connection or session on an engine that is set so."""
        engine, is_session = self._engine(options), "session" in kind
        make = (AsyncSession if self._asynchronous else Session) if is_session else None
        target = make(engine) if make else engine.connect()
        if self._asynchronous and not is_session:
            self._run(target.start())
        unit = business.Unit(target, self._run)
        try:
            if later and is_session:
                self._run(target.connection(execution_options=later))
            elif later:
                self._run(target.execution_options(**later))
            if first:
                unit.execute(first)
            yield unit
        finally:
            self._run(target.close())


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")  # of a session that is broken
@pytest.mark.filterwarnings("ignore:.+ServerCursor.+ still open:ResourceWarning")  # the same
@pytest.mark.parametrize("driver", SETTINGS)
def test_each_way_out_has_its_events_or_counts_them(driver, tmp_path, full):
    database, asynchronous = proof.DRIVERS[driver]
    url = there = proof.created(tmp_path, database)
    if driver == "psycopg2":
        there = url.replace("://", "+psycopg2://")
    losses = {}
    sidelight.flush(60)  # takes what other tests have lost
    with asyncio.Runner() as runner:
        run = (lambda value: runner.run(proof._settled(value))) if asynchronous else lambda v: v
        engines = Engines(there, asynchronous, run)
        for number, (setting, steps, kind) in enumerate(cases(driver, full=full)):
            before = lost()
            case = f"{number}: {setting}, {kind}: {steps.replace('|', '-')}"
            with engines.opened(kind, **SETTINGS[driver][setting]) as unit:
                stepping = proof.Stepping(unit, proof.ORDERS[kind], f"{case}|")
                for step in steps.split(" | "):
                    # A step whose savepoint could not be made has nothing to leave.
                    with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError, IndexError):
                        stepping.step(step)
            losses[case] = lost() - before
    assert sidelight.flush(60) is not any(losses.values()), "a flush tells of losses"
    with sidelight.Store(f"sqlite:///{tmp_path / 'events.db'}") as store:
        stored = [event.attributes["n"] for event in store.events()]
    assert len(set(stored)) == len(stored) > 0
    assert told(business.committed(url), set(stored), losses) == ([], [])
