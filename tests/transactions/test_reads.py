"""A function that reads, and undoes all that it has changed, has done nothing: it has no event.

A statement that may have written is work that stands, so that there is an event.
"""

import contextlib
import itertools

import pytest
import sqlalchemy
from sqlalchemy.orm import Session, aliased
from tests.support import business
from tests.support.drivers import running
from tests.support.pairs import each_nth
from tests.support.proving import MODES, lost
from tests.transactions import test_proof as proof

import sidelight
from sidelight import arg, emits
from sidelight.transactions.reads import only_reads

pytestmark = pytest.mark.usefixtures("restored")

Order = business.Order

# -- what the function executes beside the work that it undoes -------------------------------------

other = aliased(Order)
QUERIES = {
    "text": sqlalchemy.text("SELECT 1"),
    "rows": sqlalchemy.select(Order).where(Order.name.in_(["a", "b"])),
    "count": sqlalchemy.select(sqlalchemy.func.count()).select_from(Order),
    "joined": sqlalchemy.select(Order.id).join(other, (Order.id == other.id) & ~(Order.id > 9)),
    "exists": sqlalchemy.select(sqlalchemy.exists().where(Order.name == "a")),
    "locked": sqlalchemy.select(Order).with_for_update(),
    "union": sqlalchemy.union_all(sqlalchemy.select(Order.id), sqlalchemy.select(other.id)),
    "subquery": sqlalchemy.select(sqlalchemy.select(Order.name).limit(1).subquery()),
}
WRITES = {
    "function": sqlalchemy.text("SELECT set_config('a.b', 'c', true)"),
    "table": sqlalchemy.text("SELECT 1 AS n INTO TEMPORARY nowhere"),
    "rows": sqlalchemy.text(
        "WITH w AS (INSERT INTO orders (name) VALUES (gen_random_uuid()) RETURNING id)"
        " SELECT id FROM w"
    ),
    "update": sqlalchemy.update(Order).values(name=Order.name),
}


def get(target):
    if isinstance(target, Session):
        target.get(Order, 1)


def execute(query):
    def call(target):
        target.execute(query).all()

    return call


READS = {**{name: execute(query) for name, query in QUERIES.items()}, "get": get}


# -- the work that it undoes -----------------------------------------------------------------------


def insert(target, name):
    target.execute(sqlalchemy.insert(Order).values(name=name))


def insert_in_savepoint(target, name):
    with contextlib.suppress(ValueError), target.begin_nested():
        insert(target, name)
        raise ValueError


def add_in_savepoint(session, name):
    with contextlib.suppress(ValueError), session.begin_nested():
        session.add(Order(name=name))
        raise ValueError


def flush_in_savepoint(session, name):
    with contextlib.suppress(ValueError), session.begin_nested():
        session.add(Order(name=name))
        session.flush()
        raise ValueError


def expunge(session, name):
    order = Order(name=name)
    session.add(order)
    session.expunge(order)


def fail_in_savepoint(target, name):
    with contextlib.suppress(sqlalchemy.exc.IntegrityError), target.begin_nested():
        target.execute(sqlalchemy.text("INSERT INTO orders (name) VALUES (NULL)"))


UNDONE = (insert_in_savepoint, add_in_savepoint, flush_in_savepoint, expunge, fail_in_savepoint)
CASES = [
    case
    for case in itertools.product(MODES, ("session", "connection"), READS, UNDONE, ("", "+", "-"))
    if case[1] == "session" or case[3] in {insert_in_savepoint, fail_in_savepoint}
]


def perform(engine, case, name):
    """Call; "+" reads again after the work, "-" reads after it only."""
    mode, kind, read, work, again = case

    @emits("ordered", n=arg.name, **MODES[mode])
    def order(target, name):
        if again != "-":
            READS[read](target)
        work(target, name)
        if again:
            READS[read](target)

    with Session(engine) if kind == "session" else engine.connect() as target:
        insert(target, f"{name}caller")
        order(target, name)
        target.commit()


@pytest.mark.parametrize("driver", proof.DRIVERS)
def test_reads_beside_undone_work_are_no_work(driver, tmp_path, full):
    database, asynchronous = proof.DRIVERS[driver]
    url, before = proof.created(tmp_path, database), lost()
    cases = each_nth(CASES, 13, driver, proof.DRIVERS, full=full)
    with running(url, driver, asynchronous) as run:
        for number, case in enumerate(cases):
            run(lambda engine, number=number, case=case: perform(engine, case, f"{number}|"))
    assert sidelight.flush(60)
    with sidelight.Store(f"sqlite:///{tmp_path / 'events.db'}") as store:
        assert [cases[int(each.attributes["n"][:-1])] for each in store.events()] == []
    assert business.committed(url) == {f"{number}|caller" for number in range(len(cases))}
    assert lost() == before


@pytest.mark.parametrize("driver", [name for name in proof.DRIVERS if "sqlite" not in name])
def test_a_statement_that_may_write_is_work(driver, tmp_path):
    url, expected = proof.created(tmp_path, "postgresql"), set()
    with running(url, driver, proof.DRIVERS[driver][1]) as run:
        for mode, write, work in itertools.product(MODES, WRITES, UNDONE[:2]):

            @emits("ordered", n=arg.name, **MODES[mode])
            def order(target, name, write=write, work=work):
                target.execute(WRITES[write])
                work(target, name)

            def call(engine, order=order, name=f"{mode}, {write}, {work.__name__}"):
                with Session(engine) as session:
                    order(session, name)
                    session.execute(sqlalchemy.text("DROP TABLE IF EXISTS pg_temp.nowhere"))
                    session.commit()
                    expected.add(name)

            run(call)
    assert sidelight.flush(60)
    with sidelight.Store(f"sqlite:///{tmp_path / 'events.db'}") as store:
        assert {each.attributes["n"] for each in store.events()} == expected


@pytest.mark.parametrize(
    "text",
    [
        "SELECT write(1)",
        "SELECT public.count(1)",
        'SELECT "write"(1)',
        "SELECT write (1)",
        "SELECT write\n(1)",
        "SELECT write/**/(1)",
        "SELECT write--\n(1)",
        "SELECT count(1), lower(write(name)) FROM orders",
        "SELECT [write](1)",
        "SELECT `write`(1)",
        "SELECT écrire(1)",
        "SELECT a$(1)",
        "SELECT * INTO other FROM orders",
        "SELECT 1; DELETE FROM orders",
        "INSERT INTO orders (name) VALUES (1)",
        "WITH w AS (DELETE FROM orders RETURNING id) SELECT id FROM w",
        "EXPLAIN ANALYZE DELETE FROM orders",
        "CALL write()",
        "PRAGMA user_version = 1",
        f"SELECT {'1 + ' * 5000}1",
    ],
)
def test_a_text_that_may_write(text):
    assert not only_reads(text)
