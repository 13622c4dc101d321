"""A transaction of the caller, in the form that every library gives it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

from sidelight.transactions.entry import Entry, Refused, UndoneError


def keep_settings() -> None:
    """Restore nothing: the `Transaction.suspend_autoflush` of what never flushes by itself."""


class Transaction(ABC):
    """A transaction of the caller, as it was before the call of the point.

    A library overrides `insert`, or where its connection is asynchronous `insert_awaited`.
    """

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
        """Whether the transaction was committed since the call of the point began."""
        return self._ends.commits != self._commits

    @property
    def is_rolled_back(self) -> bool:
        """Whether the transaction was rolled back since the call of the point began."""
        return self._ends.rollbacks != self._rollbacks

    def missing(self) -> Exception:
        """Return the error for an object without a transaction."""
        return UndoneError() if self.is_rolled_back else Refused("no transaction")
