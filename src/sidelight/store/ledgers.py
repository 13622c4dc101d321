"""Store the ledgers of processes: what emitting costs them, and what they have lost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sidelight.record import to_json
from sidelight.store.database import RowsSkippedError
from sidelight.store.deliveries import Contents
from sidelight.store.rows import Ledger, Row
from sidelight.store.statements import BatchStatements
from sidelight.store.tables import COSTS, LOSSES, Table


def store_ledgers(statements: BatchStatements, contents: Iterable[Contents]) -> None:
    """Store what processes tell in their ledgers."""
    for each in contents:
        for ledger in each.ledgers:
            _write_ledger(statements, ledger, str(each.writer.get("instance", "")))


def _write_ledger(statements: BatchStatements, ledger: Ledger, process: str) -> None:
    """Store costs and losses of a process. They are cumulative: a later ledger replaces them."""
    content, at = ledger
    problems = content.problems
    _replace(
        statements,
        LOSSES,
        [
            (process, reason, count, problems.get(reason, "").replace("\0", "␀"), at)
            for reason, count in sorted(content.losses.items())
        ],
    )
    _replace(
        statements,
        COSTS,
        [
            (process, point, snapshot.count, to_json(snapshot), at)
            for point, snapshot in sorted(content.costs.items())
        ],
    )


def _replace(statements: BatchStatements, table: Table, rows: Sequence[Row]) -> None:
    """Write rows of one process: its id, a key, a count, a value and a time.

    Raises:
        RowsSkippedError: the table has a lower count afterwards, or none.
    """
    name, key, value = table.name, table.columns[1].name, table.columns[3].name
    after = (
        f"ON CONFLICT (process, {key}) DO UPDATE SET count = excluded.count,"
        f" {value} = excluded.{value}, last_at = excluded.last_at"
        f" WHERE excluded.count > {name}.count"
    )
    if statements.change(table.insert, table.kinds, rows, after) == len(rows):
        return
    query = f"SELECT {key}, count FROM {name} WHERE process IN ("  # noqa: S608
    known = dict(statements.run(query, "t", [rows[0][:1]], ")"))
    if missing := sum(known.get(row[1], -1) < row[2] for row in rows):
        raise RowsSkippedError(table.insert, name, missing)
