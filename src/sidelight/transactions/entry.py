"""An event on its way into a transaction of the caller."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sidelight.emission import EMITTER, Deferred, Head, JoinedReceipt, resolved
from sidelight.exceptions import TransactionError, in_one_line
from sidelight.host import is_interrupt
from sidelight.record import Moment, event_id, occurred_at, plain, replaced
from sidelight.transactions.hooks import Contained
from sidelight.transactions.registry import targets

LABEL: Final = "sidelight.not_joined"
"""The attribute that tells why an event could not join its transaction."""

ENDED: Final = "ended by the function"
BROKEN: Final = "broken transaction"
BUSY: Final = "connection busy"
NO_TABLE: Final = "no outbox table"
TOO_SLOW: Final = "database too slow"
INSERT_FAILED: Final = "insert failed"
UNPROVABLE: Final = "unprovable outbox"
ROLLED_BACK: Final = "rolled back"
SEVERAL: Final = "several databases"

REASONS: Final[Mapping[str, tuple[str, str]]] = {
    "no transaction": ("none is open", "begin one, or let the function do something in it"),
    ENDED: ("the function has ended it", "leave the commit to the caller, or use after_commit="),
    "autocommit": ("the connection is in autocommit mode", "begin a transaction"),
    "pipeline mode": ("the connection is in pipeline mode", "call it outside of the pipeline"),
    BUSY: (
        "its connection is in the middle of a COPY, a stream or another statement",
        "call it before or after that statement, or use after_commit=",
    ),
    BROKEN: ("it has failed and can only be rolled back", "roll back first"),
    NO_TABLE: (
        "its database has no table sidelight_outbox",
        "run `sidelight outbox create URL` for that database",
    ),
    TOO_SLOW: ("the INSERT took longer than the deadline", "use strict=True to wait"),
    "read-only transaction": ("it may not write", "leave transaction= out here"),
    INSERT_FAILED: ("the database refused the INSERT", "see the log"),
    UNPROVABLE: (
        "its table has a trigger that is deferred, or one that this role cannot look behind",
        "drop it, make it NOT DEFERRABLE, or grant SELECT on sidelight_outbox",
    ),
    ROLLED_BACK: (
        "the INSERT has ended it, and all of its work is undone",
        "roll back, and do the work again",
    ),
    SEVERAL: (
        "the function has used several databases of its session, and each has its own",
        "name one: session.connection(bind_arguments={'mapper': …})",
    ),
    "not awaited": ("an async connection in a call that cannot await", "make it async"),
    "unknown kind": ("sidelight does not know this kind of object", f"give {targets()}"),
    "unsupported database": (
        "it has no outbox for this kind",
        "use SQLite in a file or PostgreSQL",
    ),
}
"""Why an event cannot join a transaction: the problem and the remedy in words."""

#: The events of all other reasons wait for the commit.
_WITHOUT_TRANSACTION: Final = frozenset({"no transaction", ENDED, "autocommit", "unknown kind"})


class Refused(Exception):  # noqa: N818  # an answer, not an error
    """The event cannot join, for one of the `REASONS`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class RowLeftOutError(Exception):
    """The database took the INSERT without an error, and does not have the row."""

    def __init__(self) -> None:
        super().__init__(
            "sidelight_outbox has not kept the row; look for a trigger, a rule or a policy there"
        )


class RolledBackError(Exception):
    """The INSERT of an event has undone all work of the caller's transaction."""


class UndoneError(Exception):
    """The work of the event was rolled back already, or is certain to be."""


