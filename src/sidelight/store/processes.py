"""What relays write about processes: signs of life, open calls, and the end of a process.

A process writes signs of life into its spool. When the store gets one, it has got everything that
the process wrote before. Of a process that died, the relay that has delivered all of its segments
writes the end: the segments' lock is free, so that nothing comes after it. The calls of the process
whose end was not recorded by then are abandoned.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from sidelight.store.database import Connection, RowsSkippedError
from sidelight.store.deliveries import Contents, number_of
from sidelight.store.keys import fit_to_index
from sidelight.store.proved import check_changed, delete_all, put_all
from sidelight.store.rows import Ledger, Row
from sidelight.store.statements import BatchStatements, put_missing
from sidelight.store.tables import EVENTS, OPEN_CALLS, PROCESSES

_DELIVERED_UNTIL: Final = 7  # a column
_UPDATE: Final = (
    "ON CONFLICT (process) DO UPDATE SET last_seen = excluded.last_seen,"
    " delivered_until = excluded.delivered_until, ended = excluded.ended"
    " WHERE excluded.delivered_until > processes.delivered_until"
)
_DIED: Final = (
    "ON CONFLICT (process) DO UPDATE SET ended = 'died', last_seen = excluded.last_seen"
    " WHERE processes.ended = ''"
)
_MERGE: Final = (
    "ON CONFLICT (call) DO UPDATE SET event_id = CASE"
    " WHEN open_calls.event_id = excluded.event_id THEN excluded.event_id ELSE 'both' END"
)
_FORGET: Final = "DELETE FROM open_calls WHERE event_id = 'both' AND call IN ("
_ABANDON: Final = "UPDATE events SET outcome = 'abandoned' FROM ("
_IS_STARTED: Final = "events.event_id = given.column1 AND events.outcome = 'started'"


def store_process(
    connection: Connection,
    statements: BatchStatements,
    contents: Contents,
    new: Collection[str],
    now: int,
) -> None:
    """Store what a delivery says of the process that emitted it, and of its calls.

    Args:
        connection: within a transaction.
        statements: of the connection.
        contents: of one process.
        new: the ids of the events that were not stored before.
        now: the time of the transaction (ns).
    """
    instance = str(contents.writer.get("instance", ""))
    started = {call: key for key, call in contents.starts.items() if key in new}
    if started or contents.ended:
        store = _store_calls if contents.in_order else _merge_calls
        store(statements, started, contents.ended, number_of(instance))
    if _store_signs_of_life(statements, contents.ledgers, contents.writer, now):
        abandon_calls(connection, statements, instance)


def _store_signs_of_life(
    statements: BatchStatements,
    ledgers: Iterable[Ledger],
    writer: Mapping[str, Any],
    now: int,
) -> bool:
    """Store the last of the signs of life of a process; return whether it says that it ends."""
    signs = [(content, at) for content, at in ledgers if content.began is not None]
    if not signs:
        return False
    content, at = max(signs, key=lambda sign: sign[1])
    row = _row(writer, content.began or 0, now, at, "exited" if content.ended else "")
    _put(statements, row, _UPDATE)
    return content.ended


def store_life(
    statements: BatchStatements, writer: Mapping[str, Any], now: int, until: int
) -> None:
    """Store that a process lives, and that what it wrote until a time (ns) is stored."""
    _put(statements, _row(writer, until, now, until, ""), _UPDATE)


def store_death(statements: BatchStatements, writer: Mapping[str, Any], now: int) -> None:
    """Store that a process has ended, unless it has said so itself."""
    row = _row(writer, 0, now, 0, "died")
    _put(statements, row, _DIED)


def _put(statements: BatchStatements, row: Row, after: str) -> None:
    """Write the row of a process, unless the store knows more of it.

    Raises:
        RowsSkippedError: the store knows less of it afterwards.
    """
    if statements.change(PROCESSES.insert, PROCESSES.kinds, [row], after):
        return
    query = "SELECT delivered_until FROM processes WHERE process IN ("
    known = statements.run(query, "t", [row[:1]], ")")
    if not known or known[0][0] < row[_DELIVERED_UNTIL]:
        raise RowsSkippedError(PROCESSES.insert, PROCESSES.name, 1)


def _row(
    writer: Mapping[str, Any], began: int, now: int, until: int, ended: str
) -> tuple[Any, ...]:
    resource = writer.get("resource")
    about: Mapping[str, Any] = resource if isinstance(resource, dict) else {}
    instance, pid = str(writer.get("instance", "")), writer.get("pid")
    return (
        fit_to_index(instance),
        number_of(instance),
        fit_to_index(str(about.get("host.name", ""))),
        fit_to_index(str(about.get("service.name", ""))),
        pid if isinstance(pid, int) and 0 <= pid < 1 << 32 else 0,
        began,
        now,
        until,
        ended,
    )


# -- calls ---------------------------------------------------------------------------------------


def _store_calls(
    statements: BatchStatements, started: Mapping[str, str], ended: Collection[str], process: int
) -> None:
    """Note the calls that have started and not ended; forget those that have ended."""
    opened = [(call, key, process) for call, key in sorted(started.items()) if call not in ended]
    put_missing(statements, OPEN_CALLS, opened)
    delete_all(statements, OPEN_CALLS, [(call,) for call in sorted(ended) if call not in started])


def _merge_calls(
    statements: BatchStatements, started: Mapping[str, str], ended: Collection[str], process: int
) -> None:
    """Note starts and ends that come in any order.

    An end without a start is noted as well, without an event. What comes second is merged with what
    came first, and both are forgotten.
    """
    calls = sorted(started.keys() ^ set(ended))
    rows = [(call, started.get(call, ""), process) for call in calls]
    put_all(statements, OPEN_CALLS, rows, _MERGE)
    statements.run(_FORGET, "t", [(call,) for call in calls], ")")


def abandon_calls(connection: Connection, statements: BatchStatements, instance: str) -> None:
    """Give the open calls of a process that has ended the outcome "abandoned"."""
    number = number_of(instance)
    # A merged call is no open one, also where the database has kept its row.
    query = "SELECT event_id FROM open_calls WHERE process = ? AND event_id NOT IN ('', 'both')"
    keys: Sequence[Any] = [tuple(key) for key in connection.ask(query, number).fetchall()]
    if statements.change(_ABANDON, "u", keys, f") AS given WHERE {_IS_STARTED}") < len(keys):
        check_changed(statements, EVENTS, "u", keys, _IS_STARTED)
    connection.ask("DELETE FROM open_calls WHERE process = ?", number)
