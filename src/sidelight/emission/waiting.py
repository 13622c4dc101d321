"""The store's watermark, and the bounded waits for it: of threads, of tasks, of a point's calls."""

from __future__ import annotations

import _thread
import contextlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from sidelight.emission.contention import Contention
from sidelight.emission.event_loops import signal
from sidelight.host import Ran, imported, perf_counter_ns

if TYPE_CHECKING:
    from sidelight.emission.light_span import LightSpan
    from sidelight.record import Costs
    from sidelight.spool import Position

#: `Task.uncancel` restores the whole state of the task, so that a cancellation can be handed on.
_CAN_UNCANCEL: Final = sys.version_info >= (3, 13)
_clock: Final = perf_counter_ns
_OVERSHOT: Final = 0.001  # seconds behind the deadline; a wait that ended later was delayed
MAX_REFUSED: Final = 10_000
"""How many refused events a watermark remembers."""


class Watermark:
    """The position in this process's part of the spool up to which the store has every record.

    Three states tell that a wait cannot end in time, and then no thread waits: the store does not
    answer (`store_answers`), other threads hold the GIL (`contention`), or the store is still
    behind the position of an earlier wait that timed out.

    Attributes:
        position: set by the relay after each commit.
        contention: tells whether other threads would delay the end of a wait.
        store_answers: set by the relay.
        wake_relay: called before a wait.
        acknowledged: the state of a receipt that the watermark has passed; set by the relay.
        is_volatile: tells whether only this process's memory may hold the record at a position.
    """

    def __init__(self, is_volatile: Callable[[Position], bool] = lambda _: False) -> None:
        self.is_volatile = is_volatile
        self.position: Position = (0, 0)
        self.contention = Contention()
        self.store_answers = False
        self.wake_relay: Callable[[], object] = lambda: None
        self.acknowledged: Literal["stored", "streamed"] = "stored"
        self._waiters: list[tuple[Position, Callable[[], object]]] = []
        self._timed_out_at: Position = (0, 0)
        self._refused: dict[int, None] = {}

    def reached(self, position: Position) -> bool:
        """Return whether the store has every record before ``position``."""
        return self.position >= position

    def note_refused(self, random_bits: int) -> None:
        """Note that the store refused an event, before `advance` passes it."""
        self._refused[random_bits] = None
        while len(self._refused) > MAX_REFUSED:
            del self._refused[next(iter(self._refused))]

    def was_refused(self, random_bits: int) -> bool:
        """Return whether the store refused the event with these random bits."""
        return random_bits in self._refused

    def advance(self, position: Position) -> None:
        """Set the watermark and wake the waiters that it passed."""
        self.position = position
        for waiter in self._waiters[:]:
            if waiter[0] <= position:
                self._remove(waiter)
                with contextlib.suppress(RuntimeError):  # a closed event loop, a released lock
                    waiter[1]()

    def wait(self, position: Position, seconds: float) -> bool:
        """Block the thread until the watermark reaches ``position``, at most ``seconds``."""
        if self.reached(position):
            return True
        if seconds <= 0 or not self._can_end_in_time(in_a_loop=False):
            return False
        begun = _clock()
        lock = _thread.allocate_lock()  # looked up at the call, because gevent may patch it
        lock.acquire()
        waiter = (position, lock.release)
        self._waiters.append(waiter)
        if not self.reached(position):  # else the relay passed before it could see the waiter
            self.wake_relay()
            lock.acquire(timeout=seconds)
        self._remove(waiter)
        return self._note_end(position, _clock() - begun, seconds, in_a_loop=False)

    async def arrive(self, position: Position, seconds: float) -> bool:
        """Suspend the task like `wait`; in an unknown kind of event loop, block it."""
        if self.reached(position):
            return True
        if seconds <= 0 or not self._can_end_in_time(in_a_loop=True):
            return False
        begun = _clock()
        if (done := signal()) is None:
            return self.wait(position, seconds)
        waiter = (position, done.set)
        self._waiters.append(waiter)
        try:
            if not self.reached(position):
                self.wake_relay()
                await done.wait(seconds)
        finally:
            self._remove(waiter)
        return self._note_end(position, _clock() - begun, seconds, in_a_loop=True)

    def _can_end_in_time(self, *, in_a_loop: bool) -> bool:
        return (
            self.store_answers
            and self.reached(self._timed_out_at)
            and not self.contention.delays_a_wait(in_a_loop=in_a_loop)
        )

    def _note_end(self, position: Position, took: int, seconds: float, *, in_a_loop: bool) -> bool:
        """Return whether the wait succeeded.

        After a timeout the next waits only once this is reached.
        """
        if took > (seconds + _OVERSHOT) * 1e9:
            self.contention.note_late(in_a_loop=in_a_loop)
        reached = self.reached(position)
        if not reached:
            self._timed_out_at = position
        return reached

    def _remove(self, waiter: tuple[Position, Callable[[], object]]) -> None:
        with contextlib.suppress(ValueError):
            self._waiters.remove(waiter)


