"""An event that cannot join waits for the commit where it is guarded, and raises where strict."""

import asyncio
import contextlib
import sqlite3

import psycopg
import pytest
import sqlalchemy
from django.db import connections, transaction
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from tests.support import business
from tests.support.telemetry import restore

import sidelight
from sidelight import arg, emits
from sidelight.emission import EMITTER
from sidelight.exceptions import OutboxError, TransactionError
from sidelight.transactions.entry import (
    BROKEN,
    BUSY,
    ENDED,
    REASONS,
    ROLLED_BACK,
    SEVERAL,
    UNPROVABLE,
)
from sidelight.transactions.outbox.postgres import PostgresOutbox

#: These events have no commit to wait for.
AT_ONCE = {"no transaction", "autocommit", "unknown kind"}
#: These transactions cannot be committed.
UNDONE = {BROKEN}
NOWHERE = "SELECT * FROM nowhere"
TRIGGER = "CREATE TRIGGER no BEFORE INSERT ON sidelight_outbox BEGIN SELECT RAISE(ABORT, 'no'); END"
SKIP = TRIGGER.replace("ABORT, 'no'", "IGNORE")
AGAIN = TRIGGER.replace("BEFORE", "AFTER").replace(
    "SELECT RAISE(ABORT, 'no')", "DELETE FROM sidelight_outbox WHERE event_id = NEW.event_id"
)
TRIGGERED = """
CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {} RETURN NULL; END $$;
CREATE TRIGGER no {} INSERT ON sidelight_outbox FOR EACH ROW EXECUTE FUNCTION no()
"""
SKIP_ON_SERVER = TRIGGERED.format("", "BEFORE")
AGAIN_ON_SERVER = TRIGGERED.format(
    "DELETE FROM sidelight_outbox WHERE event_id = NEW.event_id;", "AFTER"
)
RULE = "CREATE RULE no AS ON INSERT TO sidelight_outbox DO {}"
INSTEAD, ALSO = RULE.format("INSTEAD NOTHING"), RULE.format("ALSO DELETE FROM sidelight_outbox")
DEFERRED = TRIGGERED.replace("CREATE TRIGGER", "CREATE CONSTRAINT TRIGGER").replace(
    "FOR EACH ROW", "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
)
GONE_AT_COMMIT = DEFERRED.format(
    "DELETE FROM sidelight_outbox WHERE event_id = NEW.event_id;", "AFTER"
)
RAISED_AT_COMMIT = DEFERRED.format("RAISE EXCEPTION 'no';", "AFTER")
#: The INSERT undoes what the caller has done before, or ends its connection.
ALL_UNDONE = {
    "sqlite": TRIGGER.replace("ABORT", "ROLLBACK"),
    "postgresql": TRIGGERED.format("PERFORM pg_terminate_backend(pg_backend_pid());", "BEFORE"),
}
#: A role that may only insert cannot look whether a trigger has kept its row.
BLIND = """
DO $$ BEGIN CREATE ROLE blind; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
GRANT INSERT ON sidelight_outbox TO blind; GRANT ALL ON orders TO blind;
GRANT ALL ON orders_id_seq TO blind
"""
AS_BLIND = ("SET LOCAL ROLE blind", "SELECT count(*) FROM orders")
CHECK = "ALTER TABLE sidelight_outbox ADD CHECK (position < 0)"


@contextlib.contextmanager
def core(url, *statements, session=False, **options):
    """A connection or session whose transaction begins with statements; some may fail."""
    engine = business.engine_on(url, poolclass=sqlalchemy.NullPool, **options)
    if "isolation_level" not in options:
        business.begin_explicitly(engine)
    with Session(engine) if session else engine.connect() as target:
        yield executed(business.Unit(target), *statements)


def session(url, *statements, **options):
    return core(url, *statements, session=True, **options)


@contextlib.contextmanager
def several(url, *statements):
    """A session that has begun on another engine, too."""
    with session(url, *statements) as unit:
        engine = business.engine_on(url, poolclass=sqlalchemy.NullPool)
        unit.target.execute(sqlalchemy.text(ASK), bind_arguments={"bind": engine})
        yield unit


def psycopg2(url, *statements, **options):
    return core(url.replace("+psycopg", "").replace("ql:", "ql+psycopg2:"), *statements, **options)


