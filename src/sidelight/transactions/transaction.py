"""A transaction of the caller, in the form that every library gives it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol

from sidelight.transactions.entry import Entry, Refused, UndoneError, UnknownError


def keep_settings() -> None:
    """Restore nothing: the `Transaction.suspend_autoflush` of what never flushes by itself."""


def _no_successor() -> None:
    """Find nothing: the `Transaction.successor` of what is named by itself."""


class Fate(Enum):
    """What has become of the work of a call in one transaction."""

    NOTHING = "there is none, or it is undone"
    OPEN = "the end of the transaction decides"
    DECIDED = "it is committed, at least in part, or its end is unknown"


class Transaction(ABC):
    """A transaction of the caller, as it was before the call of the point.

    A library overrides `insert`, or where its connection is asynchronous `insert_awaited`.

    Attributes:
        successor: returns the transaction of the session that has taken the place of this one's in
            its registry; None where it has not changed.
    """

    successor: Callable[[], Any] = staticmethod(_no_successor)

    @property
    @abstractmethod
    def place(self) -> object:
        """The session or connection of the transaction."""

    @property
    @abstractmethod
    def is_begun(self) -> bool:
        """Whether a transaction is open that can have the work of a call."""

    @property
    @abstractmethod
    def is_committed(self) -> bool:
        """Whether work of the call was committed, at least in part.

        Raises:
            UndoneError: the work was rolled back.
            UnknownError: nothing tells how its transaction has ended.
        """

    @property
    @abstractmethod
    def is_alone(self) -> bool:
        """Whether the call has done work that has committed by itself."""

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether the end of an open transaction decides on the work of the call."""

    def fate(self) -> Fate:
        """Return what has become of the work of the call."""
        try:
            if self.is_committed or self.is_alone:
                return Fate.DECIDED
        except UnknownError:
            return Fate.DECIDED
        except UndoneError:
            return Fate.NOTHING
        return Fate.OPEN if self.is_open else Fate.NOTHING

    @property
    def needs_await(self) -> bool:
        """Whether an INSERT at this moment means to await the connection."""
        return False

    def suspend_autoflush(self) -> Callable[[], object]:
        """Keep reads of attributes from flushing; the answer restores the setting."""
        return keep_settings

    @abstractmethod
    def check(self) -> None:
        """Check that an INSERT can be part of the transaction.

        Raises:
            Refused: it cannot.
            UndoneError: the function has rolled the transaction back.
        """

    def insert(self, entry: Entry) -> None:  # noqa: ARG002  # of the libraries
        """Insert an event into the outbox, now or after the pending flush.

        Raises:
            Refused: the INSERT needs an await.
        """
        raise Refused("not awaited")

    async def insert_awaited(self, entry: Entry) -> None:
        """Insert an event into the outbox where the caller can await."""
        self.insert(entry)

    @abstractmethod
    def after_commit(self, entry: Entry) -> None:
        """Emit an event once the transaction has committed.

        Raises:
            Refused: there is no transaction.
            UndoneError: the function has rolled the transaction back.
        """


class Ends(Protocol):
    """Counts the transactions of a session or a connection that have ended."""

    commits: int

    @property
    def rollbacks(self) -> int:
        """Number of rollbacks."""
        ...


class CountedTransaction(Transaction):
    """A transaction that has ended when the counts of its session or connection have changed."""

    def __init__(self, ends: Ends) -> None:
        self._ends = ends
        self._commits, self._rollbacks = ends.commits, ends.rollbacks

    @property
    def is_committed(self) -> bool:
        """See `Transaction.is_committed`."""
        return self._ends.commits != self._commits

    @property
    def is_rolled_back(self) -> bool:
        """Whether the transaction was rolled back since the call of the point began."""
        return self._ends.rollbacks != self._rollbacks

    def missing(self) -> Exception:
        """Return the error for an object without a transaction."""
        return UndoneError() if self.is_rolled_back else Refused("no transaction")