class Waitable(Protocol):
    """The part of the emitter that the waits of a point use."""

    watermark: Watermark

    def remaining(self, spent: int) -> float:
        """Return the seconds that a wait may last after ``spent`` (ns) of the deadline."""
        ...

    def lost(self, reason: str, point: str, error: BaseException, *, ran: Ran = "value") -> None:
        """Count a loss."""


class PointWaits:
    """The waits of one point; their time is counted together with the emission's own.

    A wait raises interrupts only: a cancellation, Ctrl-C, the error of a signal handler.
    """

    def __init__(self, emitter: Waitable, path: str, costs: Costs) -> None:
        self._emitter = emitter
        self._path = path
        self._costs = costs

    def names(self) -> dict[str, Any]:
        """Return the waits by their names in generated code."""
        return {
            "_wait": self.wait,
            "_wait_counted": self.wait_counted,
            "_arrive": self.arrive,
            "_arrive_last": self.arrive_last,
        }

    def wait(self, position: Position, spent: int) -> None:
        """Block; ``spent`` (ns) of the deadline is gone."""
        try:
            self._emitter.watermark.wait(position, self._emitter.remaining(spent))
        except Exception as problem:  # noqa: BLE001  # the guard
            self._not_awaited(problem)

    def wait_counted(self, span: LightSpan, position: Position) -> None:
        """Block in an asynchronous wrapper that cannot await, and count the time."""
        begun = _clock()
        self.wait(position, span.cost)
        self._count(span, begun)

    async def arrive(self, span: LightSpan, position: Position) -> None:
        """Await at the start of a call."""
        begun = _clock()
        try:
            await self._emitter.watermark.arrive(position, self._emitter.remaining(span.cost))
        except Exception as problem:  # noqa: BLE001  # the guard
            self._not_awaited(problem)
        self._count(span, begun)

    async def arrive_last(self, span: LightSpan, position: Position) -> None:
        """Await at the end of a call, whose work is done.

        A cancellation meanwhile must not discard the result of the work. So the task is uncancelled
        here and cancelled again at the caller's next await. Before Python 3.13 `asyncio.timeout`
        does not recognize such a cancellation as its own; there it is raised here.
        """
        try:
            await self.arrive(span, position)
        except BaseException as cancelled:
            asyncio = imported("asyncio")  # not imported for this: see `signal`
            if asyncio is None or not isinstance(cancelled, asyncio.CancelledError):
                raise
            task = asyncio.current_task()
            if task is None or not _CAN_UNCANCEL:
                raise
            task.uncancel()
            task.cancel(*cancelled.args)

    def _not_awaited(self, problem: Exception) -> None:
        self._emitter.lost("store not awaited", self._path, problem, ran="sidelight")

    def _count(self, span: LightSpan, begun: int) -> None:
        self._costs.add(span.cost + _clock() - begun)
        span.cost = 0
