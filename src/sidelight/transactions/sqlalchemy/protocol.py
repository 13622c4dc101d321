"""What the connections of SQLAlchemy ask of the driver below them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol, TypeAlias

from sqlalchemy.engine import Connection

from sidelight.transactions.control import Dialect
from sidelight.transactions.entry import Entry, Row


class Insertion(NamedTuple):
    """Rows to insert into an outbox.

    Attributes:
        rows: the rows.
        within: seconds that the INSERT may take; None keeps the connection's own limit.
        first: whether it may have to wait for other writers: nothing was flushed before.
    """

    rows: Sequence[Row]
    within: float | None
    first: bool


#: Collects command tags in its block, the newest last.
Answers: TypeAlias = AbstractContextManager[list[bytes]]


class Driver(Protocol):
    """A driver, on a connection that SQLAlchemy has in a transaction."""

    def check(self, connection: Connection, /) -> None:
        """Check that an INSERT can be part of a transaction.

        Raises:
            Refused: it cannot.
        """
        ...

    def insert(self, connection: Connection, insertion: Insertion, /) -> None:
        """Insert rows into the outbox.

        Raises:
            Refused: the connection is busy, or has no outbox.
            Exception: of the driver; the transaction is as it was, if there was a limit.
        """
        ...

    def commits_itself(self, connection: Connection, /) -> bool:
        """Return whether each statement commits by itself, although SQLAlchemy has begun."""
        ...

    def commits_alone(self, connection: Connection, /) -> bool:
        """Return whether a statement has committed by itself that has left no transaction open."""
        ...

    def leaves_open(self, connection: Connection, /) -> bool:
        """Return whether a transaction is open that the driver's commit and rollback do not end.

        Some drivers send nothing in autocommit mode, also where SQL has begun the transaction.
        """
        ...

    def is_alone(self, connection: Connection, /) -> bool:
        """Return whether a statement runs that is a transaction of its own: a COPY, for example."""
        ...

    def takes(self, connection: Connection, entry: Entry, /) -> bool:
        """Take an event whose work may be the statement that `is_alone`.

        Returns:
            Whether it is taken. Otherwise the event waits for the commit of SQLAlchemy.
        """
        ...

    @property
    def tells_its_state(self) -> bool:
        """Whether `has_begun` and `is_sound` know what an error has undone."""
        ...

    @property
    def may_undo_all(self) -> bool:
        """Whether an error may undo the whole transaction at once; `has_begun` tells that then."""
        ...

    def has_begun(self, connection: Connection, /) -> bool:
        """Return whether the driver is in a transaction; some begin later than SQLAlchemy."""
        ...

    def is_sound(self, connection: Connection, /, *, ask: bool) -> bool:
        """Return whether the transaction can be committed.

        Args:
            connection: the caller's.
            ask: whether to ask the server where the driver does not know.
        """
        ...

    def ends_at_failed_commit(self, connection: Connection, /) -> bool:
        """Return whether a commit that has raised an error has ended the transaction."""
        ...

    def is_still_open(self, connection: Connection, error: BaseException | None, /) -> bool | None:
        """Return whether a transaction is open behind an interrupted COMMIT.

        Args:
            connection: the caller's.
            error: that invalidates the connection; None where it stays.

        Returns:
            None where nothing tells, because the COMMIT may be under way.
        """
        ...

    def own_answers(self, connection: Connection, /) -> Answers | None:
        """Return what collects the answers to the driver's own COMMIT; None outside of pipelines.

        Only there is the state of the transaction unknown before the COMMIT.
        """
        ...

    def dialect(self, connection: Connection, /) -> Dialect:
        """Return how the database reads the names of savepoints."""
        ...

    def answer(self, cursor: Any, verb: str) -> str | None:
        """Return the command tag by which the server has answered; None where nothing tells.

        Args:
            cursor: that has executed the statement without an error.
            verb: of the statement.
        """
        ...
