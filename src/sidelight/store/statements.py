"""One statement for many rows, written as each database executes it fastest.

An `executemany` releases the GIL at each row, and then waits for it beside busy threads.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple, Protocol

from sidelight.store.database import Connection, DatabaseError, RowsSkippedError
from sidelight.store.partitions import RETENTION_LOCK
from sidelight.store.rows import CHUNK, KEY, RECORDED, Row
from sidelight.store.tables import DELIVERIES, EVENTS, Table

_EXACT: Final = 63  # rows that one statement of SQLite writes, however many they are
_ID: Final = "event_id::text"
_UNLESS_STORED: Final = "ON CONFLICT DO NOTHING"
RUN_DEFERRED: Final = "SET CONSTRAINTS ALL IMMEDIATE"
_TRIGGERS: Final = "SELECT 1 FROM sqlite_master WHERE type = 'trigger' LIMIT 1"
_MARKS: Final = "SELECT kept_since, erasures FROM retention"


class Delivery(NamedTuple):
    """Events of one process in a transaction: their ``recorded_at``, and the process's number."""

    recorded_at: int
    process: int


class Marks(NamedTuple):
    """What the store keeps out.

    Attributes:
        kept_since: events that occurred before this time (ns).
        erasures: how often something was erased; 0: there are no tombstones.
    """

    kept_since: int
    erasures: int


class RowKey(NamedTuple):
    """The column that names a row of `events`.

    Attributes:
        value: the SQL that selects it.
        kind: of the column, as for `BatchStatements.run`.
    """

    column: str
    value: str
    kind: str


class BatchStatements(Protocol):
    """Statements over many rows within one transaction.

    Attributes:
        row_key: names a row of `events`, whatever it holds.
        least, greatest: SQL functions: the smaller and the greater of two values.
        for_update: the end of a SELECT that locks its rows.
    """

    row_key: RowKey
    least: str
    greatest: str
    for_update: str

    def marks(self, deliveries: Sequence[Delivery] = ()) -> Marks:
        """Return what the store keeps out; fixed until the transaction ends.

        Args:
            deliveries: noted in the same exchange with the database.
        """
        ...

    def run(
        self, before: str, types: str, rows: Sequence[Row], after: str = ""
    ) -> list[tuple[Any, ...]]:
        """Execute ``before`` (rows) ``after``, and return the rows that it returns.

        The statement sees the rows as a query with the columns column1, column2, …

        Args:
            before: the SQL before the rows.
            types: the types of the columns, one letter each: t for text, n for integers, u for
                event ids.
            rows: the values.
            after: the SQL after the rows.
        """
        ...

    def change(self, before: str, types: str, rows: Sequence[Row], after: str = "") -> int:
        """Execute as `run` does, and return how many rows were written."""
        ...

    def insert_new(self, chunks: Iterable[list[Row]]) -> Sequence[Row]:
        """Insert rows into `events`, and return those that were not stored before.

        Raises:
            RowsSkippedError: a row is neither new nor stored before.
        """
        ...

    def check_constraints(self) -> None:
        """Check deferred constraints now, as a commit would."""
        ...

    def may_run_triggers(self) -> bool:
        """Return whether a trigger may change what the transaction writes."""
        ...

    def recorded_keys(self, new: Sequence[Row], times: range) -> str:
        """Return the ids of the rows of `events` that a transaction has at its end, with commas.

        It is one text, because each row that a database returns costs a turn of the GIL. Deferred
        triggers run now, because one of them may delete a row.

        Args:
            new: the rows that the transaction has inserted.
            times: its ``recorded_at``.
        """
        ...


def batch_statements(connection: Connection) -> BatchStatements:
    """Return the statements of this connection's database."""
    if connection.backend == "postgresql":
        return _PostgresStatements(connection)
    return _SqliteStatements(connection)


def put_missing(statements: BatchStatements, table: Table, rows: Sequence[Row]) -> None:
    """Insert those rows whose keys the table lacks; its key is its first column.

    Raises:
        RowsSkippedError: the table lacks a row afterwards.
    """
    if statements.change(table.insert, table.kinds, rows, _UNLESS_STORED) < len(rows):
        _check_stored(statements, table, rows)


def _check_stored(statements: BatchStatements, table: Table, rows: Sequence[Row]) -> None:
    key = table.key[0]
    query = f"SELECT {key} FROM {table.name} WHERE {key} IN ("  # noqa: S608
    found = statements.run(query, table.kinds[0], [row[:1] for row in rows], ")")
    if missing := {row[0] for row in rows} - {each for (each,) in found}:
        raise RowsSkippedError(table.insert, table.name, len(missing))


