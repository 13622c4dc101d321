"""The SQL that puts events into an outbox, on every kind of connection.

The statements for PostgreSQL come from a generator into which errors are thrown. `execute_all` runs
it on a synchronous connection, `execute_all_awaited` on an asynchronous one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sidelight.emission import EMITTER, MARGIN
from sidelight.host import is_interrupt, monotonic
from sidelight.transactions import savepoint
from sidelight.transactions.entry import (
    NO_TABLE,
    TOO_SLOW,
    UNPROVABLE,
    Refused,
    RolledBackError,
    Row,
    RowLeftOutError,
    reason_of,
    sqlstate,
)
from sidelight.transactions.outbox import draining
from sidelight.transactions.outbox.table import FIND_TABLES, TABLE_NAME, FoundTable
from sidelight.transactions.savepoint import Savepoint, Statements

# Inside the savepoint no failure can fail the caller's transaction, and the server itself keeps to
# the deadline. Names are qualified, because the search path is the caller's.
_BEGIN: Final = (
    f"SAVEPOINT {savepoint.NAME};"
    " SELECT pg_catalog.set_config('sidelight.timeout',"
    " pg_catalog.current_setting('statement_timeout'), true);"
    " SET LOCAL statement_timeout = {milliseconds}"
)
_END: Final = (
    "SELECT pg_catalog.set_config('statement_timeout',"
    " pg_catalog.current_setting({name}), true);"
    f" RELEASE SAVEPOINT {savepoint.NAME}"
)
_BEFORE: Final = "'sidelight.timeout'"
# A trigger or a rule may leave a row out without an error. Where the table has one, the
# same message looks at the rows: where one is missing, it names a setting that does not exist,
# which is an error.
_LEFT_OUT: Final = "sidelight.row_left_out"
_IF_STORED: Final = (
    "CASE WHEN (SELECT pg_catalog.count(*) FROM {table} WHERE (position, event_id) IN ({keys}))"
    " = {count} THEN {name} ELSE '{unknown}' END"
)
#: The states in which no savepoint can be made: no transaction, or one that has failed before.
_WITHOUT_SAVEPOINT: Final = frozenset({"25P01", "25P02"})

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
    if monotonic() < _paused_until.get(database, 0.0):
        raise Refused(TOO_SLOW)
    try:
        yield EMITTER.deadline - MARGIN
    except Exception as error:
        if reason_of(error) == TOO_SLOW:
            _paused_until[database] = monotonic() + _PAUSE
        raise


class Question(str):
    """A statement whose rows are wanted."""

    __slots__ = ()


class _Found(NamedTuple):
    """The outboxes of a database.

    Attributes:
        table: where to insert; qualified where only one schema has an outbox.
        is_readable: whether the caller may see the rows that it inserts.
        tables: all of them.
        name: of the database.
    """

    table: str
    is_readable: bool
    tables: Mapping[Hashable, FoundTable]
    name: str


_found: Final[dict[Hashable, _Found]] = {}


class PostgresInsert:
    """The statements that insert rows, and what undoes them where they fail.

    Attributes:
        statements: to execute.
        savepoint: around them.
    """

    __slots__ = ("savepoint", "statements")

    def __init__(
        self,
        rows: Sequence[Row],
        *,
        database: Hashable,
        within: float | None,
        raw: Any,
    ) -> None:
        """Make the statements; nothing is executed.

        Args:
            rows: the rows.
            database: tells one database from another.
            within: seconds that the server may take over a statement, in a savepoint; None for no
                limit and no savepoint.
            raw: see `Savepoint`.
        """
        self.savepoint = Savepoint(raw, is_used=within is not None)
        self.statements = _statements(rows, self.savepoint, database, within)


def _statements(
    rows: Sequence[Row], around: Savepoint, database: Hashable, within: float | None
) -> Statements:
    """Yield the statements, without parameters; after an error, those that undo them.

    Raises:
        Refused: the database has no outbox.
        RowLeftOutError: the database took a row without an error, and does not have it.
        RolledBackError: the savepoint is gone, and the transaction with it.
    """
    values = ", ".join(
        f"({row.occurred}, '{row.event_id}', pg_catalog.decode('{row.record.hex()}', 'hex'))"
        for row in rows
    )
    begin = "" if within is None else _BEGIN.format(milliseconds=max(1, int(within * 1000)))
    try:
        if database not in _found:
            if begin:
                around.may_be_open = True
                yield begin
            tables = yield Question(FIND_TABLES)
            if begin:
                yield _END.format(name=_BEFORE)
            around.may_be_open = False
            _found[database] = _outbox_in(tables)
        found = _found[database]
        insert = f"INSERT INTO {found.table} (position, event_id, record) VALUES {values}"  # noqa: S608
        name = _if_stored(found, rows, _BEFORE if begin else "'statement_timeout'")
        if begin:
            insert = f"{begin}; {insert}; {_END.format(name=name or _BEFORE)}"
        elif name:
            insert = f"{insert}; SELECT pg_catalog.current_setting({name})"
        yield insert  # one message: one round trip
        draining.joined(found.tables, found.name, [row.event_id for row in rows])
    except Refused:
        _found.pop(database, None)  # the remedy may have been applied when the next event comes
        raise
    except GeneratorExit:  # it is given up, and must yield nothing
        raise
    except BaseException as error:
        _found.pop(database, None)
        yield from _undo(around, error)
        if _LEFT_OUT in str(error):
            raise RowLeftOutError from error
        raise


def _undo(around: Savepoint, error: BaseException) -> Statements:
    """Yield the statements that undo what has failed in the savepoint.

    Raises:
        RolledBackError: there is no savepoint any more; the connection may be gone.
    """
    try:
        yield from around.undo()
    except Exception as again:
        if is_interrupt(again, ran="library"):
            raise
        was_made = sqlstate(error) not in _WITHOUT_SAVEPOINT
        if was_made and isinstance(error, Exception) and not is_interrupt(error, ran="library"):
            raise RolledBackError from error


def _if_stored(found: _Found, rows: Sequence[Row], name: str) -> str:
    """Return an expression for the name of a setting, which is unknown where a row is missing.

    Return "" where no row can be missing.

    Raises:
        Refused: a row may be missing, and the caller cannot learn that now.
    """
    # The relay has looked later. But two servers that one script has made give the same ids.
    latest = [draining.latest.get(ids, table) for ids, table in found.tables.items()]
    tables = [*found.tables.values(), *latest]
    may_leave_out = any(table.may_leave_out for table in tables)
    if any(table.may_undo for table in tables) or (may_leave_out and not found.is_readable):
        raise Refused(UNPROVABLE)
    if not may_leave_out:
        return ""
    keys = ", ".join(f"({row.occurred}, '{row.event_id}')" for row in rows)
    return _IF_STORED.format(
        table=found.table, keys=keys, count=len(rows), name=name, unknown=_LEFT_OUT
    )


def _outbox_in(tables: Sequence[Sequence[Any]]) -> _Found:
    if not tables:
        raise Refused(NO_TABLE)
    found = [FoundTable(*row) for row in tables]
    schema = f"{_text(found[0].schema)}." if len(found) == 1 else ""
    return _Found(
        f"{schema}{TABLE_NAME}",
        all(table.is_readable for table in found),
        {table.ids: table for table in found},
        f"the PostgreSQL database {_text(found[0].database)}",
    )


def _text(told: str | bytes) -> str:
    """Return a text, which psycopg returns as bytes where the client's encoding is SQL_ASCII."""
    return told.decode() if isinstance(told, bytes) else told


