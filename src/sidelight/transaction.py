"""The event inside the caller's own transaction: looked at before the call, joined after it.

A point with ``transaction=`` or ``after_commit=`` makes a `Ticket` before the call and gives it the
event when the function has succeeded. What differs between SQLAlchemy, psycopg and Django is in
`sidelight.stacks`; here is what they have in common: an event that cannot join goes to the spool,
says so in an attribute of its own, and is counted. It never breaks the work, unless `strict` asks
for that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from sidelight.budget import Costs
from sidelight.emitter import Head, emitter
from sidelight.exceptions import TransactionError
from sidelight.interrupt import from_outside
from sidelight.late import Late, known
from sidelight.plain import plain
from sidelight.receipt import JoinedReceipt
from sidelight.record import Moment, event_id

LABEL: Final = "sidelight.not_joined"
"""The attribute of an event that could not join: the reason."""

ENDED: Final = "ended by the function"
REASONS: Final[Mapping[str, tuple[str, str]]] = {
    "no transaction": ("none is open", "begin one, or let the function do something in it"),
    ENDED: ("the function has ended it", "leave the commit to the caller, or use after_commit="),
    "autocommit": ("the connection is in autocommit mode", "begin a transaction"),
    "pipeline mode": ("the connection is in pipeline mode", "call it outside of the pipeline"),
    "broken transaction": ("it has failed and can only be rolled back", "roll back first"),
    "no outbox table": ("its database has none", "run `sidelight outbox create`"),
    "database too slow": ("the INSERT took longer than the deadline", "use strict=True to wait"),
    "read-only transaction": ("it may not write", "leave transaction= out here"),
    "insert failed": ("the database refused the INSERT", "see the log"),
    "not awaited": ("an async connection in a call that cannot await", "make it async"),
    "unknown kind": (
        "it is no transaction that sidelight knows",
        "give a SQLAlchemy session or connection, a psycopg connection or a Django alias",
    ),
    "unsupported database": (
        "it has no outbox for this kind",
        "use SQLite in a file or PostgreSQL",
    ),
}
"""Why an event could not join, with the problem and the remedy in words."""
_clock: Final = time.perf_counter_ns


class Refused(Exception):  # noqa: N818  # an answer, not an error
    """The event cannot join, for one of the `REASONS`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Row(NamedTuple):
    """A row of the outbox: when it occurred (ns), and the record as the spool has it."""

    occurred: int
    event_id: str
    record: bytes


class Entry:
    """An event on its way into a transaction."""

    __slots__ = ("_head", "_joining", "_moment", "receipt")

    def __init__(self, joining: Joining, head: Head, moment: tuple[Any, ...]) -> None:
        self._joining = joining
        self._head = head
        self._moment: tuple[Any, ...] = moment
        self.receipt: JoinedReceipt | None = None

    @property
    def strict(self) -> bool:
        """Whether the work must not be done without the event."""
        return self._joining.strict

    def settle(self) -> None:
        """Read what has become known: after the flush, and before the commit takes it away."""
        fields = Moment(*self._moment)
        attributes = fields.attributes
        if attributes and any(type(value) is Late for value in attributes.values()):
            attributes = {name: plain(known(value)) for name, value in attributes.items()}
        artifact, organization = fields.artifact_id, fields.organization_id
        self._moment = (
            *self._moment[:2],
            plain(known(artifact)) if type(artifact) is Late else artifact,
            plain(known(organization)) if type(organization) is Late else organization,
            *self._moment[4:9],
            attributes,
            fields.details,
        )

    def row(self) -> Row:
        """The row that the outbox is to have."""
        self.settle()
        time, random, _, _, duration, *_ = self._moment
        occurred = time + (duration or 0)
        return Row(occurred, event_id(occurred, random), emitter.payload(self._head, self._moment))

    def emit(self) -> None:
        """Write the event to the spool: its transaction has committed."""
        self.settle()
        written = emitter.write(self._head, self._moment)
        if self.receipt is not None:
            self.receipt.left(emitter.spool.position() if written else None)

    def forget(self) -> None:
        """Give the event up, and count that: nobody knows whether its transaction has committed."""
        if self.receipt is not None:
            self.receipt.left(None)
        problem = "the connection broke before the commit was answered"
        remedy = "use transaction= where this must not happen"
        told = TransactionError(point=self._joining.point, problem=problem, remedy=remedy)
        emitter.lost("commit without an answer", self._joining.point, told)

    def refuse(
        self, reason: str, error: BaseException | None = None, *, too_late: bool = False
    ) -> None:
        """Let the event go its own way, and count that.

        Raises:
            TransactionError: in strict mode, where it is not too late to undo the work.
        """
        problem, remedy = REASONS[reason]
        told = TransactionError(
            point=self._joining.point,
            problem=problem if error is None else f"{problem}: {error}",
            remedy=remedy,
        )
        if self.strict and not too_late and reason != ENDED:
            raise told from error
        attributes = {**(self._moment[9] or {}), LABEL: reason}
        self._moment = (*self._moment[:9], attributes, self._moment[10])
        self.emit()
        told.__cause__ = error
        emitter.lost(f"not joined: {reason}", self._joining.point, told)


