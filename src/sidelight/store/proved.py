"""Statements that prove what they have done: each row is written, changed or deleted.

A trigger, a rule or a policy may skip a row without an error, or delete it again.
"""

from __future__ import annotations

from collections.abc import Sequence

from sidelight.store.database import Connection, RowsDeletedError, RowsSkippedError
from sidelight.store.rows import KEY, Row
from sidelight.store.statements import BatchStatements
from sidelight.store.tables import EVENTS, Table


def put_all(
    statements: BatchStatements, table: Table, rows: Sequence[Row], after: str = ""
) -> None:
    """Insert or update rows.

    Raises:
        RowsSkippedError: fewer rows were written.
    """
    if missing := len(rows) - statements.change(table.insert, table.kinds, rows, after):
        raise RowsSkippedError(table.insert, table.name, missing)


def delete_all(statements: BatchStatements, table: Table, rows: Sequence[Row]) -> None:
    """Delete the rows with these keys, where the table has them; its key is its first column.

    Raises:
        RowsSkippedError: the table has a row afterwards.
    """
    where = f"FROM {table.name} WHERE {table.key[0]} IN ("
    if statements.change(f"DELETE {where}", table.kinds[0], rows, ")") < len(rows):
        left = statements.run(f"SELECT 1 {where}", table.kinds[0], rows, ")")
        if left:
            raise RowsSkippedError(f"DELETE {where}", table.name, len(left))


def check_changed(
    statements: BatchStatements, table: Table, types: str, rows: Sequence[Row], condition: str
) -> None:
    """Check that no row meets the condition of an UPDATE which ends that condition.

    Args:
        statements: of the connection.
        table: that was updated.
        types: see `BatchStatements.run`.
        rows: what the statement was given.
        condition: over the table and these rows, which it names ``given``.

    Raises:
        RowsSkippedError: a row still meets it.
    """
    query = f"SELECT 1 FROM {table.name}, ("  # noqa: S608
    if left := statements.run(query, types, rows, f") AS given WHERE {condition}"):
        raise RowsSkippedError(f"UPDATE {table.name}", table.name, len(left))


def check_kept(statements: BatchStatements, new: Sequence[Row], times: range) -> None:
    """Check that the new rows of `events` are there, as the last statement before the commit.

    A trigger of any table that the transaction has written may have deleted them, or given them
    other ids.

    Args:
        statements: of the connection.
        new: the rows that the transaction has inserted.
        times: its ``recorded_at``.

    Raises:
        RowsDeletedError: some are not.
    """
    if not new or not statements.may_run_triggers():
        return
    missing = {row[KEY] for row in new}.difference(statements.recorded_keys(new, times).split(","))
    if missing:
        raise RowsDeletedError(EVENTS.insert, EVENTS.name, len(missing), "the tables of the store")


def change_one(connection: Connection, table: Table, statement: str, *parameters: object) -> None:
    """Execute a statement that changes one row.

    Raises:
        RowsSkippedError: it has changed none.
    """
    if connection.ask(statement, *parameters).rowcount != 1:
        raise RowsSkippedError(statement, table.name, 1)
