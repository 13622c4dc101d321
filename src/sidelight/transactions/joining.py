"""The event inside the caller's own transaction: looked at before the call, joined after it.

A point with ``transaction=`` or ``after_commit=`` makes a `Ticket` before the call and gives it the
event when the function has succeeded. What differs between SQLAlchemy, psycopg and Django is in
`registry`; here is what they have in common: an event that cannot join goes to the spool,
says so in an attribute of its own, and is counted. It never breaks the work, unless `strict` asks
for that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from sidelight.emission import EMITTER, Head, JoinedReceipt
from sidelight.host import is_interrupt
from sidelight.record import Costs
from sidelight.transactions.entry import (
    Entry,
    Guard,
    Refused,
    Transaction,
)

_clock: Final = time.perf_counter_ns


class Ticket:
    """What a point holds of the caller's transaction while the function runs."""

    __slots__ = ("_joining", "_transaction")

    def __init__(self, joining: Joining, transaction: Transaction | None) -> None:
        self._joining = joining
        self._transaction = transaction

    def hush(self) -> Callable[[], object]:
        """See `Transaction.hush`."""
        return _nothing if self._transaction is None else self._transaction.hush()

    def join(self, head: Head, moment: tuple[Any, ...]) -> None:
        """Give the event to the transaction.

        Raises:
            TransactionError: in strict mode, when it cannot be.
        """
        self.take(self._entry(head, moment))

    def receipt(self, head: Head, moment: tuple[Any, ...]) -> JoinedReceipt:
        """Give the event to the transaction, and tell what becomes of it.

        Raises:
            TransactionError: in strict mode, when it cannot be.
        """
        entry = self._entry(head, moment)
        time, random, *_ = moment
        if self.has_to_be_awaited:
            return JoinedReceipt(EMITTER.watermark, time, random, _Unjoined(self, entry))
        entry.receipt = JoinedReceipt(EMITTER.watermark, time, random)
        self.take(entry)
        return entry.receipt

    def _entry(self, head: Head, moment: tuple[Any, ...]) -> Entry:
        return Entry(self._joining.point, head, moment, strict=self._joining.strict)

    def take(self, entry: Entry) -> None:
        """See `join`."""
        with Guard(entry):
            if self._transaction is None:
                raise Refused("unknown kind")
            if self._joining.waits_for_commit:
                self._transaction.after_commit(entry)
            else:
                self._transaction.check()
                self._transaction.insert(entry)

    def defer(self, span: Any, head: Head, moment: tuple[Any, ...]) -> None:
        """Give the event to the transaction; what has to be awaited is left with the span."""
        entry = self._entry(head, moment)
        if not self.has_to_be_awaited:
            self.take(entry)
            return
        span.joining = [*(span.joining or ()), (self, entry)]

    @property
    def has_to_be_awaited(self) -> bool:
        """Whether to join means to await an asynchronous connection."""
        return (
            self._transaction is not None
            and not self._joining.waits_for_commit
            and self._transaction.awaited
        )

    async def take_awaited(self, entry: Entry) -> None:
        """See `join`; on an asynchronous connection."""
        with Guard(entry):
            assert self._transaction is not None  # noqa: S101  # it has to be awaited
            self._transaction.check()
            await self._transaction.insert_awaited(entry)


class _Unjoined:
    """What the receipt of an event holds until it is awaited."""

    __slots__ = ("_entry", "_ticket")

    def __init__(self, ticket: Ticket, entry: Entry) -> None:
        self._ticket = ticket
        self._entry = entry

    async def join(self, receipt: JoinedReceipt) -> None:
        """Put it into its transaction."""
        self._entry.receipt = receipt
        await self._ticket.take_awaited(self._entry)

    def give_up(self) -> None:
        """Let it go its own way; what is done is done."""
        self._entry.refuse("not awaited", too_late=True)


class JoiningLater:
    """What an asynchronous wrapper does with the joins that one point has left with the span."""

    def __init__(self, costs: Costs) -> None:
        self._costs = costs

    def names(self) -> dict[str, Any]:
        """By the names that generated code has for it."""
        return {"_join_here": self.here, "_join_awaited": self.awaited}

    async def awaited(self, span: Any) -> None:
        """Join; what this takes is counted with the emission."""
        begun = _clock()
        left, span.joining = span.joining, None
        for ticket, entry in left:
            await ticket.take_awaited(entry)
        self._count(span, begun)

    def here(self, span: Any, _: object = None) -> None:
        """Join from where nothing can be awaited."""
        if span.joining is None:
            return
        begun = _clock()
        left, span.joining = span.joining, None
        for ticket, entry in left:
            ticket.take(entry)
        self._count(span, begun)

    def _count(self, span: Any, begun: int) -> None:
        self._costs.add(span.cost + _clock() - begun)
        span.cost = 0


class Joining:
    """How the events of one declaration join transactions."""

    def __init__(self, point: str, *, strict: bool, after_commit: bool) -> None:
        self.point = point
        self.strict = strict
        self._after_commit = after_commit

    @property
    def waits_for_commit(self) -> bool:
        """Whether the event is emitted at the commit, rather than inserted before it."""
        return self._after_commit or not EMITTER.joins

    def enlist(self, target: Any) -> Ticket:
        """Look at the caller's transaction."""
        from sidelight.transactions.registry import transaction_of  # noqa: PLC0415  # where it is needed

        try:
            return Ticket(self, transaction_of(target))
        except Exception as error:
            if is_interrupt(error):
                raise
            EMITTER.lost("transaction not looked at", self.point, error)
            return Ticket(self, None)


def _nothing() -> None:
    pass