def execute_all(insert: PostgresInsert, execute: Callable[[str], Any]) -> None:
    """Insert on a synchronous connection; see `execute_all_awaited`."""

    async def at_once(statement: str) -> Any:
        return execute(statement)

    with contextlib.suppress(StopIteration):
        execute_all_awaited(insert, at_once).send(None)


async def execute_all_awaited(
    insert: PostgresInsert, execute: Callable[[str], Awaitable[Any]]
) -> None:
    """Insert on an asynchronous connection.

    Args:
        insert: to execute.
        execute: returns the rows of a `Question`.

    Raises:
        Exception: of the driver.
    """
    try:
        await _execute(insert.statements, execute)
    except GeneratorExit:  # the coroutine is closed: it cannot await any more
        raise
    except BaseException:
        # An interrupt may have come between two statements, or into the one that undoes them.
        try:
            await _undo_now(insert.savepoint, execute)
        except BaseException:  # another interrupt
            await _undo_now(insert.savepoint, execute)
            raise
        raise


async def _undo_now(around: Savepoint, execute: Callable[[str], Awaitable[Any]]) -> None:
    try:
        await _execute(around.undo_by_state(), execute)
    except Exception as error:
        if is_interrupt(error, ran="library"):
            raise  # any other error is one of a transaction that is gone


async def _execute(statements: Statements, execute: Callable[[str], Awaitable[Any]]) -> None:
    with contextlib.suppress(StopIteration):
        statement = next(statements)
        while True:
            try:
                rows = await execute(statement)
            except GeneratorExit:
                raise
            except BaseException as error:  # noqa: BLE001  # the generator raises it again
                statement = statements.throw(error)
            else:
                statement = statements.send(rows)


def executing(cursor: Any) -> Callable[[str], Any]:
    """Return a function that executes statements on a DBAPI cursor, for `execute_all`."""

    def execute(statement: str) -> Any:
        cursor.execute(str(statement))
        return cursor.fetchall() if isinstance(statement, Question) else None

    return execute
