"""A program that emits, and reports each wrapped call once it has returned.

``python -m tests.support.emitting`` carries out the `Order` in its environment. Its reports go over
a pipe to the process that started it (see `tests.support.programs`), so that the acknowledged calls
are known after the death of the program. Programs of other kinds (servers, pools of workers) import
parts of this module.

Each call is made twice: undecorated (the *twin*) and decorated. Both must have the same outcome:
the same object, or the same exception with the same traceback. Where the emission waits for the
store, or opens the spool, its twin waits and computes for as long in plain Python, within bounds:
an interruption by the machine meets both alike.
"""

from __future__ import annotations

import asyncio
import atexit  # noqa: F401
import contextlib
import functools
import itertools
import json
import os
import pkgutil
import random
import signal
import struct
import sys  # noqa: F401  # as others here, for preludes
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass, field, replace  # noqa: F401
from typing import Any

import sidelight
from sidelight import arg, emits
from sidelight.emission.emitter import EMITTER

KINDS = ("scheduled", "awaited", "scheduled async", "awaited async", "emit")
ORDER = "FAULTS_ORDER"
REPORT = struct.Struct("<QIIBBB36s")
"""Number of the call, its nanoseconds, its twin's, kind, whether the outcomes differ, whether its
event was counted as lost (known where one thread emits), event id."""
LOSSES = ("no room in the spool", "not recorded", "internal error", "recursion limit")
"""The reasons for which an event is lost on its caller's path."""
FAILS = 7  # every so many calls the function raises
_WAITED, _LONGEST_WAIT = 0.0002, 0.005  # seconds of an awaited emission that did wait
_COMPUTED, _LONGEST_WORK = 500_000, 3_000_000  # ns of CPU of an emission that opened the spool


@dataclass(frozen=True)
class Order:
    """The order for a program.

    Attributes:
        first: number of the first call; programs of one test must not share numbers.
        calls: how many each thread makes; 0 goes on until SIGUSR1, -1 is none.
        pause: seconds between calls.
        kinds: taken in turn.
        configure: arguments of `sidelight.configure`; None leaves it to the first emission, which
            then opens the spool on its caller's time.
        prelude: Python that runs first, in the namespace of this module.
        finale: Python that runs when all calls are made.
        report: file descriptor that takes the reports.
    """

    first: int = 0
    calls: int = 0
    threads: int = 1
    pause: float = 0.0
    kinds: tuple[str, ...] = KINDS
    configure: dict[str, Any] | None = field(default_factory=dict)
    prelude: str = ""
    finale: str = ""
    seed: int = 0
    report: int = -1

    def as_json(self) -> str:
        """For the environment."""
        return json.dumps(asdict(self))

    @classmethod
    def received(cls) -> Order:
        """The order of this process."""
        told = json.loads(os.environ[ORDER])
        return cls(**{**told, "kinds": tuple(told["kinds"])})


class Stop:
    """Set by SIGUSR1."""

    asked = False


