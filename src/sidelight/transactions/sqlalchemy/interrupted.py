"""What an interrupt has struck on a connection of SQLAlchemy; the driver's state tells that.

An interrupt is each error that is not the driver's: of a signal handler, of a cancelled task.
"""

from __future__ import annotations

from typing import Protocol

from sqlalchemy.engine import Connection, ExceptionContext

from sidelight.transactions import control
from sidelight.transactions.control import Statement
from sidelight.transactions.sqlalchemy.drivers import driver_of


class Ending(Protocol):
    """The events that wait for the transactions of one connection."""

    has_begun: bool
    has_failed: bool
    is_doubtful: bool
    was_open: bool | None

    def finish(self) -> bool:
        """See `Waiting.finish`."""
        ...

    def executed(self, statement: Statement) -> None:
        """See `Waiting.executed`."""
        ...

    def committed(self) -> None:
        """See `Waiting.committed`."""
        ...

    def rolled_back(self) -> None:
        """See `Waiting.rolled_back`."""
        ...

    def unknown(self) -> None:
        """See `Waiting.unknown`."""
        ...


def is_still_open(connection: Connection, error: BaseException | None = None) -> bool | None:
    """Return whether a transaction is open behind an interrupt; None where nothing tells.

    Args:
        connection: the caller's.
        error: that invalidates the connection; None where it stays.
    """
    if connection.connection.dbapi_connection is None:  # the pool has invalidated it already
        return None
    return driver_of(connection).is_still_open(connection, error)


def commit_has_ended(found: Ending, connection: Connection) -> bool:
    """Return whether a COMMIT that was interrupted has ended the transaction.

    Where the transaction is open the events wait on. Where nothing tells they are counted.
    """
    is_open = found.was_open if connection.invalidated else is_still_open(connection)
    if is_open is None:
        found.unknown()
    elif not is_open and found.has_begun:
        return True
    elif connection.invalidated:
        found.rolled_back()
    return False


def rollback_has_ended(found: Ending, connection: Connection) -> bool:
    """Return whether a ROLLBACK that was interrupted has ended the transaction.

    Where it is open the events wait on, because the next commit commits their work: SQLAlchemy has
    forgotten the transaction. Where nothing tells they are counted.
    """
    if connection.invalidated:
        return True
    is_open, driver = is_still_open(connection), driver_of(connection)
    if is_open is None and driver.tells_its_state and not driver.may_undo_all:
        return True  # a server executes the ROLLBACK
    if is_open is None:
        found.unknown()
    return is_open is False


def take_in_interrupted(found: Ending, connection: Connection, context: ExceptionContext) -> None:
    """Take in a statement that was interrupted before, within or behind its execution."""
    text = context.statement or ""
    if found.finish() or connection.invalidated:
        return
    driver = driver_of(connection)
    found.has_failed = True
    found.is_doubtful = found.is_doubtful or not driver.tells_its_state
    if not control.may_control(text):
        return
    statements = list(control.statements(text, driver.dialect(connection)))
    verbs = {each.verb for each in statements}
    is_ending = bool(verbs & control.ENDS or (control.RELEASE in verbs and driver.may_undo_all))
    is_open = is_still_open(connection, context.original_exception) if is_ending else True
    if is_open:
        for each in statements:
            if each.verb == control.SAVEPOINT:
                found.executed(each)  # one too many does no harm
        found.is_doubtful = found.is_doubtful or control.ROLLBACK_TO in verbs
    elif is_open is None or len(statements) > 1:
        found.unknown()
    elif found.has_begun and control.RELEASE in verbs:
        found.committed()
    elif found.has_begun:
        found.executed(statements[0])
