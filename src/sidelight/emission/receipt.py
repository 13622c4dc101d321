"""Receipts: what an emitter gets back, and the watermark that tells it when the store has it."""

from __future__ import annotations

import _thread
import contextlib
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias

from sidelight.emission.event_loops import signal
from sidelight.record import event_id

if TYPE_CHECKING:
    from sidelight.spool import Position

State: TypeAlias = Literal["stored", "spooled", "joined", "lost"]
NOWHERE: Final = (1 << 62, 0)


class Progress:
    """How far the store has got in this process's part of the spool, and who waits for it.

    A waiter is a position and a function to call once the store is past it. Three things tell that
    a wait could not end in time, so that there is none: `active` is False until the store answers
    and while it does not; `late` is True while the relay's own wake-ups come late, because the GIL
    is contended; and where somebody has waited in vain, the store is still behind that.
    """

    def __init__(self) -> None:
        self.position: Position = (0, 0)
        self.late = False
        self.active = False
        self.poke: Callable[[], object] = lambda: None
        self._waiters: list[tuple[Position, Callable[[], object]]] = []
        self._in_vain: Position = (0, 0)

    def reached(self, position: Position) -> bool:
        """Whether the store has everything before ``position``."""
        return self.position >= position

    def advance(self, position: Position) -> None:
        """Called by the relay after its commit."""
        self.position = position
        for waiter in self._waiters[:]:
            if waiter[0] <= position:
                with contextlib.suppress(ValueError):
                    self._waiters.remove(waiter)
                with contextlib.suppress(RuntimeError):  # an event loop closed, a lock let go
                    waiter[1]()

    def wait(self, position: Position, seconds: float) -> bool:
        """Block the thread until the store has passed ``position``, ``seconds`` at the longest."""
        if self.reached(position):
            return True
        if seconds <= 0 or not self._is_worth_while():
            return False
        lock = _thread.allocate_lock()  # looked up now: gevent may have put its own there
        lock.acquire()
        waiter = (position, lock.release)
        self._waiters.append(waiter)
        if not self.reached(position):  # else the relay passed before it could see the waiter
            self.poke()
            lock.acquire(timeout=seconds)
        self._leave(waiter)
        return self._waited(position)

    async def arrive(self, position: Position, seconds: float) -> bool:
        """Like `wait`, for a task; others run meanwhile where its event loop is known to us."""
        if self.reached(position):
            return True
        if seconds <= 0 or not self._is_worth_while():
            return False
        if (done := signal()) is None:  # another kind of event loop: a bounded block
            return self.wait(position, seconds)
        waiter = (position, done.set)
        self._waiters.append(waiter)
        try:
            if not self.reached(position):
                self.poke()
                await done.wait(seconds)
        finally:
            self._leave(waiter)
        return self._waited(position)

    def _is_worth_while(self) -> bool:
        return self.active and not self.late and self.reached(self._in_vain)

    def _waited(self, position: Position) -> bool:
        """Whether it was not in vain; if it was, the store has to come so far before the next."""
        reached = self.reached(position)
        if not reached:
            self._in_vain = position
        return reached

    def _leave(self, waiter: tuple[Position, Callable[[], object]]) -> None:
        with contextlib.suppress(ValueError):
            self._waiters.remove(waiter)


class Receipt:
    """What became of one emission.

    ``str(receipt)`` is the event's id, and empty when it was lost. Awaiting a receipt, or calling
    `wait`, gives the store the rest of the deadline to acknowledge it; neither ever raises.
    """

    def __init__(
        self,
        progress: Progress,
        position: Position | None,
        time_ns: int,
        random_bits: int,
        deadline: float,
    ) -> None:
        self._progress = progress
        self._position = position
        self._time = time_ns
        self._random = random_bits
        self._until = time.perf_counter() + deadline

    @property
    def event_id(self) -> str:
        """The event's UUIDv7 as text; empty when it was lost."""
        return "" if self._position is None else event_id(self._time, self._random)

    @property
    def state(self) -> State:
        """Where the event is now: "stored", "spooled" (it will be), "joined" or "lost"."""
        if self._position is None:
            return "lost"
        return "stored" if self._progress.reached(self._position) else "spooled"

    def wait(self) -> Receipt:
        """Block until the store has the event or the deadline is over."""
        if self._position is not None:
            self._progress.wait(self._position, self._until - time.perf_counter())
        return self

    def __await__(self) -> Generator[Any, None, Receipt]:
        if self._position is not None:
            seconds = self._until - time.perf_counter()
            yield from self._progress.arrive(self._position, seconds).__await__()
        return self

    def __str__(self) -> str:
        return self.event_id

    def __repr__(self) -> str:
        return f"<Receipt {self.event_id or '—'} {self.state}>"


class Unjoined(Protocol):
    """An event that joins by an `await`, because its connection is asynchronous."""

    async def join(self, receipt: JoinedReceipt) -> None:
        """Put it into its transaction.

        Raises:
            TransactionError: in strict mode, when it cannot be.
        """

    def give_up(self) -> None:
        """Nobody has awaited it: let it go its own way."""


class JoinedReceipt(Receipt):
    """The receipt for an event in the caller's transaction: what becomes of it, the commit says.

    The state is "joined" until the event leaves the transaction for the spool, as one does that
    waits for the commit, or cannot join.
    """

    def __init__(
        self,
        progress: Progress,
        time_ns: int,
        random_bits: int,
        unjoined: Unjoined | None = None,
    ) -> None:
        super().__init__(progress, None, time_ns, random_bits, 0.0)
        self._lost = False
        self._unjoined = unjoined

    def __await__(self) -> Generator[Any, None, Receipt]:
        unjoined, self._unjoined = self._unjoined, None
        if unjoined is not None:
            yield from unjoined.join(self).__await__()
        return (yield from super().__await__())

    def __del__(self) -> None:
        if self._unjoined is not None:
            self._unjoined.give_up()

    @property
    def event_id(self) -> str:
        """The event's UUIDv7 as text; empty when it was lost."""
        return "" if self._lost else event_id(self._time, self._random)

    @property
    def state(self) -> State:
        """Where the event is now."""
        if self._lost:
            return "lost"
        return "joined" if self._position is None else super().state

    def left(self, position: Position | None) -> None:
        """Take in that the event went to the spool, or was lost on the way there."""
        self._position, self._lost = position, position is None
