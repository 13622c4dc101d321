"""An event on its way into a transaction of the caller."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from sidelight.emission import EMITTER, Deferred, Head, JoinedReceipt, resolved
from sidelight.exceptions import TransactionError
from sidelight.host import is_interrupt
from sidelight.record import Moment, event_id, occurred_at, plain, replaced
from sidelight.transactions.registry import targets

LABEL: Final = "sidelight.not_joined"
"""The attribute that tells why an event could not join its transaction."""

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
    "unknown kind": ("sidelight does not know this kind of object", f"give {targets()}"),
    "unsupported database": (
        "it has no outbox for this kind",
        "use SQLite in a file or PostgreSQL",
    ),
}
"""Why an event cannot join a transaction: the problem and the remedy in words."""


class Refused(Exception):  # noqa: N818  # an answer, not an error
    """The event cannot join, for one of the `REASONS`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Row(NamedTuple):
    """A row of the outbox: when the event occurred (ns), its id, and the record as in the spool."""

    occurred: int
    event_id: str
    record: bytes


class Entry:
    """An event on its way into a transaction.

    Attributes:
        point: path of the point that emits the event.
        strict: whether the caller's work must not be done without the event.
    """

    __slots__ = ("_head", "_moment", "point", "receipt", "strict")

    def __init__(self, point: str, head: Head, moment: tuple[Any, ...], *, strict: bool) -> None:
        self.point = point
        self.strict = strict
        self._head = head
        self._moment: tuple[Any, ...] = moment
        self.receipt: JoinedReceipt | None = None

    def settle(self) -> None:
        """Replace deferred values by what they are now: after the flush, before the commit."""
        fields = Moment(*self._moment)
        attributes = fields.attributes
        if attributes and any(type(value) is Deferred for value in attributes.values()):
            attributes = {name: plain(resolved(value)) for name, value in attributes.items()}
        artifact, organization = fields.artifact_id, fields.organization_id
        self._moment = replaced(
            self._moment,
            artifact_id=plain(resolved(artifact)) if type(artifact) is Deferred else artifact,
            organization_id=plain(resolved(organization))
            if type(organization) is Deferred
            else organization,
            attributes=attributes,
        )

    def row(self) -> Row:
        """Return the event's row of the outbox."""
        self.settle()
        fields = Moment(*self._moment)
        occurred = occurred_at(fields)
        payload = EMITTER.payload(self._head, self._moment)
        return Row(occurred, event_id(occurred, fields.random), payload)

    def emit(self) -> None:
        """Write the event to the spool, because its transaction has committed."""
        self.settle()
        written = EMITTER.write(self._head, self._moment)
        if self.receipt is not None:
            self.receipt.moved_to(EMITTER.spool.position() if written else None)

    def forget(self) -> None:
        """Drop the event and count the loss, because the commit was never answered."""
        if self.receipt is not None:
            self.receipt.moved_to(None)
        problem = "the connection broke before the commit was answered"
        remedy = "use transaction= where this must not happen"
        told = TransactionError(point=self.point, problem=problem, remedy=remedy)
        EMITTER.lost("commit without an answer", self.point, told)

    def refuse(
        self, reason: str, error: BaseException | None = None, *, too_late: bool = False
    ) -> None:
        """Write the event to the spool with the reason as a label, and count it.

        Raises:
            TransactionError: in strict mode, unless it is too late to undo the work.
        """
        problem, remedy = REASONS[reason]
        told = TransactionError(
            point=self.point,
            problem=problem if error is None else f"{problem}: {error}",
            remedy=remedy,
        )
        if self.strict and not too_late and reason != ENDED:
            raise told from error
        attributes = {**(Moment(*self._moment).attributes or {}), LABEL: reason}
        self._moment = replaced(self._moment, attributes=attributes)
        self.emit()
        told.__cause__ = error
        EMITTER.lost(f"not joined: {reason}", self.point, told)


class Transaction(Protocol):
    """A transaction of the caller, as it was before the call of the point."""

    @property
    def needs_await(self) -> bool:
        """Whether an INSERT at this moment means to await the connection."""
        ...

    def suspend_autoflush(self) -> Callable[[], object]:
        """Keep reads of attributes from flushing; the answer restores the setting."""
        ...

    def check(self) -> None:
        """Check that an INSERT can be part of the transaction.

        Raises:
            Refused: it cannot.
        """
        ...

    def insert(self, entry: Entry) -> None:
        """Insert an event into the outbox, now or after the pending flush."""
        ...

    async def insert_awaited(self, entry: Entry) -> None:
        """Insert an event into the outbox on an asynchronous connection."""
        ...

    def after_commit(self, entry: Entry) -> None:
        """Emit an event once the transaction has committed."""
        ...


def keep_settings() -> None:
    """Restore nothing: the `Transaction.suspend_autoflush` of what never flushes by itself."""


class Guard:
    """Keeps errors of joining from the caller: the entries are refused instead."""

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
        if is_interrupt(error):
            return False
        reason = error.reason if isinstance(error, Refused) else reason_of(error)
        for entry in self._entries:
            entry.refuse(reason, None if isinstance(error, Refused) else error)
        return True


def reason_of(error: BaseException) -> str:
    """Return the one of the `REASONS` that a database's error stands for."""
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
