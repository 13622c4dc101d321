"""What a function has done on the connections of SQLAlchemy, and how that has ended.

A watched connection numbers the statements that it executes. Each end of a transaction is written
down with the number of the last statement that it ended. So a call needs to remember only where it
began: its work are the statements with higher numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Generic, TypeVar

from sqlalchemy.engine import Connection

T = TypeVar("T")


class End(Enum):
    """How the transaction of a statement has ended."""

    OPEN = "it has not ended"
    COMMITTED = "it was committed"
    ALONE = "the statement has committed by itself"
    UNDONE = "it was rolled back"
    UNKNOWN = "nothing tells how it has ended"


class Chain(Generic[T]):
    """Things in their order, from a moment on.

    Its owner keeps the last link only, so that nobody keeps what no call asks for any more.
    """

    __slots__ = ("_following",)

    def __init__(self) -> None:
        self._following: tuple[T, Chain[T]] | None = None

    def add(self, value: T) -> Chain[T]:
        """Add a thing; return the new last link."""
        last: Chain[T] = Chain()
        self._following = value, last
        return last

    def __iter__(self) -> Iterator[T]:
        link = self
        while link._following is not None:
            value, link = link._following
            yield value


class Statements:
    """The statements of one connection, without those that control the transaction.

    Attributes:
        number: how many were executed.
        last: number of the last one whose work stands in the open transaction; 0 for none.
        ends: the ends from now on, each with the number of the last statement that it ended.
    """

    def __init__(self) -> None:
        self.number = self.last = 0
        self.ends: Chain[tuple[End, int]] = Chain()

    def executed(self) -> None:
        """Take in a statement."""
        self.number += 1
        self.last = self.number

    def ended(self, how: End, *, left: int = 0) -> None:
        """Take in the end of the transaction, or of a savepoint.

        Args:
            how: it has ended.
            left: number of the last statement before the savepoint.
        """
        if self.last > left:
            self.ends = self.ends.add((how, self.last))
            self.last = left


class Work:
    """The statements that a connection has executed since a call began."""

    __slots__ = ("_ends", "_number", "_statements", "connection")

    def __init__(self, connection: Connection, statements: Statements) -> None:
        self.connection = connection
        self._statements = statements
        self._number = statements.number
        self._ends = statements.ends

    def ends(self) -> set[End]:
        """Return how the transactions of the statements have ended; empty without statements."""
        ends = {how for how, last in self._ends if last > self._number}
        if self._statements.last > self._number:
            ends.add(End.OPEN)
        return ends