def last_recorded(connection: Connection, own: int = 0) -> tuple[int, bool]:
    """Return when the newest events were recorded (ns; 0 in an empty store).

    Runs outside a transaction, which would lock the partitions of all months until it ends.

    Args:
        connection: to the store.
        own: the ``recorded_at`` of a commit; the second answer is whether the store has it.

    Raises:
        DatabaseError: the database does not answer.
    """
    schema = "sidelight." if connection.backend == "postgresql" else ""
    has_own = f"EXISTS (SELECT 1 FROM {schema}deliveries WHERE recorded_at = {own:d})"  # noqa: S608
    newest, found = connection.ask_alone(
        f"SELECT max(recorded_at), {has_own if own else 'TRUE'} FROM {schema}events"  # noqa: S608
    )
    return int(newest or 0), bool(found)


class _SqliteStatements:
    least, greatest, for_update = "min", "max", ""
    # An `event_id` that no relay wrote may be anything.
    row_key = RowKey("rowid", "events.rowid", "n")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def marks(self, deliveries: Sequence[Delivery] = ()) -> Marks:
        put_missing(self, DELIVERIES, deliveries)
        return Marks(*self._connection.execute(_MARKS).fetchone())

    def run(
        self, before: str, types: str, rows: Sequence[Row], after: str = ""
    ) -> list[tuple[Any, ...]]:
        returned: list[tuple[Any, ...]] = []
        for piece in _pieces(rows):
            returned.extend(self._execute(before, len(types), piece, after))
        return returned

    def change(self, before: str, types: str, rows: Sequence[Row], after: str = "") -> int:
        width = len(types)
        return sum(self._execute(before, width, each, after).rowcount for each in _pieces(rows))

    def insert_new(self, chunks: Iterable[list[Row]]) -> Sequence[Row]:
        new: list[Row] = []
        for piece in chain.from_iterable(map(_pieces, chunks)):
            inserted = self._execute(EVENTS.insert, len(piece[0]), piece, _UNLESS_STORED)
            if inserted.rowcount == len(piece):
                new.extend(piece)
                continue
            # Some were stored before. The rows of this transaction have its times.
            recorded = _recorded(self, "event_id", "t", piece)
            new.extend(row for row in piece if recorded[row[KEY]] == row[RECORDED])
        return new

    def check_constraints(self) -> None:
        """Do nothing: SQLite checks no foreign keys unless a connection asks for it."""

    def may_run_triggers(self) -> bool:
        return self._connection.execute(_TRIGGERS).fetchone() is not None

    def recorded_keys(self, new: Sequence[Row], times: range) -> str:  # noqa: ARG002  # the protocol
        query = "SELECT group_concat(event_id) FROM events WHERE recorded_at BETWEEN ? AND ?"
        return str(self._connection.execute(query, (times[0], times[-1])).fetchone()[0])

    def _execute(self, before: str, width: int, rows: Sequence[Row], after: str) -> Any:
        statement = _values(before, width, len(rows), after)
        return self._connection.execute(statement, tuple(chain.from_iterable(rows)))


@functools.lru_cache(maxsize=256)
def _values(before: str, width: int, count: int, after: str) -> str:
    row = f"({', '.join('?' * width)})"
    return f"{before} VALUES {', '.join([row] * count)} {after}"


