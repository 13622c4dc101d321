"""A connection to a store's database: text statements over the database's own driver."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from sidelight.exceptions import in_one_line
from sidelight.store.tables import Backend


class DatabaseError(Exception):
    """A database refuses a statement or does not answer.

    Attributes:
        statement: that failed.
        original: the error of the driver.
    """

    def __init__(self, statement: str, original: Exception) -> None:
        super().__init__(in_one_line(original))
        self.statement = statement
        self.original = original


class RowsSkippedError(DatabaseError):
    """A database took a statement without an error, but left out rows of it."""

    how = "skipped without an error"

    def __init__(self, statement: str, table: str, count: int, cause: str = "") -> None:
        """Name the table, how many rows it lacks, and where the cause may be."""
        super().__init__(
            statement,
            RuntimeError(
                f"{count} {'row' if count == 1 else 'rows'} of {table} {self.how};"
                f" look for a trigger, a rule or a policy on {cause or table}"
            ),
        )


class RowsDeletedError(RowsSkippedError):
    """A database has deleted rows, or changed their keys, in the transaction that inserted them."""

    how = "deleted again, or given another key, without an error"


class Connection:
    """One connection; it commits each statement, except within `transaction`.

    Attributes:
        backend: which database it is.
        errors: the base class of the driver's errors.
        raw: the connection of the driver.
    """

    backend: ClassVar[Backend]
    errors: ClassVar[type[Exception]]
    raw: Any

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Any:
        """Execute a statement and return the driver's cursor.

        Raises:
            DatabaseError: the database refuses, or does not answer.
        """
        try:
            if parameters:
                return self.raw.execute(statement, parameters)
            return self.raw.execute(statement)
        except self.errors as error:
            raise DatabaseError(statement, error) from error

    def ask(self, statement: str, *parameters: Any) -> Any:
        """Execute a statement that both databases understand (see `_dialect`).

        Raises:
            DatabaseError: the database refuses, or does not answer.
        """
        return self.execute(self._dialect(statement), parameters)

    def ask_alone(self, question: str) -> Any:
        """Ask outside a transaction, and return the first row.

        Raises:
            DatabaseError: the database refuses, or does not answer.
        """
        return self.execute(question).fetchone()

    def _dialect(self, statement: str) -> str:
        """Put a statement with ``?`` for its parameters into the words of this database."""
        raise NotImplementedError

    @contextmanager
    def transaction(self, *, undo: bool = False) -> Iterator[None]:
        """Run a transaction; commit it at the end.

        Args:
            undo: roll it back at the end instead.

        Raises:
            DatabaseError: it cannot begin or cannot commit.
        """
        self.begin()
        try:
            yield
            if not undo:
                self.commit()
        finally:
            self.rollback()

    def begin(self) -> None:
        """Begin a transaction that may write."""
        raise NotImplementedError

    def commit(self) -> None:
        """Commit.

        Raises:
            DatabaseError: the database has not proved that it did.
        """
        self.execute("COMMIT")

    def rollback(self) -> None:
        """Roll back a transaction that is open; where the connection is broken, do nothing."""
        raise NotImplementedError

    def has_ended(self) -> bool:
        """Return whether the database has ended the session while it was idle."""
        return False

    def has_table(self, name: str) -> bool:
        """Return whether the store has a table of this name."""
        raise NotImplementedError

    def lock_for_upgrade(self) -> None:
        """Keep other processes from creating or upgrading tables until the transaction ends."""

    def close(self) -> None:
        """Close; a transaction that is open is rolled back."""
        raise NotImplementedError
