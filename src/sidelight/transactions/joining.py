"""The event inside the caller's transaction: the transaction is found before the call.

A point with ``transaction=`` or ``after_commit=`` makes a `Ticket` before the call and gives it the
event when the function has succeeded. An event that cannot join is emitted after the commit
instead, carries the reason as an attribute and is counted. It never breaks the work, unless
`strict` asks for that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sidelight.emission import EMITTER, Head, JoinedReceipt
from sidelight.host import is_interrupt, perf_counter_ns
from sidelight.record import Costs
from sidelight.transactions.entry import Entry, Guard, Refused
from sidelight.transactions.registry import transaction_of
from sidelight.transactions.replaced import chosen
from sidelight.transactions.transaction import Transaction, keep_settings

_clock: Final = perf_counter_ns


class Ticket:
    """The caller's transaction, held by a point while the function runs."""

    __slots__ = ("_joining", "_target", "_transaction")

    def __init__(self, joining: Joining, target: Any, transaction: Transaction | None) -> None:
        self._joining = joining
        self._target = target
        self._transaction = transaction

    def look_again(self, named: Callable[[], Any] | None = None) -> None:
        """Take in, after the call, that the function may have replaced what the point names.

        Args:
            named: returns what the point names now; None where that cannot have changed.
        """
        try:
            target = self._target if named is None else named()
            before = self._transaction
            if target is self._target:
                now = None if before is None else before.successor()
            else:
                now = transaction_of(target)
                if now is not None and before is not None and now.place == before.place:
                    return
            if now is not None:
                self._transaction = chosen(before, now)
        except BaseException as error:  # what names nothing any more has no successor
            if is_interrupt(error):
                raise

    def suspend_autoflush(self) -> Callable[[], object]:
        """See `Transaction.suspend_autoflush`."""
        return keep_settings if self._transaction is None else self._transaction.suspend_autoflush()

    def join(self, head: Head, moment: tuple[Any, ...]) -> None:
        """Give the event to the transaction.

        Raises:
            TransactionError: in strict mode, when the event cannot join.
        """
        self.join_entry(self._entry(head, moment))

    def receipt(self, head: Head, moment: tuple[Any, ...]) -> JoinedReceipt:
        """Give the event to the transaction and return its receipt.

        Raises:
            TransactionError: in strict mode, when the event cannot join.
        """
        entry = self._entry(head, moment)
        time, random, *_ = moment
        if self.needs_await:
            return JoinedReceipt(EMITTER.watermark, time, random, _Unjoined(self, entry))
        entry.receipt = JoinedReceipt(EMITTER.watermark, time, random)
        self.join_entry(entry)
        return entry.receipt

    def defer(self, span: Any, head: Head, moment: tuple[Any, ...]) -> None:
        """Give the event to the transaction; a join that needs an await is left with the span."""
        entry = self._entry(head, moment)
        if not self.needs_await:
            self.join_entry(entry)
            return
        span.joining = [*(span.joining or ()), (self, entry)]

    def _entry(self, head: Head, moment: tuple[Any, ...]) -> Entry:
        return Entry(self._joining.point, head, moment, strict=self._joining.strict)

    @property
    def needs_await(self) -> bool:
        """Whether to join means to await an asynchronous connection."""
        return (
            self._transaction is not None
            and not self._joining.waits_for_commit
            and self._transaction.needs_await
        )

    def join_entry(self, entry: Entry) -> None:
        """See `join`."""
        with Guard(self._wait, entry):
            if self._transaction is None:
                raise Refused("unknown kind")
            if self._joining.waits_for_commit:
                self._transaction.after_commit(entry)
            else:
                self._transaction.check()
                self._transaction.insert(entry)

    def refuse(self, entry: Entry, reason: str) -> None:
        """Refuse an event when it is too late to undo the work."""
        with Guard(None, entry):
            entry.refuse(reason, wait=self._wait, too_late=True)

    @property
    def _wait(self) -> Callable[[Entry], None] | None:
        return None if self._transaction is None else self._transaction.after_commit

    async def join_awaited(self, entry: Entry) -> None:
        """See `join`; on an asynchronous connection."""
        with Guard(self._wait, entry):
            assert self._transaction is not None  # noqa: S101  # `needs_await` was true
            self._transaction.check()
            await self._transaction.insert_awaited(entry)


class _Unjoined:
    """The event of a receipt that was not awaited yet."""

    __slots__ = ("_entry", "_ticket")

    def __init__(self, ticket: Ticket, entry: Entry) -> None:
        self._ticket = ticket
        self._entry = entry

    async def join(self, receipt: JoinedReceipt) -> None:
        """Give the event to its transaction."""
        self._entry.receipt = receipt
        await self._ticket.join_awaited(self._entry)

    def give_up(self) -> None:
        """Refuse the event, because its receipt was never awaited."""
        self._ticket.refuse(self._entry, "not awaited")


class JoiningLater:
    """Performs the joins that one point has left with the span, for an asynchronous wrapper."""

    def __init__(self, costs: Costs) -> None:
        self._costs = costs

    def names(self) -> dict[str, Any]:
        """Return the methods by the names that generated code has for them."""
        return {"_join_here": self.here, "_join_awaited": self.awaited}

    async def awaited(self, span: Any) -> None:
        """Join; the time counts as part of the emission."""
        begun = _clock()
        left, span.joining = span.joining, None
        for ticket, entry in left:
            await ticket.join_awaited(entry)
        self._count(span, begun)

    def here(self, span: Any, _: object = None) -> None:
        """Join from where nothing can be awaited."""
        if span.joining is None:
            return
        begun = _clock()
        left, span.joining = span.joining, None
        for ticket, entry in left:
            ticket.join_entry(entry)
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
        """Whether the event is emitted after the commit, instead of inserted before it."""
        return self._after_commit or not EMITTER.joins

    def enlist(self, target: Any) -> Ticket:
        """Find the caller's transaction."""
        try:
            return Ticket(self, target, transaction_of(target))
        except Exception as error:
            if is_interrupt(error, ran="library"):
                raise
            EMITTER.lost("transaction not looked at", self.point, error)
            return Ticket(self, target, None)