def _pieces(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Split rows into pieces of few sizes: `CHUNK`, powers of two, and up to `_EXACT`.

    SQLite compiles a statement for each size. That takes as long as it takes to insert the rows.
    Few rows stay together, because each statement costs a turn of the GIL.
    """
    start = 0
    while left := len(rows) - start:
        size = left if left <= _EXACT else 1 << left.bit_length() - 1
        end = start + (size if left < CHUNK else CHUNK)
        yield rows[start:end]
        start = end


def _recorded(
    statements: BatchStatements, key: str, kind: str, rows: Sequence[Row]
) -> dict[str, int]:
    """Return id → ``recorded_at`` of rows that must be stored.

    Args:
        statements: of the connection.
        key: the expression for an event's id as text.
        kind: the kind of the ids in the table.
        rows: of `events`.

    Raises:
        RowsSkippedError: some are not stored.
    """
    query = f"SELECT {key}, recorded_at FROM events WHERE event_id IN ("  # noqa: S608
    recorded = dict(statements.run(query, kind, [row[:1] for row in rows], ")"))
    if missing := len(rows) - len(recorded):
        raise RowsSkippedError(EVENTS.insert, EVENTS.name, missing)
    return recorded


class _PostgresStatements:
    least, greatest, for_update = "least", "greatest", " FOR UPDATE"
    row_key = RowKey("event_id", _ID, "u")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def marks(self, deliveries: Sequence[Delivery] = ()) -> Marks:
        # The shared lock keeps a pruner from moving the retention within this transaction.
        numbers = ", ".join([f"({each.recorded_at:d}, {each.process:d})" for each in deliveries])
        note = f"{DELIVERIES.insert} VALUES {numbers} {_UNLESS_STORED}; " if numbers else ""
        cursor = self._connection.execute(
            f"{note}SELECT pg_advisory_xact_lock_shared({RETENTION_LOCK}); {_MARKS}"
        )
        noted = len(deliveries)
        if note:
            noted = cursor.rowcount
            cursor.nextset()
        cursor.nextset()
        marks = Marks(*cursor.fetchone())
        if noted < len(deliveries):
            _check_stored(self, DELIVERIES, deliveries)
        return marks

    def run(
        self, before: str, types: str, rows: Sequence[Row], after: str = ""
    ) -> list[tuple[Any, ...]]:
        if not rows:
            return []
        cursor = self._execute(before, types, rows, after)
        return list(cursor) if cursor.description else []

    def change(self, before: str, types: str, rows: Sequence[Row], after: str = "") -> int:
        return int(self._execute(before, types, rows, after).rowcount) if rows else 0

    def _execute(self, before: str, types: str, rows: Sequence[Row], after: str) -> Any:
        return self._connection.execute(_unnest(before, types, after), _arrays(types, rows))

    def insert_new(self, chunks: Iterable[list[Row]]) -> Sequence[Row]:
        copied: list[Row] = []
        left = iter(chunks)
        count = self._copy(left, copied)
        if count == len(copied):
            return copied
        if count is not None:  # a trigger has skipped rows, perhaps such as were stored before
            recorded = _recorded(self, _ID, "u", copied)
            return [row for row in copied if recorded[row[KEY]] == row[RECORDED]]
        copied.extend(chain.from_iterable(left))
        inserted = self.run(
            EVENTS.insert, EVENTS.kinds, copied, f"{_UNLESS_STORED} RETURNING {_ID}"
        )
        mine = {key for (key,) in inserted}
        _recorded(self, _ID, "u", [row for row in copied if row[KEY] not in mine])
        return [row for row in copied if row[KEY] in mine]

    def check_constraints(self) -> None:
        self._connection.execute(RUN_DEFERRED)

    def may_run_triggers(self) -> bool:
        return True  # which of them a user may see is a matter of rights

    def recorded_keys(self, new: Sequence[Row], times: range) -> str:
        keys = [row[KEY] for row in new]  # so that the server looks into few partitions
        among = (
            f"'{min(keys)}' AND '{max(keys)}' AND recorded_at BETWEEN {times[0]} AND {times[-1]}"
        )
        query = f"SELECT string_agg({_ID}, ',') FROM events WHERE event_id BETWEEN {among}"  # noqa: S608
        cursor = self._connection.execute(f"{RUN_DEFERRED}; {query}")  # one message
        cursor.nextset()
        return str(cursor.fetchone()[0])

    def _copy(self, chunks: Iterator[list[Row]], copied: list[Row]) -> int | None:
        """Insert by COPY, the cheapest way.

        Returns:
            How many rows were inserted; None if a row was stored before, so that none was.
        """
        from psycopg import Error  # noqa: PLC0415
        from psycopg.errors import UniqueViolation  # noqa: PLC0415

        connection = self._connection.raw
        try:
            with (
                connection.transaction(),  # a savepoint, because a transaction has begun
                connection.cursor() as cursor,
            ):
                with cursor.copy("COPY events FROM STDIN") as copy:
                    for chunk in chunks:
                        copied.extend(chunk)
                        for row in chunk:
                            copy.write_row(row)
                return int(cursor.rowcount)  # a closed cursor has none
        except UniqueViolation:
            return None
        except Error as error:
            raise DatabaseError("COPY", error) from error


_ARRAYS: Final = {"t": "text[]", "n": "bigint[]", "u": "uuid[]", "j": "json[]"}


@functools.lru_cache(maxsize=64)
def _unnest(before: str, types: str, after: str) -> str:
    arrays = ", ".join(f"%s::{_ARRAYS[letter]}" for letter in types)
    names = ", ".join(f"column{number}" for number in range(1, len(types) + 1))
    return f"{before} SELECT * FROM unnest({arrays}) AS given ({names}) {after}"  # noqa: S608


def _arrays(types: str, rows: Sequence[Row]) -> tuple[str, ...]:
    """Write each column as an array literal; psycopg's adaptation costs five times as much."""
    columns = zip(types, zip(*rows, strict=True), strict=True)
    return tuple(
        f"{{{','.join(['NULL' if n is None else str(n) for n in values])}}}"
        if letter == "n"
        else f"{{{','.join([_quoted(value) for value in values])}}}"
        for letter, values in columns
    )


def _quoted(value: str | None) -> str:
    if value is None:
        return "NULL"
    if "\\" in value or '"' in value:
        value = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{value}"'
