"""The business sees what it would see without us: its errors, its SQL in its order, its rows."""

import contextlib

import pytest
from django.db import connections
from psycopg import AsyncCursor, Cursor
from sqlalchemy import event
from tests.support import business
from tests.support.telemetry import restore

import sidelight
from sidelight.emission.emitter import EMITTER


@pytest.fixture(autouse=True)
def external(tmp_path):
    sidelight.configure(
        f"sqlite:///{tmp_path / 'events.db'}", relay="external", otlp=False, deadline=1.0
    )
    yield
    restore()


class Undecorated:
    """Takes the decorator off the functions of an application."""

    def __init__(self, kind):
        self._kind = kind

    def __call__(self, url, join):
        application = self._kind(url, join)
        run = getattr(application, "run", lambda result: result)
        insert = application.insert
        application.order = lambda target, name: run(insert(target, name))
        return application


def steps(unit, application, told):
    """Orders, flushes and commits; reports each error with its place."""

    def order(name):
        application.order(unit.target, name)

    @contextlib.contextmanager
    def met(where):
        try:
            yield
        except Exception as error:
            told.append((where, type(error).__name__, str(error)))
            with contextlib.suppress(Exception):
                unit.rollback()
        else:
            told.append((where, "fine"))

    with met("two are ordered"):
        order("a")
        unit.flush()
        order("b")
        unit.commit()
    with met("one is ordered twice"):
        order("c")
        with met("the second order"):
            order("a")
        with met("the flush of the second order"):
            unit.flush()
        with met("the commit of the second order"):
            unit.commit()
    with met("a savepoint is left by an error"):
        order("d")
        with contextlib.suppress(Exception), unit.savepoint():
            order("b")
            unit.flush()
        order("e")
        unit.commit()
    with met("rolled back"):
        order("f")
        unit.rollback()
    with met("in a savepoint"):
        with unit.savepoint():
            order("g")
        unit.commit()


@contextlib.contextmanager
def listening(application):
    """The SQL that the application's own logs and counters would have."""
    heard = []
    engine = getattr(application, "engine", None)
    if engine is not None:
        engine = getattr(engine, "sync_engine", engine)
        for name in ("savepoint", "rollback_savepoint", "release_savepoint", "commit", "rollback"):
            event.listen(engine, name, lambda *_, name=name: heard.append(name))
        event.listen(
            engine, "before_cursor_execute", lambda _c, _r, statement, *_: heard.append(statement)
        )
        yield heard
    elif application.name == "django":
        connection = connections[application.alias]
        connection.force_debug_cursor = True
        yield heard
        heard.extend(query["sql"] for query in connection.queries)
    else:
        yield heard


def noting(heard):
    """psycopg's cursors, by the application: they note what it executes."""

    class Noting(Cursor):
        def execute(self, query, *arguments, **named):
            heard.append(query)
            return super().execute(query, *arguments, **named)

    class AsyncNoting(AsyncCursor):
        async def execute(self, query, *arguments, **named):
            heard.append(query)
            return await super().execute(query, *arguments, **named)

    return {"psycopg": Noting, "psycopg in SQL": Noting, "async psycopg": AsyncNoting}


def lived(make, url, join):
    """The errors, the statements and the rows of an application."""
    application = make(url, join)
    told = []
    try:
        with listening(application) as heard, application.unit() as unit:
            if (cursors := noting(heard).get(application.name)) is not None:
                unit.target.cursor_factory = cursors
            steps(unit, application, told)
    finally:
        application.close()
    return told, heard, business.committed(url)


@pytest.mark.one_in(2)
def test_errors_statements_and_rows_are_as_without_us(case, join, tmp_path):
    name, database = case
    found = []
    for make in (Undecorated(business.APPLICATIONS[name]), business.APPLICATIONS[name]):
        directory = tmp_path / str(len(found))
        directory.mkdir()
        url = business.shop(database, directory)
        found.append(lived(make, url, join))
    without, with_us = found
    assert with_us[0] == without[0]
    assert with_us[1] == without[1]
    assert with_us[1], "something was heard"
    assert with_us[2] == without[2] >= {"a", "b", "g"}
    assert not EMITTER.losses