def plain(n: int, thing: Any) -> Any:
    """The work of the pipeline: hand a thing on, or fail."""
    if isinstance(thing, BaseException):
        raise thing
    return thing


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine to its end. A prelude may put another event loop here, and below."""
    asyncio.run(work())


async def sleep(seconds: float) -> None:
    """Let others run."""
    await asyncio.sleep(seconds)


async def plain_async(n: int, thing: Any) -> Any:
    """The same, as a coroutine."""
    await sleep(0)
    return plain(n, thing)


FIELDS: dict[str, Any] = {"artifact_id": arg.n, "organization_id": "org", "n": arg.n}


def decorate(**fields: Any) -> None:
    """Decorate anew, to capture these as well."""
    global scheduled, awaited, scheduled_async, awaited_async
    captured = {**FIELDS, **fields}
    scheduled = emits("scheduled", failure="scheduled_failed", **captured)(plain)
    scheduled_async = emits("scheduled_async", failure="async_failed", **captured)(plain_async)
    captured["mode"] = "awaited"
    awaited = emits("awaited", failure="awaited_failed", **captured)(plain)
    awaited_async = emits("awaited_async", failure="awaited_async_failed", **captured)(plain_async)


decorate()


@dataclass
class Caller:
    """Makes the calls of one thread."""

    order: Order
    number: int
    waits: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 0.0))
    work: int = 0

    async def run(self) -> None:
        """Call until all calls are made, or until the signal to stop."""
        order = self.order
        step = 1_000_000 * self.number
        for i in range(order.calls or 1 << 62):
            if Stop.asked:
                break
            await self.call(order.first + step + i, order.kinds[i % len(order.kinds)])
            if order.pause:
                await sleep(order.pause)

    async def call(self, n: int, kind: str) -> None:
        """Make one call and its twin, and report."""
        thing: Any = ValueError(n) if n % FAILS == 0 and kind != "emit" else object()
        lost_before, self.work = lost(), 0
        computed = time.thread_time_ns()
        spent, found, event_id = await self._timed(kind, n, thing)
        is_lost = self.order.threads == 1 and lost() > lost_before
        computed = time.thread_time_ns() - computed
        self.work = min(computed, _LONGEST_WORK) if computed > _COMPUTED else 0
        self.waits[kind] = min(spent / 1e9, _LONGEST_WAIT) if spent / 1e9 > _WAITED else 0.0
        twin, expected, _ = await self._timed("twin of " + kind, n, thing)
        differs = kind != "emit" and found != expected
        times = min(spent, 0xFFFF_FFFF), min(twin, 0xFFFF_FFFF)
        told = REPORT.pack(n, *times, KINDS.index(kind), differs, is_lost, event_id)
        os.write(self.order.report, told)

    async def _timed(self, kind: str, n: int, thing: Any) -> tuple[int, Any, bytes]:
        """Nanoseconds, the outcome, and the event's id where the call has a receipt."""
        if isinstance(thing, BaseException):
            thing.__traceback__ = None
        begun = time.perf_counter_ns()
        outcome: Any = None
        event_id = b""
        try:
            match kind:
                case "scheduled":
                    outcome = scheduled(n, thing)
                case "awaited":
                    outcome = awaited(n, thing)
                case "scheduled async":
                    outcome = await scheduled_async(n, thing)
                case "awaited async":
                    outcome = await awaited_async(n, thing)
                case "emit":
                    event_id = str(sidelight.emit("direct", artifact_id=n, n=n)).encode()
                case "twin of scheduled" | "twin of awaited":
                    outcome = plain(n, thing)
                case "twin of scheduled async" | "twin of awaited async":
                    outcome = await plain_async(n, thing)
        except BaseException as error:
            outcome = (error, frames(error))
        if kind.startswith("twin"):
            until = time.thread_time_ns() + self.work
            while self.work and time.thread_time_ns() < until:
                pass
        if kind.startswith("twin of awaited"):
            wait = self.waits[kind.removeprefix("twin of ")]
            if wait and kind.endswith("async"):
                await sleep(wait)
            elif wait:
                time.sleep(wait)  # noqa: ASYNC251  # as the awaited emission of a plain function does
        return time.perf_counter_ns() - begun, outcome, event_id


def lost() -> int:
    """How many events this process has counted as lost on their callers' paths."""
    return sum(EMITTER.losses.get(reason, 0) for reason in LOSSES)


def frames(error: BaseException) -> list[tuple[object, int]]:
    """Code and line of each frame of a traceback but the caller's and the wrapper's own."""
    found = []
    traceback = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if not code.co_filename.startswith("<sidelight ") and code is not Caller._timed.__code__:
            found.append((code, traceback.tb_lineno))
        traceback = traceback.tb_next
    return found


def arm(place: str, when: str, nth: int, number: int = signal.SIGKILL) -> None:
    """Let the process be killed before or after the nth call of a function: a failpoint.

    Args:
        place: ``package.module:Class.method``.
        when: "before" or "after".
        nth: the number of the call, from 1.
        number: of another signal.
    """
    path, _, name = place.replace(":", ".").rpartition(".")
    owner = pkgutil.resolve_name(path)
    found = vars(owner)[name]
    function = getattr(found, "__func__", found)
    calls = itertools.count(1)

    @functools.wraps(function)
    def armed(*arguments: Any, **named: Any) -> Any:
        call = next(calls)
        if call == nth and when == "before":
            os.kill(os.getpid(), number)
        answer = function(*arguments, **named)
        if call == nth and when == "after":
            os.kill(os.getpid(), number)
        return answer

    setattr(owner, name, classmethod(armed) if isinstance(found, classmethod) else armed)


def call(n: int, *kinds: str) -> None:
    """Make a call of each of these kinds, the nth of the order and its next, without a loop."""
    order = Order.received()
    caller = Caller(order, 0)
    for i, kind in enumerate(kinds or ("scheduled", "awaited", "emit"), order.first + n):
        with contextlib.suppress(StopIteration):
            caller.call(i, kind).send(None)


def prepare(order: Order) -> None:
    """Everything before the first call."""

    def stop(*_: object) -> None:
        Stop.asked = True

    signal.signal(signal.SIGUSR1, stop)
    random.seed(order.seed)
    exec(order.prelude, globals())
    if order.configure is not None:
        sidelight.configure(**order.configure)


def main() -> None:
    """Do what the order says."""
    order = Order.received()
    prepare(order)
    callers = [Caller(order, number) for number in range(order.threads)]
    others = [threading.Thread(target=run, args=(each.run,)) for each in callers[1:]]
    for thread in others:
        thread.start()
    run(callers[0].run)
    for thread in others:
        thread.join()
    exec(order.finale, globals())


if __name__ == "__main__":
    main()
