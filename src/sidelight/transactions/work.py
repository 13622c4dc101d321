"""What a function has done on its connections, and how that has ended.

A watched connection numbers the statements that it executes. Each end of a transaction is written
down with the number of the last statement that it ended. So a call needs to remember only where it
began: its work are the statements with higher numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from typing import Final, Generic, NamedTuple, TypeVar

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

    Its owner keeps the last link only, so that what no call asks for any more is freed.
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


class Standing(NamedTuple):
    """The work in an open transaction, by numbers of statements.

    Attributes:
        last: of the last statement; 0 for none.
        written: of the last one that may have written; 0 for none.
    """

    last: int
    written: int


NOTHING: Final = Standing(0, 0)


class Statements:
    """The statements of one connection, without those that control the transaction.

    Attributes:
        number: how many were executed.
        ends: the ends from now on, each with the statements that it ended.
    """

    def __init__(self) -> None:
        self.number = 0
        self._last = self._written = 0
        self.ends: Chain[tuple[End, Standing]] = Chain()

    def executed(self, *, reads: bool) -> None:
        """Take in a statement.

        Args:
            reads: it has surely written nothing.
        """
        self.number += 1
        self._last = self.number
        if not reads:
            self._written = self.number

    @property
    def standing(self) -> Standing:
        """The statements whose work stands in the open transaction."""
        return Standing(self._last, self._written)

    def ended(self, how: End, *, left: Standing = NOTHING) -> None:
        """Take in the end of the transaction, or of a savepoint.

        Args:
            how: it has ended.
            left: what stood before the savepoint.
        """
        if self._last > left.last:
            ended = Standing(self._last, self._written if self._written > left.written else 0)
            self.ends = self.ends.add((how, ended))
            self._last, self._written = left


class Work:
    """The statements that a connection has executed since a call began."""

    __slots__ = ("_ends", "_number", "_statements")

    def __init__(self, statements: Statements, *, sent: int = 0) -> None:
        """Begin with the next statement.

        Args:
            statements: of the connection.
            sent: how many statements are executed already, and not taken in.
        """
        self._statements = statements
        self._number = statements.number + sent
        self._ends = statements.ends

    def ends(self) -> set[End]:
        """Return how the transactions of the work have ended; empty without statements.

        Where a statement may have written, those that only read are no part of the work.
        """
        return self.written() or self.executed()

    def executed(self) -> set[End]:
        """Return how the transactions of all the statements have ended."""
        return self._ended(lambda statements: statements.last)

    def written(self) -> set[End]:
        """Return how the transactions of the statements that may have written have ended."""
        return self._ended(lambda statements: statements.written)

    def is_undone(self, now: Statements) -> bool:
        """Return whether statements may have written, and all of them are undone.

        Args:
            now: the statements of the connection that the function has used last.
        """
        return now is self._statements and self.written() == {End.UNDONE}

    def _ended(self, number: Callable[[Standing], int]) -> set[End]:
        ends = {how for how, ended in self._ends if number(ended) > self._number}
        if number(self._statements.standing) > self._number:
            ends.add(End.OPEN)
        return ends
