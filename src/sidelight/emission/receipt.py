"""Receipts: what an emission returns to its caller."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from sidelight.emission.waiting import Watermark
from sidelight.host import monotonic
from sidelight.record import event_id

if TYPE_CHECKING:
    from sidelight.spool import Position

State: TypeAlias = Literal["stored", "streamed", "spooled", "volatile", "joined", "refused", "lost"]


class Receipt:
    """The result of one emission.

    ``str(receipt)`` is the event's id; it is empty when the event was lost. `wait`, or awaiting the
    receipt, gives the store the rest of the deadline to acknowledge the event. Neither raises.
    """

    def __init__(
        self,
        watermark: Watermark,
        position: Position | None,
        time_ns: int,
        random_bits: int,
        seconds: float,
    ) -> None:
        """Make a receipt.

        Args:
            watermark: of the store, in this process's part of the spool.
            position: behind the record in the spool; None where the event was lost.
            time_ns: when the event occurred (ns); with ``random_bits`` it makes the id.
            random_bits: 64 bits.
            seconds: the longest that a wait may last.
        """
        self._watermark = watermark
        self._position = position
        self._time = time_ns
        self._random = random_bits
        self._until = monotonic() + seconds

    @property
    def event_id(self) -> str:
        """The event's UUIDv7 as text; empty when the event was lost."""
        return "" if self._position is None else event_id(self._time, self._random)

    @property
    def state(self) -> State:
        """Where the event is now.

        "stored": in the store. "streamed": in the stream, where there is a stream and no store.
        "spooled": in the spool, and the relay will deliver it. "volatile": as "spooled", but only
        in the memory of this process, because no disk takes the spool at the moment. "joined": in
        the caller's transaction. "refused": in the quarantine, because the store or the stream
        refused it; or nowhere, because its artifact or organization was erased. "lost": nowhere;
        the loss was counted.
        """
        if self._position is None:
            return "lost"
        mark = self._watermark
        if not mark.reached(self._position):
            return "volatile" if mark.is_volatile(self._position) else "spooled"
        return "refused" if mark.was_refused(self._random) else mark.acknowledged

    def wait(self) -> Receipt:
        """Block until the store has the event or the deadline has passed."""
        if self._position is not None:
            self._watermark.wait(self._position, self._until - monotonic())
        return self

    def __await__(self) -> Generator[Any, None, Receipt]:
        if self._position is not None:
            seconds = self._until - monotonic()
            yield from self._watermark.arrive(self._position, seconds).__await__()
        return self

    def __str__(self) -> str:
        return self.event_id

    def __repr__(self) -> str:
        return f"<Receipt {self.event_id or '—'} {self.state}>"


class Unjoined(Protocol):
    """An event that joins its transaction by an `await`, because the connection is asynchronous."""

    async def join(self, receipt: JoinedReceipt) -> None:
        """Put the event into its transaction.

        Raises:
            TransactionError: in strict mode, where the event cannot join.
        """

    def give_up(self) -> None:
        """Write the event to the spool, because the receipt was not awaited."""


class JoinedReceipt(Receipt):
    """The receipt for an event in the caller's transaction, which the commit decides about.

    The state is "joined" until the event goes to the spool: after the commit that it waited for, or
    because it cannot join.
    """

    _unjoined: Unjoined | None = None  # `__del__` needs it, as in `Segment`

    def __init__(
        self,
        watermark: Watermark,
        time_ns: int,
        random_bits: int,
        unjoined: Unjoined | None = None,
    ) -> None:
        super().__init__(watermark, None, time_ns, random_bits, 0.0)
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
        """The event's UUIDv7 as text; empty when the event was lost."""
        return "" if self._lost else event_id(self._time, self._random)

    @property
    def state(self) -> State:
        """Where the event is now: see `Receipt.state`."""
        if self._lost:
            return "lost"
        return "joined" if self._position is None else super().state

    def moved_to(self, position: Position | None) -> None:
        """Note the event's position in the spool; None where the event was lost."""
        self._position, self._lost = position, position is None
