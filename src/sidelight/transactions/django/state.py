"""What the driver below a database of Django tells of its transaction."""

from __future__ import annotations

from enum import Enum
from typing import Any, Final

from sidelight.host import imported
from sidelight.transactions import control
from sidelight.transactions.control import Dialect
from sidelight.transactions.libpq import BEGUN, Status
from sidelight.transactions.sqlite import is_autocommit


class State(Enum):
    """The state of a driver's transaction."""

    IDLE = "there is none"
    OPEN = "it can be committed"
    FAILED = "it can only be rolled back"
    GONE = "its connection has ended"


def dialect_of(connection: Any) -> Dialect:
    """Return how the database reads the names of savepoints."""
    if connection.vendor == "sqlite":
        return control.SQLITE
    info = getattr(connection.connection, "info", None)
    return control.in_postgresql(info and info.parameter_status("server_encoding"))


def state_of(connection: Any) -> State:
    """Return the state of the driver's transaction."""
    raw = connection.connection
    if raw is None:
        return State.IDLE
    if connection.closed_in_transaction:
        return State.GONE
    if connection.vendor == "sqlite":
        try:
            return State.OPEN if raw.in_transaction else State.IDLE
        except raw.ProgrammingError:  # it is closed
            return State.GONE
    info = getattr(raw, "info", None)
    return State.OPEN if info is None else _STATES.get(info.transaction_status, State.GONE)


def is_in_autocommit(connection: Any) -> bool:
    """Return whether Django is in autocommit mode, or will be once it connects."""
    if connection.connection is None:
        return bool(connection.settings_dict["AUTOCOMMIT"])
    return bool(connection.autocommit)


def commits_itself(connection: Any) -> bool:
    """Return whether each statement commits by itself while no transaction is open."""
    raw = connection.connection
    if raw is None:
        return is_in_autocommit(connection)
    if connection.vendor == "sqlite":
        return is_autocommit(raw)
    # After a COMMIT or a ROLLBACK in SQL psycopg2 sends no BEGIN until its own commit.
    return bool(raw.autocommit) or getattr(raw, "status", None) == BEGUN


def is_psycopg(raw: Any) -> bool:
    """Return whether a driver's connection is one of psycopg."""
    psycopg = imported("psycopg")
    return psycopg is not None and isinstance(raw, psycopg.Connection)


def uses_psycopg(connection: Any) -> bool:
    """Return whether the driver of a database is psycopg, also before it has connected."""
    raw = connection.connection
    if raw is not None:
        return is_psycopg(raw)
    return getattr(connection.Database, "__name__", "") == "psycopg"


#: Of an unknown status the connection has ended.
_STATES: Final = {
    Status.IDLE: State.IDLE,
    Status.ACTIVE: State.OPEN,
    Status.INTRANS: State.OPEN,
    Status.INERROR: State.FAILED,
}
