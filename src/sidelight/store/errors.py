"""Whose fault it is when the store answers with an error: the records', or somebody else's.

The former is refused for good, and the relay looks for the record; with everything else (deadlock,
shutdown, no rights, no space, a standby, …) it is the store that is not fit, and all will be well
another time.
"""

from __future__ import annotations

import re
from typing import Any, Final

from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from sidelight.store.schema import costs, events, losses

_VALUES: Final = frozenset({"22", "23", "54"})
"""SQLSTATE classes of errors that lie in values: data, constraints, limits."""
_RAISED: Final = "P0"
"""Of what somebody's trigger raises, if it names no class of its own."""
_CHECK: Final = "23514"
_OF_RECORDS: Final = ("COPY", "INSERT INTO events", "UPDATE events")
"""Statements that write the records' own values …"""
_OF_SUMS: Final = ("INSERT INTO artifacts", "INSERT INTO event_counts")
"""… and those that write what follows from them: `events` has taken the values by then."""
_OWN: Final = re.compile(rf"({events.name}|{losses.name}|{costs.name})(_\w+)?")
"""Tables that hold the records' own values, and their partitions."""
_MET_IN_SQLITE: Final = re.compile(r"(?:UNIQUE|NOT NULL) constraint failed: (\w+)\.")


def lies_in_the_values(error: SQLAlchemyError) -> bool:
    """Whether the record's own row was refused, for what is in it.

    It is not where what was refused is a row that sidelight counts with, or one in a table of
    somebody else's, which a trigger writes: there a record is not to blame, and another time it
    will be taken.
    """
    original: Any = getattr(error, "orig", None)
    state = getattr(original, "sqlstate", None)
    statement = getattr(error, "statement", None) or ""
    if statement.startswith(_OF_SUMS):
        return False
    if state is None:
        met = _MET_IN_SQLITE.match(str(original))
        return isinstance(error, DataError | IntegrityError) and _is_own(met and met[1])
    table = original.diag.table_name
    if state == _CHECK and table and not original.diag.constraint_name:
        return False  # of a partition: another relay has made one meanwhile
    if state.startswith(_RAISED):
        return statement.startswith(_OF_RECORDS)
    return state[:2] in _VALUES and _is_own(table)


def _is_own(table: str | None) -> bool:
    """Whether a table that an error names, if it does, holds records' own values."""
    return not table or _OWN.fullmatch(table) is not None
