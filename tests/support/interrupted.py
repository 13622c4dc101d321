"""A program whose calls are interrupted, at any moment; it reports those that returned.

As `tests.support.emitting`, but an exception from outside arrives again and again; the prelude may
name its kind (``by = "thread"``), and ``calls`` is how often. The program checks, and reports at
its end, that each exception arrives, that the outcome of a call is its own or that exception, and
that no span stays current.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import itertools
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from opentelemetry import trace
from tests.support.emitting import FAILS, KINDS, REPORT, Order, plain, plain_async

import sidelight
from sidelight import arg, emits

by = "signal"
RELAYED = 500  # times after which the relay is let to catch up: the spool is bounded
LATEST = 500e-6  # seconds until it arrives: that is some calls
ARRIVES_WITHIN = 2.0  # on a busy machine; what is swallowed never does
FIELDS: dict[str, Any] = {
    "artifact_id": arg.n,
    "n": arg.n,
    "filling": "x" * 2000,  # a segment is used up every 500 events
}
STRANGE: dict[str, Any] = {"text": lambda thing: repr(thing)[:40]}
"""Not our code, nor is what says what an error is about: an Exception that is sent while this runs
cannot be told from one that it raises."""


class Limit(Exception):
    """The exception of one job queue."""


class Stop(BaseException):
    """The exception of another job queue."""


class Signal:
    """Ctrl-C and errors of a signal handler, from a timer."""

    errors: tuple[type[BaseException], ...] = (KeyboardInterrupt, TimeoutError, Stop, SystemExit)

    def __init__(self) -> None:
        signal.signal(signal.SIGALRM, self._ring)

    def _ring(self, *_: object) -> None:
        raise random.choice(self.errors)

    def send(self, seconds: float) -> None:
        """Let one arrive after so many seconds."""
        signal.setitimer(signal.ITIMER_REAL, seconds)


class Thread:
    """``PyThreadState_SetAsyncExc`` from another thread."""

    def __init__(self, *errors: type[BaseException]) -> None:
        self.errors = errors
        sys.setswitchinterval(1e-5)
        self._wanted = threading.Semaphore(0)
        self._seconds = 0.0
        self._target = ctypes.c_ulong(threading.get_ident())
        threading.Thread(target=self._run, daemon=True).start()

    def send(self, seconds: float) -> None:
        """Let one arrive after so many seconds."""
        self._seconds = seconds
        self._wanted.release()

    def _run(self) -> None:
        while True:
            self._wanted.acquire()
            time.sleep(self._seconds)
            error = ctypes.py_object(random.choice(self.errors))
            ctypes.pythonapi.PyThreadState_SetAsyncExc(self._target, error)


def by_hand(resumed: Any) -> Any:
    """Run a coroutine without an event loop, for which an interrupt would be the end."""
    try:
        while True:
            resumed.send(None)
    except StopIteration as stop:
        return stop.value
    finally:
        resumed.close()


def steps(n: int, thing: Any) -> Any:
    """`plain`, as a generator."""
    yield
    return plain(n, thing)


async def things(n: int, thing: Any) -> Any:
    """`plain`, as an asynchronous generator."""
    yield await plain_async(n, thing)


async def only(iterable: Any) -> Any:
    """The only item."""
    items = [item async for item in iterable]
    return items[0]


def calls_with(fields: dict[str, Any]) -> dict[str, Callable[[int, Any], Any]]:
    """The calls, by kind."""
    begun = emits(start="begun", artifact_id=arg.n)
    decorate = emits("scheduled", failure="failed", **fields)

    def scheduled(function: Any) -> Any:
        return decorate(begun(function))

    awaited = emits("awaited", failure="awaited_failed", mode="awaited", **fields)
    function, generator = scheduled(plain), scheduled(steps)
    coroutine, iterable = scheduled(plain_async), scheduled(things)
    awaited_function, awaited_coroutine = awaited(plain), awaited(plain_async)

    def either(n: int, thing: Any) -> Any:
        return function(n, thing) if n % 2 else by_hand(generator(n, thing))

    def either_async(n: int, thing: Any) -> Any:
        return by_hand(coroutine(n, thing) if n % 2 else only(iterable(n, thing)))

    return {
        "scheduled": either,
        "awaited": awaited_function,
        "scheduled async": either_async,
        "awaited async": lambda n, thing: by_hand(awaited_coroutine(n, thing)),
        "emit": lambda n, _: sidelight.emit("direct", artifact_id=n, n=n),
    }


INTERRUPTERS: dict[str, Callable[[], Signal | Thread]] = {
    "signal": Signal,
    "thread": functools.partial(Thread, Stop, SystemExit),
    "limit": functools.partial(Thread, Limit),
}


class Calls:
    """Makes the calls, and knows what went wrong with them."""

    def __init__(self, order: Order, interrupter: Signal | Thread) -> None:
        self.order = order
        self.calls = calls_with(FIELDS if by == "limit" else FIELDS | STRANGE)
        self.interrupter = interrupter
        self.numbers = itertools.count(order.first)
        self.inside = 0
        self.current: tuple[int, str] | None = None
        self.wrong: list[str] = []
        sys.unraisablehook = self._ignored
        sys.set_asyncgen_hooks(firstiter=self._hook)

    @staticmethod
    def _hook(_: object) -> None:
        """Install the handler of an event loop."""

    def _ignored(self, about: Any) -> None:
        """Check that no exception that Python swallows (in a `__del__`) comes from sidelight."""
        self.wrong.append(f"ignored: {about.exc_value!r} in {about.object!r}")

    def until_interrupted(self) -> None:
        """Make calls until the exception arrives."""
        self.current = None
        errors = self.interrupter.errors
        until = time.monotonic() + ARRIVES_WITHIN
        try:
            self.interrupter.send(random.uniform(1e-6, LATEST))
            while True:  # with a condition, CPython 3.13 does not watch the jump back to it
                self._make(next(self.numbers))
                if time.monotonic() > until:
                    self.wrong.append(f"swallowed before {next(self.numbers)}")
                    break
        except errors:
            self.inside += self.current is not None
        if trace.get_current_span() is not trace.INVALID_SPAN:
            self.wrong.append(f"in {self.current} a span stays current")
            raise SystemExit(self.told())
        if sys.get_asyncgen_hooks().firstiter is not self._hook:
            self.wrong.append(f"in {self.current} a hook of the event loop is lost")
            raise SystemExit(self.told())

    def _make(self, n: int) -> None:
        kind = self.order.kinds[n % len(self.order.kinds)]
        fails = n % FAILS == 0 and kind != "emit" and by != "limit"
        thing: Any = ValueError(n) if fails else object()
        self.current = n, kind
        try:
            outcome = self.calls[kind](n, thing)
        except ValueError as error:
            outcome = error
        self.current = None
        event_id = str(outcome).encode() if kind == "emit" else b""
        differs = kind != "emit" and outcome is not thing
        os.write(self.order.report, REPORT.pack(n, 0, 0, KINDS.index(kind), differs, 0, event_id))

    def told(self) -> str:
        """The report, as JSON."""
        return json.dumps({"inside": self.inside, "wrong": self.wrong})


def main() -> None:
    """Be interrupted so many times."""
    order = Order.received()
    random.seed(order.seed)
    exec(order.prelude, globals())
    sidelight.configure(**order.configure or {})
    gc.disable()  # an exception in a finalizer of other code is lost
    calls = Calls(order, INTERRUPTERS[by]())
    for number in range(order.calls):
        calls.until_interrupted()
        if number % RELAYED == RELAYED - 1:
            sidelight.flush(60.0)
    sys.unraisablehook = sys.__unraisablehook__
    print(calls.told(), file=sys.stderr)


if __name__ == "__main__":
    main()