class UnknownError(Exception):
    """Nothing tells whether the work of the event is committed; the argument is a remedy."""


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
        is_partial: whether a commit may commit a part of its work only, because the rest waits for
            a flush.
        is_settled: whether it is written to the spool, or counted as lost.
    """

    __slots__ = (
        *("_head", "_moment", "_refusal"),
        *("is_partial", "is_settled", "point", "receipt", "strict"),
    )

    def __init__(self, point: str, head: Head, moment: tuple[Any, ...], *, strict: bool) -> None:
        self.point = point
        self.strict = strict
        self.is_partial = self.is_settled = False
        self._head = head
        self._moment: tuple[Any, ...] = moment
        self.receipt: JoinedReceipt | None = None
        self._refusal: tuple[str, TransactionError] | None = None

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
        if self.is_partial:
            self.forget()
            return
        self.settle()
        written = EMITTER.write(self._head, self._moment)
        if self.receipt is not None:
            self.receipt.moved_to(EMITTER.spool.position() if written else None)
        if self._refusal is not None:
            reason, told = self._refusal
            EMITTER.lost(f"not joined: {reason}", self.point, told)
        self.is_settled = True

    def fail(self, error: Exception) -> None:
        """Drop the event and count the loss, because a hook of sidelight has failed."""
        self.is_partial = False
        if self.receipt is not None:
            self.receipt.moved_to(None)
        EMITTER.lost("internal error", self.point, error, ran="library")
        self.is_settled = True

    def forget(self, remedy: str = "use transaction= where this must not happen") -> None:
        """Drop the event and count the loss, because nothing proves or disproves the commit."""
        self.is_partial = False
        if self.receipt is not None:
            self.receipt.moved_to(None)
        EMITTER.lost("commit without an answer", self.point, self._unknown(remedy))
        self.is_settled = True

    def refuse_unknown(self, *remedies: str) -> None:
        """Count the loss, because nothing tells whether the function has committed its work.

        Args:
            remedies: of the `UnknownError`.

        Raises:
            TransactionError: in strict mode.
        """
        if self.strict:
            raise self._unknown(*remedies or ["leave the end of the transaction to the caller"])
        self.forget(*remedies)

    def _unknown(self, remedy: str) -> TransactionError:
        problem = "nothing tells whether its work is committed"
        return TransactionError(point=self.point, problem=problem, remedy=remedy)

    def refuse(
        self,
        reason: str,
        error: BaseException | None = None,
        *,
        wait: Callable[[Entry], None] | None = None,
        too_late: bool = False,
    ) -> None:
        """Emit the event after the commit instead, with the reason as a label, and count it then.

        Args:
            reason: one of the `REASONS`.
            error: of the database, if there was one.
            wait: emits an entry once its transaction has committed; None where there is no
                transaction, so that the event is emitted at once.
            too_late: whether the work cannot be undone any more.

        Raises:
            TransactionError: in strict mode, unless it is too late to undo the work; always where
                the work is undone already, because the caller may not learn it from its commit.
        """
        problem, remedy = REASONS[reason]
        told = TransactionError(
            point=self.point,
            problem=problem if error is None else f"{problem}: {in_one_line(error)}",
            remedy=remedy,
        )
        if reason == ROLLED_BACK or (self.strict and not too_late and reason != ENDED):
            raise told from error
        if reason == BROKEN:  # the work is certain to be undone
            return
        told.__cause__ = error
        attributes = {**(Moment(*self._moment).attributes or {}), LABEL: reason}
        self._moment = replaced(self._moment, attributes=attributes)
        self._refusal = reason, told
        if wait is None or reason in _WITHOUT_TRANSACTION:
            self.emit()
            return
        with Contained(self.fail):
            try:
                wait(self)
            except Refused:  # there is no commit to wait for
                self.emit()
            except UndoneError:
                return
            except UnknownError:
                self.forget()


class Guard:
    """Keeps errors of joining from the caller: the entries are refused instead.

    One error reaches the caller: that its whole transaction was rolled back.
    """

    __slots__ = ("_entries", "_wait")

    def __init__(self, wait: Callable[[Entry], None] | None, *entries: Entry) -> None:
        """Guard the joining of entries.

        Args:
            wait: emits an entry once its transaction has committed; None where there is none.
            entries: the events.
        """
        self._wait = wait
        self._entries: Sequence[Entry] = entries

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if error is None:
            return False
        if isinstance(error, TransactionError) or not isinstance(error, Exception):
            return False
        if is_interrupt(error, ran="library"):
            return False
        if isinstance(error, UndoneError):
            return True
        if isinstance(error, UnknownError):
            for entry in self._entries:
                entry.refuse_unknown(*error.args)
            return True
        reason = error.reason if isinstance(error, Refused) else reason_of(error)
        cause = error.__cause__ if isinstance(error, RolledBackError) else error
        self._refuse(reason, None if isinstance(error, Refused) else cause)
        return True

    def _refuse(self, reason: str, cause: BaseException | None) -> None:
        """Refuse all entries. The first error ends the work, if anything can still end it."""
        raised: TransactionError | None = None
        for entry in self._entries:
            try:
                entry.refuse(reason, cause, wait=self._wait, too_late=raised is not None)
            except TransactionError as told:
                raised = raised or told
        if raised is not None:
            raise raised


def reason_of(error: BaseException) -> str:
    """Return the one of the `REASONS` that a database's error stands for."""
    if isinstance(error, RolledBackError):
        return ROLLED_BACK
    state, told = sqlstate(error), str(getattr(error, "orig", None) or error)
    if state == "42P01" or told.startswith("no such table"):
        return NO_TABLE
    if state in {"57014", "55P03"} or "database is locked" in told:
        return TOO_SLOW
    if state == "25006" or "readonly database" in told:
        return "read-only transaction"
    return BROKEN if state == "25P02" else INSERT_FAILED


def sqlstate(error: BaseException) -> str | None:
    """Return the code of a server's error; None where it has none."""
    cause = getattr(error, "orig", None) or error
    return getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
