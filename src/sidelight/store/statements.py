"""Many rows in one statement, as each database does it best.

An executemany would give the GIL away at each row, and beside busy threads wait for it as often.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, Final, Protocol

from sqlalchemy import BigInteger, Table
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from sidelight.store.partitions import RETENTION_LOCK
from sidelight.store.rows import KEY, RECORDED, Row
from sidelight.store.schema import events

_CHUNK: Final = 500  # rows of one statement, where each value is a parameter
_INTO_EVENTS: Final = f"INSERT INTO events ({', '.join(events.columns.keys())})"
_UNLESS_THERE: Final = "ON CONFLICT DO NOTHING"
_LAST: Final = "SELECT max(recorded_at) FROM "
_KEPT_SINCE: Final = "SELECT kept_since FROM retention"


class Bulk(Protocol):
    """Statements over many rows within one transaction.

    Attributes:
        least, most: the functions of two values.
    """

    least: str
    most: str

    def kept_since(self) -> int:
        """From when on events are kept (ns); it stays so until the transaction ends."""
        ...

    def run(
        self, before: str, types: str, rows: Sequence[Row], after: str = ""
    ) -> list[tuple[Any, ...]]:
        """Run ``before`` (rows) ``after``, and answer what it returns.

        In the statement the rows are a query; their columns are called column1, column2, …

        ``types`` are those of the columns, a letter for each: t for text, n for whole numbers, u
        for an event's id.
        """
        ...

    def insert_new(self, rows: Iterable[Row]) -> Sequence[Row]:
        """Put rows into `events`, and answer those that were not there; rows are made meanwhile."""
        ...

    def check(self) -> None:
        """Have the rules looked at now that would be when it commits."""
        ...


def bulk_of(connection: Connection) -> Bulk:
    """The way of the database that this is a connection to."""
    return _Postgres(connection) if connection.dialect.name == "postgresql" else _Sqlite(connection)


def insert_into(table: Table) -> tuple[str, str]:
    """The beginning of an INSERT of whole rows, and the types of their columns."""
    columns = table.columns
    types = ("n" if isinstance(column.type, BigInteger) else "t" for column in columns)
    return f"INSERT INTO {table.name} ({', '.join(columns.keys())})", "".join(types)


def last_recorded(connection: Connection) -> int:
    """When the newest events were recorded (ns); 0 where there are none.

    Asked outside of a transaction: until its end, it would hold on to the partition of every month.

    Raises:
        DBAPIError: the database does not answer.
    """
    raw: Any = connection.connection.driver_connection
    events = "sidelight.events" if connection.dialect.name == "postgresql" else "events"
    try:
        return int(raw.execute(_LAST + events).fetchone()[0] or 0)
    except connection.dialect.loaded_dbapi.Error as error:
        connection.invalidate()
        raise DBAPIError(_LAST, None, error) from error


class _Sqlite:
    least, most = "min", "max"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def kept_since(self) -> int:
        """Nobody else writes meanwhile."""
        return int(self._connection.exec_driver_sql(_KEPT_SINCE).scalar_one())

    def run(
        self, before: str, types: str, rows: Sequence[Row], after: str = ""
    ) -> list[tuple[Any, ...]]:
        returned: list[tuple[Any, ...]] = []
        for chunk in _chunks(rows):
            result = self._execute(before, len(types), chunk, after)
            if result.returns_rows:
                returned.extend(map(tuple, result))
        return returned

    def insert_new(self, rows: Iterable[Row]) -> Sequence[Row]:
        new: list[Row] = []
        for chunk in _chunks(rows):
            inserted = self._execute(_INTO_EVENTS, len(chunk[0]), chunk, _UNLESS_THERE)
            if inserted.rowcount == len(chunk):
                new.extend(chunk)
                continue
            # Some were there. Those of this batch are known by the moment at which it was recorded.
            found = self.run(
                "SELECT event_id, recorded_at FROM events WHERE event_id IN (",
                "t",
                [row[:1] for row in chunk],
                ")",
            )
            mine = {key for key, recorded_at in found if recorded_at == chunk[0][RECORDED]}
            new.extend(row for row in chunk if row[KEY] in mine)
        return new

    def check(self) -> None:
        """There are none: foreign keys are not looked at unless a connection asks for it."""

    def _execute(self, before: str, width: int, rows: Sequence[Row], after: str) -> Any:
        statement = _values(before, width, len(rows), after)
        return self._connection.exec_driver_sql(statement, tuple(chain.from_iterable(rows)))


@functools.lru_cache(maxsize=256)
def _values(before: str, width: int, count: int, after: str) -> str:
    row = f"({', '.join('?' * width)})"
    return f"{before} VALUES {', '.join([row] * count)} {after}"


def _chunks(rows: Iterable[Row]) -> Iterator[Sequence[Row]]:
    left = iter(rows)
    return iter(lambda: list(islice(left, _CHUNK)), [])


class _Postgres:
    least, most = "least", "greatest"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def kept_since(self) -> int:
        """Whoever prunes waits for the lock, and moves it between the transactions of relays."""
        cursor: Any = self._connection.exec_driver_sql(
            f"SELECT pg_advisory_xact_lock_shared({RETENTION_LOCK}); {_KEPT_SINCE}"
        ).cursor
        cursor.nextset()
        return int(cursor.fetchone()[0])

    def run(
        self, before: str, types: str, rows: Sequence[Row], after: str = ""
    ) -> list[tuple[Any, ...]]:
        if not rows:
            return []
        statement = _unnested(before, types, after)
        result = self._connection.exec_driver_sql(statement, _arrays(types, rows))
        return [tuple(row) for row in result] if result.returns_rows else []

    def insert_new(self, rows: Iterable[Row]) -> Sequence[Row]:
        copied: list[Row] = []
        left = iter(rows)
        if self._copy(left, copied):
            return copied
        copied.extend(left)
        into, types = insert_into(events)
        types = f"u{types[1:-1]}j"
        inserted = self.run(into, types, copied, f"{_UNLESS_THERE} RETURNING event_id::text")
        mine = {key for (key,) in inserted}
        return [row for row in copied if row[KEY] in mine]

    def check(self) -> None:
        self._connection.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")

    def _copy(self, rows: Iterator[Row], copied: list[Row]) -> bool:
        """Put rows in by COPY, the cheapest way; False where one of them is there already."""
        from psycopg import Error  # noqa: PLC0415
        from psycopg.errors import UniqueViolation  # noqa: PLC0415

        from sidelight.store.postgres import driver  # noqa: PLC0415

        connection = driver(self._connection)
        try:
            with (
                connection.transaction(),  # a savepoint, as one has begun already
                connection.cursor() as cursor,
                cursor.copy("COPY events FROM STDIN") as copy,
            ):
                for row in rows:
                    copied.append(row)
                    copy.write_row(row)
        except UniqueViolation:
            return False
        except Error as error:
            raise DBAPIError("COPY", None, error) from error
        return True


_ARRAYS: Final = {"t": "text[]", "n": "bigint[]", "u": "uuid[]", "j": "json[]"}


@functools.lru_cache(maxsize=64)
def _unnested(before: str, types: str, after: str) -> str:
    arrays = ", ".join(f"%s::{_ARRAYS[letter]}" for letter in types)
    names = ", ".join(f"column{number}" for number in range(1, len(types) + 1))
    return f"{before} SELECT * FROM unnest({arrays}) AS given ({names}) {after}"  # noqa: S608


def _arrays(types: str, rows: Sequence[Row]) -> tuple[str, ...]:
    """The columns as array literals; psycopg's own way costs five times as much."""
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
