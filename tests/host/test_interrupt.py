"""An exception that another thread sets passes the guard; one of foreign code does not."""

import ctypes
import sqlite3
import sys
import threading
from contextlib import nullcontext
from functools import partial

import pytest
from opentelemetry import trace
from sqlalchemy import create_engine
from sqlalchemy.exc import PendingRollbackError
from tests.support.platforms import needs_spool_files
from tests.support.telemetry import restore

import sidelight
from sidelight import arg, emits
from sidelight.emission.emitter import EMITTER
from sidelight.testing import capture
from sidelight.transactions import create_outbox


class Limit(Exception):
    """An Exception by which a job queue stops a job."""


class Stop(BaseException):
    """A BaseException by which another one does."""


def send(error):
    """Set an exception in this thread; Python raises it at its next check."""
    thread = ctypes.c_ulong(threading.get_ident())
    ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(error))


class Sends:
    """A value that sets an exception while it is read."""

    def __init__(self, error):
        self.error = error

    def __repr__(self):
        send(self.error)
        return "not returned"


class Raises:
    """A value that raises."""

    def __init__(self, way):
        self.way = way

    def __repr__(self):
        return self.way()


@pytest.mark.parametrize("error", [Stop, SystemExit])
def test_an_exception_set_while_a_value_is_read_passes(error):
    with capture(strict=False) as recorded:
        with pytest.raises(error):
            emits("x", v=arg.v)(lambda v: None)(Sends(error))
        assert recorded.losses == {}


class Driver(sqlite3.Connection):
    """A connection whose cursors act before each statement on the outbox."""

    def cursor(self, *_):
        return super().cursor(Cursor)


class Cursor(sqlite3.Cursor):
    def execute(self, statement, *values):
        if "sidelight_outbox" in statement:
            self.act()
        return super().execute(statement, *values)


def quits():
    sys.exit(3)


def raises():
    raise Stop


def raises_limit():
    raise Limit


@pytest.mark.parametrize("way", [quits, raises])
def test_an_exception_of_the_value_is_contained(way):
    with capture(strict=False) as recorded:
        assert emits("x", v=arg.v)(lambda v: 5)(Raises(way)) == 5
    assert "while it was captured" in recorded.one().attributes["v"]


@pytest.mark.parametrize("error", [Limit, Stop, SystemExit])
def test_an_exception_set_while_a_record_is_written_passes(error, monkeypatch):
    class Spool:
        def write(self, frame):
            send(error)
            return len(frame)

    with capture(strict=False) as recorded:
        monkeypatch.setattr(EMITTER, "spool", Spool())
        with pytest.raises(error):
            emits("x")(lambda: None)()
        assert recorded.losses == {}


@pytest.mark.parametrize("error", [Limit, Stop, TimeoutError])
def test_an_exception_thrown_into_a_wait_passes(error, monkeypatch):
    class Watermark:
        async def arrive(self, position, seconds):
            await forever()

    class forever:
        def __await__(self):
            yield

    async def f():
        return 5

    with capture(strict=False) as recorded:
        monkeypatch.setattr(EMITTER, "watermark", Watermark())
        waiting = emits("x", mode="awaited")(f)()
        waiting.send(None)
        with pytest.raises(error):
            waiting.throw(error())
        assert recorded.losses == {}


@pytest.mark.parametrize("error", [Stop, SystemExit])
def test_an_exception_set_while_the_span_is_changed_passes(error):
    def work():
        trace.get_current_span().set_attribute("a", Sends(error))
        pytest.fail("the exception was contained")

    with capture(strict=False), pytest.raises(error):
        emits("x")(work)()
    assert trace.get_current_span() is trace.INVALID_SPAN


@needs_spool_files
@pytest.mark.parametrize(
    ("act", "error"),
    [
        (partial(send, Limit), Limit),
        (partial(send, Stop), Stop),
        (raises_limit, None),
        (partial(send, TimeoutError), None),  # a driver raises one of Python's without a frame
    ],
)
def test_an_exception_set_in_a_driver_passes(act, error, tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path / 'app.db'}"
    create_outbox(url)
    sidelight.configure(f"sqlite:///{tmp_path / 'events.db'}", outboxes=[url], otlp=False)
    monkeypatch.setattr(Cursor, "act", staticmethod(act), raising=False)
    engine = create_engine(url, connect_args={"factory": Driver})
    work = emits("x", transaction=arg.connection)(lambda connection: 5)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            if error is None:
                assert work(connection) == 5
            else:
                with pytest.raises(error):
                    work(connection)
            # SQLAlchemy gives up a connection whose statement is interrupted by a BaseException.
            given_up = pytest.raises(PendingRollbackError) if error is Stop else nullcontext()
            with given_up:
                connection.commit()
            assert bool(EMITTER.losses) is (error is None)
    finally:
        engine.dispose()
        restore()


def test_a_recursion_error_of_a_value_is_contained():
    class Endless:
        def __repr__(self):
            return repr(self)

    with capture(strict=False) as recorded:
        assert emits("x", v=arg.v)(lambda v: 5)(Endless()) == 5
    assert "RecursionError while it was captured" in recorded.one().attributes["v"]