@contextlib.contextmanager
def asyncpg(url, *statements, session=False, driver="asyncpg", **options):
    """The same on an asynchronous driver."""
    engine = business.async_engine_on(url, driver, **options)
    with asyncio.Runner() as runner:
        unit = business.Unit(
            AsyncSession(engine) if session else engine.connect(),
            lambda awaitable: runner.run(business.awaited(awaitable)),
        )
        if not session:
            unit.run(unit.target.start())
        yield executed(unit, *statements)
        unit.run(unit.target.close())
        unit.run(engine.dispose())


def asyncpg_session(url, *statements, **options):
    return asyncpg(url, *statements, session=True, **options)


@contextlib.contextmanager
def unawaited(url, *statements):
    """A connection that can be awaited, in a call that cannot."""
    with asyncpg(url, *statements, driver="psycopg") as unit:
        unit.is_unawaited = True
        yield unit


@contextlib.contextmanager
def plain_psycopg(url, *statements, pipeline=False, **options):
    with psycopg.connect(url, **options) as connection:
        unit = executed(business.Unit(connection), *statements)
        with connection.pipeline() if pipeline else contextlib.nullcontext():
            yield unit
        connection.rollback()


@contextlib.contextmanager
def django(url, atomic=False):
    """Django's database, in autocommit mode or in a transaction that will be rolled back."""
    alias = business.django_database(url)
    unit = business.Unit(alias)
    unit.commit = unit.rollback = lambda: None
    with transaction.atomic(using=alias) if atomic else contextlib.nullcontext():
        if atomic:
            transaction.set_rollback(True, using=alias)
        yield unit
    connections[alias].close()


@contextlib.contextmanager
def no_transaction(url):
    unit = business.Unit(object())
    unit.commit = unit.rollback = lambda: None
    yield unit


def executed(unit, *statements):
    for statement in statements:
        with contextlib.suppress(*([sqlalchemy.exc.ProgrammingError, psycopg.Error])):
            unit.execute(statement)
    return unit


def change_by_hand(url, *statements):
    """Change the business's database as an operator does."""
    with core(url) as other:
        for statement in statements:
            other.execute(statement)
        other.commit()


@contextlib.contextmanager
def locked(url):
    """Another connection keeps the outbox locked."""
    if not url.startswith("sqlite"):
        with psycopg.connect(url) as other:
            other.execute("LOCK TABLE sidelight_outbox")
            yield
        return
    path = url.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


