"""What another thread makes this one raise passes the guard; what a stranger raises does not."""

import ctypes
import sys
import threading

import pytest
from opentelemetry import trace

from sidelight import arg, emits
from sidelight.emission.emitter import EMITTER
from sidelight.testing import capture


class Limit(Exception):
    """By which a job queue stops a job."""


class Stop(BaseException):
    """By which another one does."""


def send(error):
    """Have the error raised in this thread, as soon as Python looks whether there is one."""
    thread = ctypes.c_ulong(threading.get_ident())
    ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(error))


class Sends:
    """A value that has an error sent while it is looked at."""

    def __init__(self, error):
        self.error = error

    def __repr__(self):
        send(self.error)
        return "never seen"


class Raises:
    """A value that raises."""

    def __init__(self, way):
        self.way = way

    def __repr__(self):
        return self.way()


@pytest.mark.parametrize("error", [Stop, SystemExit])
def test_what_is_sent_while_a_value_is_looked_at(error):
    with capture(strict=False) as recorded:
        with pytest.raises(error):
            emits("x", v=arg.v)(lambda v: None)(Sends(error))
        assert recorded.losses == {}


def quits():
    sys.exit(3)


def raises():
    raise Stop


@pytest.mark.parametrize("way", [quits, raises])
def test_what_the_value_itself_raises(way):
    with capture(strict=False) as recorded:
        assert emits("x", v=arg.v)(lambda v: 5)(Raises(way)) == 5
    assert "while it was captured" in recorded.one().attributes["v"]


@pytest.mark.parametrize("error", [Limit, Stop, SystemExit])
def test_what_is_sent_while_a_record_is_written(error, monkeypatch):
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
def test_what_is_thrown_into_a_wait(error, monkeypatch):
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
def test_what_is_sent_while_the_span_is_told_something(error):
    def work():
        trace.get_current_span().set_attribute("a", Sends(error))
        pytest.fail("it is not swallowed")

    with capture(strict=False), pytest.raises(error):
        emits("x")(work)()
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_the_recursion_limit_is_nothing_from_outside():
    class Endless:
        def __repr__(self):
            return repr(self)

    with capture(strict=False) as recorded:
        assert emits("x", v=arg.v)(lambda v: 5)(Endless()) == 5
    assert "RecursionError while it was captured" in recorded.one().attributes["v"]
