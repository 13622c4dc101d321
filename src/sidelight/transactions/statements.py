"""The SQL that puts events into an outbox, on whatever connection the caller has."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Final, Protocol

from sidelight.transactions.entry import Refused, Row
from sidelight.transactions.outbox.sqlite_position import moved_from

# In one message, which costs one round trip. Within the savepoint nothing that fails can fail the
# caller's transaction, and the server itself keeps to the deadline.
SAVEPOINT: Final = "SAVEPOINT sidelight;"
"""How a guarded statement begins."""
_GUARDED: Final = (
    f"{SAVEPOINT}"
    " SELECT set_config('sidelight.timeout', current_setting('statement_timeout'), true);"
    " SET LOCAL statement_timeout = {milliseconds};"
    " {insert};"
    " SELECT set_config('statement_timeout', current_setting('sidelight.timeout'), true);"
    " RELEASE SAVEPOINT sidelight"
)
BACK: Final = "ROLLBACK TO SAVEPOINT sidelight; RELEASE SAVEPOINT sidelight"
"""Undoes the half of a guarded statement that was done."""

# Counted up under the write lock, in the order of the commits. (An AUTOINCREMENT would move the
# connection's last_insert_rowid(), which is the caller's.)
_SQLITE: Final = (
    "INSERT INTO sidelight_outbox (position, event_id, record)"
    " SELECT coalesce(max(position), 0) + 1, ?, ? FROM sidelight_outbox"
)
_SWEEP: Final = (
    "DELETE FROM sidelight_outbox WHERE position IN (SELECT position FROM sidelight_outbox"
    " WHERE position < ?1 ORDER BY position LIMIT 100)"
    " AND EXISTS (SELECT 1 FROM sidelight_outbox WHERE position = ?1 AND event_id = ?2)"
)


def postgres_insert(rows: Sequence[Row], *, within: float | None) -> str:
    """One message that inserts rows; it needs no parameters.

    Args:
        rows: the rows.
        within: seconds that the server may take over a statement, in a savepoint; None for neither.
    """
    values = ", ".join(
        f"({row.occurred}, '{row.event_id}', decode('{row.record.hex()}', 'hex'))" for row in rows
    )
    insert = f"INSERT INTO sidelight_outbox (position, event_id, record) VALUES {values}"  # noqa: S608
    if within is None:
        return insert
    return _GUARDED.format(milliseconds=max(1, int(within * 1000)), insert=insert)


def run_postgres_insert(cursor: Cursor, rows: Sequence[Row], *, within: float | None) -> None:
    """Send `postgres_insert`; where it fails, its half is undone.

    Raises:
        Exception: of the driver's; the transaction is as it was.
    """
    try:
        cursor.execute(postgres_insert(rows, within=within))
    except BaseException:
        if within is not None:
            with contextlib.suppress(Exception):  # the connection is gone
                cursor.execute(BACK)
        raise


class Cursor(Protocol):
    """What is asked of a DBAPI's cursor."""

    def execute(self, statement: str, parameters: Sequence[Any] = ..., /) -> Any:
        """Run a statement."""

    def fetchone(self) -> Any:
        """A row of its result."""


def sqlite_insert(cursor: Cursor, rows: Sequence[Row], path: str, *, within: float | None) -> None:
    """Insert rows, and delete some of those that a relay has moved.

    A statement that fails leaves nothing behind in SQLite: there is no need of a savepoint.

    Args:
        cursor: of the caller's connection.
        rows: the rows.
        path: the database's file.
        within: seconds to wait for other writers; None for as long as the connection would.

    Raises:
        Exception: of the driver's.
    """
    before = None
    if within is not None:
        cursor.execute("PRAGMA busy_timeout")
        (before,) = cursor.fetchone()
        cursor.execute(f"PRAGMA busy_timeout = {min(before, int(within * 1000))}")
    try:
        for row in rows:
            cursor.execute(_SQLITE, (row.event_id, row.record))
    finally:
        if before is not None:
            cursor.execute(f"PRAGMA busy_timeout = {before}")
    moved = moved_from(path)
    if moved.position > 1:
        cursor.execute(_SWEEP, moved)


def is_autocommit(raw: Any) -> bool:
    """Whether a statement on a SQLite connection would commit by itself."""
    begins = raw.isolation_level is not None or getattr(raw, "autocommit", True) is False
    return not (raw.in_transaction or begins)


def check_postgres(raw: Any) -> None:
    """See that an insert on a connection of a PostgreSQL driver will be part of a transaction.

    Raises:
        Refused: it will not.
    """
    status = raw.info.transaction_status
    if status == 3:  # INERROR, in libpq's words
        raise Refused("broken transaction")
    if status == 0 and raw.autocommit:  # IDLE
        raise Refused("autocommit")
    pgconn = getattr(raw, "pgconn", None)
    if pgconn is not None and pgconn.pipeline_status:
        raise Refused("pipeline mode")