ASK = "SELECT count(*) FROM orders"
BOTH = ("postgresql", "sqlite")
AUTOCOMMIT = {"isolation_level": "AUTOCOMMIT"}
DROP = "DROP TABLE sidelight_outbox"
READ_ONLY = "SET TRANSACTION READ ONLY"
#: Reason, what opens the target, on which databases, its statements and options; what another
#: connection changes before.
SCENARIOS = [
    ("no transaction", core, BOTH, (), {}, None),
    ("no transaction", plain_psycopg, BOTH[:1], (), {}, None),
    ("no transaction", asyncpg, BOTH[:1], (), {}, None),
    ("autocommit", plain_psycopg, BOTH[:1], (), {"autocommit": True}, None),
    ("autocommit", core, BOTH, (ASK,), AUTOCOMMIT, None),
    ("autocommit", session, BOTH, (ASK,), AUTOCOMMIT, None),
    ("autocommit", asyncpg, BOTH[:1], (ASK,), AUTOCOMMIT, None),
    ("autocommit", psycopg2, BOTH[:1], (ASK,), AUTOCOMMIT, None),
    ("autocommit", django, BOTH, (), {}, None),
    ("pipeline mode", plain_psycopg, BOTH[:1], (ASK,), {"pipeline": True}, None),
    (BROKEN, plain_psycopg, BOTH[:1], (NOWHERE,), {}, None),
    (BROKEN, session, BOTH[:1], (NOWHERE,), {}, None),
    (BROKEN, asyncpg_session, BOTH[:1], (NOWHERE,), {}, None),
    (BROKEN, django, BOTH, (), {"atomic": True}, None),
    ("no outbox table", session, BOTH, (ASK,), {}, DROP),
    ("no outbox table", plain_psycopg, BOTH[:1], (ASK,), {}, DROP),
    ("no outbox table", asyncpg_session, BOTH[:1], (ASK,), {}, DROP),
    ("database too slow", session, BOTH, (ASK,), {}, locked),
    ("database too slow", plain_psycopg, BOTH[:1], (ASK,), {}, locked),
    ("database too slow", asyncpg_session, BOTH[:1], (ASK,), {}, locked),
    ("read-only transaction", session, BOTH[:1], (READ_ONLY, ASK), {}, None),
    ("read-only transaction", session, BOTH[1:], (ASK, "PRAGMA query_only = ON"), {}, None),
    ("read-only transaction", asyncpg_session, BOTH[:1], (READ_ONLY, ASK), {}, None),
    ("insert failed", session, BOTH[:1], (ASK,), {}, CHECK),
    ("insert failed", session, BOTH[1:], (ASK,), {}, TRIGGER),
    ("insert failed", session, BOTH[1:], (ASK,), {}, SKIP),
    ("insert failed", session, BOTH[1:], (ASK,), {}, AGAIN),
    ("insert failed", session, BOTH[:1], (ASK,), {}, SKIP_ON_SERVER),
    ("insert failed", plain_psycopg, BOTH[:1], (ASK,), {}, AGAIN_ON_SERVER),
    ("insert failed", asyncpg_session, BOTH[:1], (ASK,), {}, INSTEAD),
    ("insert failed", psycopg2, BOTH[:1], (ASK,), {}, ALSO),
    ("insert failed", asyncpg_session, BOTH[:1], (ASK,), {}, CHECK),
    (UNPROVABLE, session, BOTH[:1], (ASK,), {}, GONE_AT_COMMIT),
    (UNPROVABLE, plain_psycopg, BOTH[:1], (ASK,), {}, RAISED_AT_COMMIT),
    (UNPROVABLE, asyncpg_session, BOTH[:1], (ASK,), {}, GONE_AT_COMMIT),
    (UNPROVABLE, session, BOTH[:1], AS_BLIND, {}, BLIND + ";" + SKIP_ON_SERVER),
    (UNPROVABLE, plain_psycopg, BOTH[:1], AS_BLIND, {}, BLIND + ";" + INSTEAD),
    ("unsupported database", session, ("memory",), ("SELECT 1",), {}, None),
    ("unknown kind", no_transaction, BOTH[1:], (), {}, None),
    (SEVERAL, several, BOTH, (ASK,), {}, None),
    ("not awaited", unawaited, BOTH, (ASK,), {}, None),
]
CASES = [(*each[:2], database, *each[3:]) for each in SCENARIOS for database in each[2]]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1].__name__}-{case[2]}")
def case(request, tmp_path):
    """The reason, the unit, and the URL of the database."""
    reason, opened, database, statements, options, change = request.param
    url = "sqlite://" if database == "memory" else business.shop(database, tmp_path)
    if isinstance(change, str):
        change_by_hand(url, change)
    around = change(url) if callable(change) else contextlib.nullcontext()
    # A busy machine must be no reason, except where a lock is to be.
    deadline = 0.01 if callable(change) else 1.0
    sidelight.configure(f"sqlite:///{tmp_path / 'events.db'}", otlp=False, deadline=deadline)
    with opened(url, *statements, **options) as unit, around:
        yield reason, unit, url
    restore()


def stored(tmp_path):
    assert sidelight.flush(20)
    with sidelight.Store(f"sqlite:///{tmp_path / 'events.db'}") as store:
        return [event.attributes for event in store.events()]


def look_at(unit, **options):
    """Call a function that emits an event: an asynchronous one where the target is awaited."""
    options = {"transaction": arg.target, "n": arg.n, **options}
    is_awaited = hasattr(unit.target, "__aenter__") and not hasattr(unit, "is_unawaited")

    def look(target, n):
        return n

    async def look_awaited(target, n):
        return n

    return (
        unit.run(emits("looked_at", **options)(look_awaited)(unit.target, 1))
        if is_awaited
        else (emits("looked_at", **options)(look)(unit.target, 1))
    )


@pytest.mark.one_in(3)
def test_guarded_it_waits_for_the_commit_and_says_why(case, tmp_path):
    reason, unit, _ = case
    assert look_at(unit) == 1  # where there is a lock, it is held until the test ends
    told = [{"n": 1, "sidelight.not_joined": reason}]
    if reason != "pipeline mode":  # there the work is not sent yet
        assert stored(tmp_path) == (told if reason in AT_ONCE else [])
    unit.commit()
    if reason == "pipeline mode":
        unit.target.pipeline().__enter__().sync()
    assert stored(tmp_path) == ([] if reason in UNDONE else told)
    assert EMITTER.losses == ({} if reason in UNDONE else {f"not joined: {reason}": 1})