class Transaction(Protocol):
    """A transaction of the caller's, as one stack has it, and as it was before the call."""

    @property
    def awaited(self) -> bool:
        """Whether to insert now means to await the connection."""
        ...

    def hush(self) -> Callable[[], object]:
        """Let nothing that is read now write; the answer undoes it."""
        ...

    def check(self) -> None:
        """See that something can be inserted.

        Raises:
            Refused: it cannot.
        """
        ...

    def insert(self, entry: Entry) -> None:
        """Put an event into the outbox, now or when what is pending has been flushed."""
        ...

    async def insert_awaited(self, entry: Entry) -> None:
        """The same, on an asynchronous connection."""
        ...

    def after_commit(self, entry: Entry) -> None:
        """Emit an event once the transaction has committed."""
        ...


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
        self.take(Entry(self._joining, head, moment))

    def receipt(self, head: Head, moment: tuple[Any, ...]) -> JoinedReceipt:
        """Give the event to the transaction, and tell what becomes of it.

        Raises:
            TransactionError: in strict mode, when it cannot be.
        """
        entry = Entry(self._joining, head, moment)
        time, random, *_ = moment
        if self.has_to_be_awaited:
            return JoinedReceipt(emitter.progress, time, random, _Unjoined(self, entry))
        entry.receipt = JoinedReceipt(emitter.progress, time, random)
        self.take(entry)
        return entry.receipt

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
        entry = Entry(self._joining, head, moment)
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


class Guard:
    """Around what puts entries into a transaction: what goes wrong is theirs, not the caller's."""

    __slots__ = ("_entries",)

    def __init__(self, *entries: Entry) -> None:
        self._entries: Sequence[Entry] = entries

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if error is None:
            return False
        if isinstance(error, TransactionError) or not isinstance(error, Exception):
            return False
        if from_outside(error):
            return False
        reason = error.reason if isinstance(error, Refused) else reason_of(error)
        for entry in self._entries:
            entry.refuse(reason, None if isinstance(error, Refused) else error)
        return True


def reason_of(error: BaseException) -> str:
    """Which of the `REASONS` a database's error is."""
    cause = getattr(error, "orig", None) or error
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    told = str(cause)
    if state == "42P01" or told.startswith("no such table"):
        return "no outbox table"
    if state in {"57014", "55P03"} or "database is locked" in told:
        return "database too slow"
    if state == "25006" or "readonly database" in told:
        return "read-only transaction"
    return "broken transaction" if state == "25P02" else "insert failed"


class Joining:
    """How the events of one declaration join transactions."""

    def __init__(self, point: str, *, strict: bool, after_commit: bool) -> None:
        self.point = point
        self.strict = strict
        self._after_commit = after_commit

    @property
    def waits_for_commit(self) -> bool:
        """Whether the event is emitted at the commit, rather than inserted before it."""
        return self._after_commit or not emitter.joins

    def enlist(self, target: Any) -> Ticket:
        """Look at the caller's transaction."""
        from sidelight.stacks import transaction_of  # noqa: PLC0415  # where it is needed

        try:
            return Ticket(self, transaction_of(target))
        except Exception as error:
            if from_outside(error):
                raise
            emitter.lost("transaction not looked at", self.point, error)
            return Ticket(self, None)


def _nothing() -> None:
    pass
