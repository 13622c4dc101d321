"""The SQL that puts events into an outbox of SQLite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

from sidelight.host import is_interrupt
from sidelight.transactions.entry import RolledBackError, Row, RowLeftOutError
from sidelight.transactions.outbox import draining
from sidelight.transactions.outbox.position import position_beside

# The position counts up under the write lock, in the order of the commits. (AUTOINCREMENT would
# change the connection's last_insert_rowid(), which belongs to the caller.)
_SQLITE: Final = (
    "INSERT INTO main.sidelight_outbox (position, event_id, record)"
    " SELECT coalesce(max(position), 0) + 1, ?, ? FROM main.sidelight_outbox"
)
_SWEEP: Final = (
    "DELETE FROM main.sidelight_outbox WHERE position IN"
    " (SELECT position FROM main.sidelight_outbox WHERE position < ?1 ORDER BY position LIMIT 100)"
    " AND EXISTS (SELECT 1 FROM main.sidelight_outbox WHERE position = ?1 AND event_id = ?2)"
)
_LAST: Final = "SELECT event_id FROM main.sidelight_outbox ORDER BY position DESC LIMIT 1"


class Cursor(Protocol):
    """A DBAPI cursor, as far as it is used here."""

    @property
    def rowcount(self) -> Any:
        """The number of rows that the last statement has written."""

    def execute(self, statement: str, parameters: Sequence[Any] = ..., /) -> Any:
        """Execute a statement."""

    def fetchone(self) -> Any:
        """Return the next row of the result."""


class Changes(Protocol):
    """A connection to SQLite, as far as it is used here."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open; no question to the database."""
        ...

    @property
    def total_changes(self) -> int:
        """The number of rows that the connection has written; no question to the database."""
        ...


def sqlite_insert(
    cursor: Cursor, raw: Changes, rows: Sequence[Row], path: str, *, within: float | None
) -> None:
    """Insert rows, and delete some of those that a relay has moved.

    There is no savepoint, because a statement that fails in SQLite leaves nothing behind. But some
    errors undo the whole transaction: a trigger's RAISE(ROLLBACK), a full disk, an interrupt.

    Args:
        cursor: of the caller's connection.
        raw: the connection of the driver.
        rows: the rows.
        path: the database's file.
        within: seconds to wait for other writers; None keeps the connection's own limit.

    Raises:
        RowLeftOutError: the database took a row without an error, and does not have it.
        RolledBackError: the transaction was open, and SQLite has rolled it back.
        Exception: of the driver.
    """
    was_open = raw.in_transaction
    try:
        _insert_in_sqlite(cursor, raw, rows, within)
        draining.joined_file(path, [row.event_id for row in rows])
        moved = position_beside(path)
        if moved.number > 1:
            cursor.execute(_SWEEP, moved)
    except Exception as error:
        if was_open and not raw.in_transaction and not is_interrupt(error, ran="library"):
            raise RolledBackError from error
        raise


def _insert_in_sqlite(
    cursor: Cursor, raw: Changes, rows: Sequence[Row], within: float | None
) -> None:
    before = None
    try:
        if within is not None:
            cursor.execute("PRAGMA busy_timeout")
            (before,) = cursor.fetchone()
            cursor.execute(f"PRAGMA busy_timeout = {min(before, int(within * 1000))}")
        for row in rows:
            changes = raw.total_changes
            cursor.execute(_SQLITE, (row.event_id, row.record))
            if cursor.rowcount != 1:
                raise RowLeftOutError
            if raw.total_changes != changes + 1:  # a trigger has written as well
                cursor.execute(_LAST)
                if cursor.fetchone() != (row.event_id,):
                    raise RowLeftOutError
    finally:
        if before is not None:
            cursor.execute(f"PRAGMA busy_timeout = {before}")


def is_autocommit(raw: Any) -> bool:
    """Return whether each statement on a SQLite connection commits by itself."""
    mode = getattr(raw, "autocommit", -1)  # `sqlite3.LEGACY_TRANSACTION_CONTROL`: Python 3.12
    begins = mode is False or (mode == -1 and raw.isolation_level is not None)
    return not (raw.in_transaction or begins)