class Paused(dict):
    """Databases none of which was quick enough a moment ago."""

    def get(self, database, default=None):
        return float("inf")


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    "case",
    [each for each in CASES if each[0] in {*AT_ONCE, BROKEN, "pipeline mode"}],
    ids=lambda case: f"{case[0]}-{case[1].__name__}-{case[2]}",
    indirect=True,
)
def test_after_an_insert_that_was_too_slow_the_reason_is_the_same(case, tmp_path, monkeypatch):
    monkeypatch.setattr("sidelight.transactions.statements._paused_until", Paused())
    test_guarded_it_waits_for_the_commit_and_says_why(case, tmp_path)


@pytest.mark.one_in(3)
def test_guarded_a_rollback_unmakes_it(case, tmp_path):
    reason, unit, _ = case
    if reason in AT_ONCE:
        pytest.skip("there is no transaction")
    look_at(unit)
    unit.rollback()
    assert stored(tmp_path) == []
    assert EMITTER.losses == {}


@pytest.mark.one_in(3)
def test_strict_the_work_learns_of_it(case, tmp_path):
    reason, unit, _ = case
    if reason == "database too slow":
        pytest.skip("it waits as long as the application's own statements would")
    problem, remedy = REASONS[reason]
    with pytest.raises(TransactionError) as met:
        look_at(unit, strict=True)
    assert problem in str(met.value)
    assert remedy in str(met.value)
    assert "\n" not in str(met.value)  # a driver's error has several lines
    assert not stored(tmp_path)


@pytest.mark.parametrize(
    "case",
    [
        each
        for each in CASES
        if each[2] == "postgresql"
        and each[1] in {session, asyncpg_session}
        and each[0] in {"no outbox table", "database too slow", "insert failed"}
    ],
    ids=lambda case: f"{case[0]}-{case[1].__name__}",
    indirect=True,
)
def test_guarded_the_work_goes_on(case, tmp_path):
    """The transaction is unchanged after any result of the INSERT."""
    reason, unit, url = case

    def add(target, name):
        order = business.Order(name=name)
        target.add(order)
        return order

    async def add_awaited(target, name):
        order = add(target, name)
        await target.flush()
        return order

    is_awaited = hasattr(unit.target, "__aenter__")
    order = business.decorated("transaction", add_awaited if is_awaited else add)
    unit.run(order(unit.target, "before"))
    unit.flush()
    unit.run(order(unit.target, "after"))
    unit.commit()
    assert business.committed(url) == {"before", "after"}
    assert [event["n"] for event in stored(tmp_path)] == ["before", "after"]
    assert {event["sidelight.not_joined"] for event in stored(tmp_path)} == {reason}


@pytest.mark.parametrize(
    "case",
    [each for each in CASES if each[5] in {SKIP, AGAIN, SKIP_ON_SERVER, AGAIN_ON_SERVER, ALSO}],
    ids=lambda case: f"{case[1].__name__}-{case[2]}",
    indirect=True,
)
def test_where_a_row_is_left_out_the_log_says_what_to_look_for(case, caplog):
    _, unit, _ = case
    look_at(unit)
    unit.commit()
    (told,) = EMITTER.problems.values()
    assert "look for a trigger, a rule or a policy" in told


def test_a_trigger_that_writes_elsewhere_is_no_reason(tmp_path):
    """As an audit does. The event joins, and is not looked for in vain."""
    url = business.shop("sqlite", tmp_path)
    audit = "INSERT INTO orders (name) VALUES (NEW.event_id)"
    change_by_hand(url, f"CREATE TRIGGER audit AFTER INSERT ON sidelight_outbox BEGIN {audit}; END")
    store = f"sqlite:///{tmp_path / 'events.db'}"
    sidelight.configure(store, outboxes=[url], otlp=False, deadline=1.0)
    with session(url, ASK) as unit:
        look_at(unit)
        unit.commit()
    assert stored(tmp_path) == [{"n": 1}]
    assert EMITTER.losses == {}
    restore()


