"""Distinguish poison records from a store that cannot work now.

The store refuses a poison record for good, and the relay quarantines it. Every other error
(deadlock, shutdown, missing right, full disk, standby, …) is the store's, and a retry may succeed.
"""

from __future__ import annotations

import re
from typing import Any, Final

from sidelight.store.database import DatabaseError, RowsSkippedError
from sidelight.store.statements import RUN_DEFERRED
from sidelight.store.tables import (
    ARTIFACTS,
    COSTS,
    DELIVERIES,
    EVENT_COUNTS,
    EVENTS,
    LOSSES,
    OPEN_CALLS,
    PROCESSES,
)

_VALUE_ERRORS: Final = frozenset({"22", "23", "54"})
"""SQLSTATE classes for errors in values: data, constraints, limits."""
_VALUE_KINDS: Final = frozenset({"DataError", "IntegrityError"})
"""The same in the driver, without SQLSTATE: the names are those of PEP 249."""
_TEXT_ERRORS: Final = frozenset({"22021", "22P05"})
"""SQLSTATEs of a text that the database's encoding cannot hold, whichever statement has it."""
_RAISED_BY_TRIGGER: Final = "P0"
"""SQLSTATE class of an error that a trigger raises without a class of its own."""
_UNKNOWN_ERROR: Final = "DatabaseError"
"""Name of psycopg's class for a SQLSTATE that only a trigger can have raised."""
_OF_SERVER: Final = ("08", "25", "28", "40", "42501", "53", "55", "57", "58", "F0", "XX")
"""SQLSTATEs, and classes of them, that say that the server or the connection cannot work now."""
_AT_COMMIT: Final = ("COMMIT", RUN_DEFERRED)
"""Statements that run deferred triggers, of whichever table. They execute nothing else."""
_CHECK_VIOLATION: Final = "23514"
_RECORD_STATEMENTS: Final = ("COPY", "INSERT INTO events", "UPDATE events")
"""Statements that write the values of records."""
_ROWS_OF_RECORDS: Final = (EVENTS.insert, LOSSES.insert, COSTS.insert)
"""Statements whose rows are records' own."""
_BOOKKEEPING: Final = tuple(
    table.insert for table in (ARTIFACTS, EVENT_COUNTS, DELIVERIES, OPEN_CALLS, PROCESSES)
)
"""Statements that write what the store itself keeps of records and of processes."""
_RECORD_TABLES: Final = re.compile(rf"({EVENTS.name}|{LOSSES.name}|{COSTS.name})(_\w+)?")
"""Tables (and their partitions) that hold the values of records."""
_SQLITE_CONSTRAINT: Final = re.compile(r"(?:UNIQUE|NOT NULL) constraint failed: (\w+)\.")


def is_record_refused(error: DatabaseError) -> bool:  # noqa: PLR0911
    """Return whether the database refused a record's own row because of its values.

    False where it refused a row of counters, or a row that a trigger writes into a foreign table:
    the record is not the cause, and a retry may succeed. A row that is skipped is one refused.
    True where a deferred trigger refuses: its error does not tell for which row.
    """
    original: Any = error.original
    statement = error.statement
    if isinstance(error, RowsSkippedError):
        return statement.startswith(_ROWS_OF_RECORDS)
    state = getattr(original, "sqlstate", None)
    if state in _TEXT_ERRORS:
        return True
    if statement.startswith(_BOOKKEEPING):
        return False
    if state is None:
        named = _SQLITE_CONSTRAINT.match(str(original))
        kinds = {kind.__name__ for kind in type(original).__mro__}  # of sqlite3 or of psycopg
        return not kinds.isdisjoint(_VALUE_KINDS) and _holds_records(named and named[1])
    table = original.diag.table_name
    if statement.startswith(_AT_COMMIT):
        return not state.startswith(_OF_SERVER) and _holds_records(table)
    if state == _CHECK_VIOLATION and table and not original.diag.constraint_name:
        return False  # a partition's bound: another relay has made a partition meanwhile
    if state.startswith(_RAISED_BY_TRIGGER) or type(original).__name__ == _UNKNOWN_ERROR:
        return statement.startswith(_RECORD_STATEMENTS)
    return state[:2] in _VALUE_ERRORS and _holds_records(table)


def _holds_records(table: str | None) -> bool:
    """Return whether the table that an error names holds values of records.

    Return True where the error names no table.
    """
    return not table or _RECORD_TABLES.fullmatch(table) is not None
