"""The SQL that puts events into an outbox, on whatever connection the caller has.

The statements for PostgreSQL come from a generator that is told of the errors. `execute_all` runs
it on a synchronous connection, `execute_all_awaited` on an asynchronous one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable, Generator, Hashable, Iterator, Sequence
from typing import Any, Final, Protocol, TypeAlias

from sidelight.emission import EMITTER, MARGIN
from sidelight.transactions.entry import BROKEN, TOO_SLOW, Refused, Row, reason_of
from sidelight.transactions.outbox.position import position_beside

SAVEPOINT: Final = "sidelight_outbox"
"""The savepoint around an INSERT."""
# One message costs one round trip. Inside the savepoint no failure can fail the caller's
# transaction, and the server itself keeps to the deadline.
_GUARDED: Final = (
    f"SAVEPOINT {SAVEPOINT};"
    " SELECT pg_catalog.set_config('sidelight.timeout',"
    " pg_catalog.current_setting('statement_timeout'), true);"
    " SET LOCAL statement_timeout = {milliseconds};"
    " {insert};"
    " SELECT pg_catalog.set_config('statement_timeout',"
    " pg_catalog.current_setting('sidelight.timeout'), true);"
    f" RELEASE SAVEPOINT {SAVEPOINT}"
)
_UNDO: Final = f"ROLLBACK TO SAVEPOINT {SAVEPOINT}; RELEASE SAVEPOINT {SAVEPOINT}"

# The position counts up under the write lock, in the order of the commits. (AUTOINCREMENT would
# change the connection's last_insert_rowid(), which belongs to the caller.)
_SQLITE: Final = (
    "INSERT INTO sidelight_outbox (position, event_id, record)"
    " SELECT coalesce(max(position), 0) + 1, ?, ? FROM sidelight_outbox"
)
_SWEEP: Final = (
    "DELETE FROM sidelight_outbox WHERE position IN (SELECT position FROM sidelight_outbox"
    " WHERE position < ?1 ORDER BY position LIMIT 100)"
    " AND EXISTS (SELECT 1 FROM sidelight_outbox WHERE position = ?1 AND event_id = ?2)"
)

_PAUSE: Final = 1.0  # seconds without an INSERT after one that has taken too long
_paused_until: Final[dict[Hashable, float]] = {}


@contextlib.contextmanager
def bounded(database: Hashable, *, strict: bool) -> Iterator[float | None]:
    """Bound the INSERT in the block, and try none for a second after a time-out.

    Args:
        database: tells one database from another.
        strict: whether the work must wait for the event.

    Yields:
        Seconds that the server may take; None for no limit. Less than the deadline, because the
        answer has to reach the caller.

    Raises:
        Refused: the last INSERT has taken too long.
    """
    if strict:
        yield None
        return
    if time.monotonic() < _paused_until.get(database, 0.0):
        raise Refused(TOO_SLOW)
    try:
        yield EMITTER.deadline - MARGIN
    except Exception as error:
        if reason_of(error) == TOO_SLOW:
            _paused_until[database] = time.monotonic() + _PAUSE
        raise


Statements: TypeAlias = Generator[str, None, None]
"""Statements to execute in turn; an error is thrown in, and goes on unless it is caught there."""


def postgres_insert(rows: Sequence[Row], *, within: float | None) -> Statements:
    """Yield one message that inserts rows, without parameters; after an error, one that undoes it.

    Args:
        rows: the rows.
        within: seconds that the server may take over a statement, in a savepoint; None for no
            limit and no savepoint.
    """
    values = ", ".join(
        f"({row.occurred}, '{row.event_id}', pg_catalog.decode('{row.record.hex()}', 'hex'))"
        for row in rows
    )
    insert = f"INSERT INTO sidelight_outbox (position, event_id, record) VALUES {values}"  # noqa: S608
    if within is None:
        yield insert
        return
    try:
        yield _GUARDED.format(milliseconds=max(1, int(within * 1000)), insert=insert)
    except BaseException:
        with contextlib.suppress(Exception):  # the connection is gone
            yield _UNDO
        raise


def execute_all(statements: Statements, execute: Callable[[str], object]) -> None:
    """Execute statements on a synchronous connection.

    Raises:
        Exception: of the driver.
    """
    with contextlib.suppress(StopIteration):
        statement = next(statements)
        while True:
            try:
                execute(statement)
            except BaseException as error:  # noqa: BLE001  # the generator raises it again
                statement = statements.throw(error)
            else:
                statement = next(statements)


async def execute_all_awaited(
    statements: Statements, execute: Callable[[str], Awaitable[object]]
) -> None:
    """Execute statements on an asynchronous connection.

    Raises:
        Exception: of the driver.
    """
    with contextlib.suppress(StopIteration):
        statement = next(statements)
        while True:
            try:
                await execute(statement)
            except GeneratorExit:  # the coroutine is closed: it cannot await any more
                raise
            except BaseException as error:  # noqa: BLE001  # the generator raises it again
                statement = statements.throw(error)
            else:
                statement = next(statements)


class Cursor(Protocol):
    """A DBAPI cursor, as far as it is used here."""

    def execute(self, statement: str, parameters: Sequence[Any] = ..., /) -> Any:
        """Execute a statement."""

    def fetchone(self) -> Any:
        """Return the next row of the result."""


def sqlite_insert(cursor: Cursor, rows: Sequence[Row], path: str, *, within: float | None) -> None:
    """Insert rows, and delete some of those that a relay has moved.

    There is no savepoint, because a statement that fails in SQLite leaves nothing behind.

    Args:
        cursor: of the caller's connection.
        rows: the rows.
        path: the database's file.
        within: seconds to wait for other writers; None keeps the connection's own limit.

    Raises:
        Exception: of the driver.
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
    moved = position_beside(path)
    if moved.number > 1:
        cursor.execute(_SWEEP, moved)


def is_autocommit(raw: Any) -> bool:
    """Return whether each statement on a SQLite connection commits by itself."""
    begins = raw.isolation_level is not None or getattr(raw, "autocommit", True) is False
    return not (raw.in_transaction or begins)


def check_postgres(raw: Any) -> None:
    """Check that an INSERT on a connection of psycopg or psycopg2 will be part of a transaction.

    Raises:
        Refused: it will not.
    """
    status = raw.info.transaction_status
    if status == 3:  # INERROR, in libpq's words
        raise Refused(BROKEN)
    if status == 0 and raw.autocommit:  # IDLE
        raise Refused("autocommit")
    pgconn = getattr(raw, "pgconn", None)
    if pgconn is not None and pgconn.pipeline_status:
        raise Refused("pipeline mode")
