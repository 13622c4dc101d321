"""Writer, relay and status find the same outbox: in any schema, on any of a session's databases."""

import psycopg
import pytest
from sqlalchemy import MetaData, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from tests.support import business
from tests.support.postgres import new_database
from tests.support.telemetry import restore

import sidelight
from sidelight import arg, emits
from sidelight.emission import EMITTER
from sidelight.outbox import table
from sidelight.transactions import outbox_status, statements
from sidelight.transactions.entry import Row
from sidelight.transactions.outbox import draining
from sidelight.transactions.outbox.table import FoundTable


class Shop(DeclarativeBase):
    metadata = MetaData()


class Log(DeclarativeBase):
    metadata = MetaData()


class Item(Shop):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)


class Line(Log):
    __tablename__ = "lines"
    id: Mapped[int] = mapped_column(primary_key=True)


OUTBOX = table(Shop.metadata)


@pytest.fixture
def stored(tmp_path):
    """The events in the store from each outbox in the given databases."""
    store = f"sqlite:///{tmp_path / 'events.db'}"

    def configured(*urls):
        relay = "thread" if urls else "external"
        sidelight.configure(store, outboxes=urls, relay=relay, otlp=False, deadline=1.0)

    def names():
        assert sidelight.flush(20)
        assert not EMITTER.losses
        with sidelight.Store(store) as opened:
            return {event.attributes["n"] for event in opened.events()}

    names.of = configured
    yield names
    restore()


@emits("noted", transaction=arg.target, n=arg.n)
def note(target, n):
    """Do nothing else."""


@emits("placed", transaction=arg.session, n=arg.n)
def place(session, n):
    session.add_all([Item(), Line()])


@pytest.mark.parametrize(
    ("schemas", "paths", "prepare_threshold"),
    [
        (["app"], ["public", "app", "nowhere", "'app', pg_catalog"], 5),
        (['App with "quotes'], ["public"], 0),
        (["one", "two"], ["one", "two"], 5),
    ],
)
def test_in_a_schema_whatever_the_search_path(schemas, paths, prepare_threshold, stored):
    url = new_database()
    with psycopg.connect(url) as connection:
        for schema in schemas:
            quoted = '"' + schema.replace('"', '""') + '"'
            connection.execute(f"CREATE SCHEMA {quoted}")
            connection.execute(f"SET search_path = {quoted}")
            connection.execute(
                "CREATE TABLE sidelight_outbox (position bigint, event_id varchar(36),"
                " record bytea NOT NULL, PRIMARY KEY (position, event_id))"
            )
    stored.of()
    with psycopg.connect(url, prepare_threshold=prepare_threshold) as connection:
        for path in paths:
            connection.execute(f"SET search_path = {path}")
            note(connection, path)
            connection.commit()
    assert outbox_status(url).waiting == len(paths), EMITTER.problems
    stored.of(url)
    assert stored() == set(paths)
    assert outbox_status(url).waiting == 0


class Routing(Session):
    """Chooses the database of each statement."""

    def get_bind(self, mapper=None, **_):
        is_log = mapper is not None and issubclass(mapper.class_, Log)
        return self.info["log" if is_log else "shop"]


@pytest.mark.parametrize("binds", ["bases", "bases and outbox", "default", "routing"])
def test_on_one_of_the_databases_of_a_session_in_two_phases(binds, stored):
    urls = [new_database(), new_database()]
    shop, log = engines = [create_engine(url.replace(":", "+psycopg:", 1)) for url in urls]
    Shop.metadata.create_all(shop)
    Log.metadata.create_all(log)
    make = {
        "bases": lambda: Session(binds={Log: log, Shop: shop}, twophase=True),
        "bases and outbox": lambda: Session(
            binds={Shop: shop, Log: log, OUTBOX: shop}, twophase=True
        ),
        "default": lambda: Session(shop, binds={Log: log}, twophase=True),
        "routing": lambda: Routing(info={"shop": shop, "log": log}, twophase=True),
    }[binds]
    stored.of(urls[0])
    with make() as session:
        place(session, "undone")
        session.rollback()
        place(session, "done")
        session.commit()
    assert stored() == {"done"}
    for engine in engines:
        engine.dispose()


def test_an_outbox_that_is_made_later_is_found(stored):
    url = new_database()
    stored.of()
    with psycopg.connect(url) as connection:
        connection.execute("SELECT 1")
        note(connection, "not joined")
        connection.commit()
        business.create_tables(url)
        connection.execute("SELECT 1")
        note(connection, "joined")
        connection.commit()
    assert outbox_status(url).waiting == 1
    EMITTER.losses.clear()


@pytest.mark.parametrize("has_trigger", ["here", "there", "nowhere"])
def test_a_trigger_is_seen_beside_an_outbox_with_the_same_ids(has_trigger, monkeypatch):
    """Two servers that the same script has made; the relay drains the other one."""
    here, there = (
        FoundTable("public", 16384, 16385, "shop", has_trigger == where, True, False, "")
        for where in ("here", "there")
    )
    monkeypatch.setattr(draining, "latest", {there.ids: there})
    found = statements._outbox_in([here])
    asks = statements._if_stored(found, [Row(1, "event", b"")], "name")
    assert bool(asks) == (has_trigger != "nowhere")