@pytest.mark.one_in(3)
@pytest.mark.parametrize(("name", "database"), business.CASES)
def test_where_the_insert_undoes_the_work_the_caller_learns_of_it(name, database, tmp_path):
    """Its commit may not tell: SQLite takes one without a transaction, psycopg's `with` as well."""
    url = business.shop(database, tmp_path)
    change_by_hand(url, ALL_UNDONE[database])
    store = f"sqlite:///{tmp_path / 'events.db'}"
    sidelight.configure(store, outboxes=[url], otlp=False, deadline=1.0)
    application = business.APPLICATIONS[name](url, "transaction")
    waiting = business.decorated("after_commit", application.insert)
    for is_committed in (True, False):  # although it has learned it
        with application.unit() as unit:
            unit.run(waiting(unit.target, "waits"))
            with pytest.raises(TransactionError, match=REASONS[ROLLED_BACK][0]) as met:
                application.order(unit.target, "undone")
                unit.flush()
            assert met.value.__cause__ is not None
            if is_committed and name == "django":
                unit.commit()  # it rolls back and raises nothing
            elif is_committed:
                with pytest.raises((sqlalchemy.exc.PendingRollbackError, psycopg.OperationalError)):
                    unit.commit()
            with contextlib.suppress(psycopg.OperationalError):
                unit.rollback()
        if name == "django":  # as it does before the next request
            connections[application.alias].close()
    assert business.committed(url) == set()
    assert stored(tmp_path) == []
    assert EMITTER.losses == {}
    change_by_hand(url, "DROP TRIGGER no" + " ON sidelight_outbox" * (database == "postgresql"))
    with application.unit() as unit:
        application.order(unit.target, "done")
        unit.commit()
    assert business.committed(url) == {"done"}
    assert stored(tmp_path) == [{"n": "done"}]
    application.close()
    restore()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ([AGAIN_ON_SERVER], "insert failed"),
        ([RAISED_AT_COMMIT, "DROP TRIGGER no ON sidelight_outbox"], UNPROVABLE),
    ],
    ids=["made later", "deferred, and dropped"],
)
def test_a_trigger_that_changes_is_noticed_by_the_relay(changes, reason, tmp_path):
    url = business.shop("postgresql", tmp_path)
    store = f"sqlite:///{tmp_path / 'events.db'}"
    sidelight.configure(store, outboxes=[url], otlp=False, deadline=1.0)
    with plain_psycopg(url) as unit:
        for change in [*changes, None]:
            unit.execute(ASK)
            look_at(unit)
            unit.commit()
            if change is not None:
                assert sidelight.flush(20)
                change_by_hand(url, change)
                assert sidelight.flush(20)  # the relay looks
    refused = {"n": 1, "sidelight.not_joined": reason}
    assert sorted(stored(tmp_path), key=len) == [*[{"n": 1}] * len(changes), refused]
    restore()


def test_a_relay_that_may_not_see_all_rows_says_so(tmp_path):
    url = business.shop("postgresql", tmp_path)
    role = "relay_" + url.rpartition("/")[2]
    change_by_hand(
        url,
        f"CREATE ROLE {role} LOGIN",
        f"GRANT SELECT, UPDATE, DELETE ON sidelight_outbox TO {role}",
        "ALTER TABLE sidelight_outbox ENABLE ROW LEVEL SECURITY",
    )
    outbox = PostgresOutbox(make_url(url).set(username=role).render_as_string(hide_password=False))
    with contextlib.closing(outbox), pytest.raises(OutboxError, match="row-level security"):
        outbox.move(list, 10)


def test_a_role_that_may_only_insert_joins(tmp_path):
    url = business.shop("postgresql", tmp_path)
    role = "only_" + url.rpartition("/")[2]
    store = f"sqlite:///{tmp_path / 'events.db'}"
    sidelight.configure(store, outboxes=[url], otlp=False, deadline=1.0)
    with plain_psycopg(url) as unit:
        unit.execute(f"CREATE ROLE {role}; GRANT INSERT ON sidelight_outbox TO {role}")
        unit.execute(f"SET LOCAL ROLE {role}")
        look_at(unit, strict=True)
        look_at(unit)
        unit.commit()
    assert stored(tmp_path) == [{"n": 1}, {"n": 1}]
    assert EMITTER.losses == {}
    restore()


@pytest.mark.parametrize("kind", [session, plain_psycopg, asyncpg_session])
@pytest.mark.parametrize("database", BOTH)
def test_while_the_outbox_is_locked_one_call_in_a_second_waits_for_it(kind, database, tmp_path):
    if database == "sqlite" and kind is not session:
        pytest.skip("a driver of PostgreSQL")
    url = business.shop(database, tmp_path)
    sidelight.configure(f"sqlite:///{tmp_path / 'events.db'}", otlp=False)
    with kind(url, ASK) as unit:
        with locked(url):
            look_at(unit)
            look_at(unit)
        unit.commit()
    told = EMITTER.problems["not joined: database too slow"]  # of the second call
    assert "cancel" not in told
    assert "database is locked" not in told
    assert EMITTER.losses == {"not joined: database too slow": 2}
    restore()


def test_every_reason_has_a_scenario():
    # `test_busy` has the scenarios of a busy connection.
    assert {reason for reason, *_ in SCENARIOS} | {BUSY, ENDED, ROLLED_BACK} == set(REASONS)
