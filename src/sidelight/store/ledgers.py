"""Store the ledgers of processes: what emitting costs them, and what they have lost."""

from __future__ import annotations

from collections.abc import Iterable

from sidelight.record import to_json
from sidelight.store.deliveries import Contents
from sidelight.store.rows import Ledger
from sidelight.store.statements import BatchStatements
from sidelight.store.tables import COSTS, LOSSES


def store_ledgers(statements: BatchStatements, contents: Iterable[Contents]) -> None:
    """Store what processes tell in their ledgers."""
    for each in contents:
        for ledger in each.ledgers:
            _write_ledger(statements, ledger, str(each.writer.get("instance", "")))


def _write_ledger(statements: BatchStatements, ledger: Ledger, process: str) -> None:
    """Store costs and losses of a process. They are cumulative: a later ledger replaces them."""
    content, at = ledger
    problems = content.problems
    statements.run(
        LOSSES.insert,
        LOSSES.kinds,
        [
            (process, reason, count, problems.get(reason, "").replace("\0", "␀"), at)
            for reason, count in sorted(content.losses.items())
        ],
        _replace("losses", "reason", "problem"),
    )
    statements.run(
        COSTS.insert,
        COSTS.kinds,
        [
            (process, point, snapshot.count, to_json(snapshot), at)
            for point, snapshot in sorted(content.costs.items())
        ],
        _replace("costs", "point", "histogram"),
    )


def _replace(table: str, key: str, value: str) -> str:
    return (
        f"ON CONFLICT (process, {key}) DO UPDATE SET count = excluded.count,"
        f" {value} = excluded.{value}, last_at = excluded.last_at"
        f" WHERE excluded.count > {table}.count"
    )
