"""How a driver's connection leaves SQLAlchemy's while a transaction is open.

It is invalidated, detached from its pool, or returned to the pool by the garbage collector.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sqlalchemy.engine import Connection
from sqlalchemy.pool import reset_rollback

from sidelight.transactions.hooks import Contained
from sidelight.transactions.sqlalchemy.drivers import driver_of
from sidelight.transactions.sqlalchemy.interrupted import is_still_open


class Open(Protocol):
    """The events that wait for the transactions of one connection."""

    outlives: bool
    was_open: bool | None

    def __bool__(self) -> bool:
        """Return whether there are events."""
        ...

    def unknown(self) -> None:
        """See `Waiting.unknown`."""
        ...

    def check_open(self, connection: Connection) -> None:
        """See `Watch.check_open`."""
        ...

    def lose(self, error: Exception) -> None:
        """See `Waiting.lose`."""
        ...


def outlives(connection: Connection) -> bool:
    """Return whether a transaction outlives its connection that is dropped without a close.

    The pool of a synchronous driver then commits it, or leaves it open for the next user. By
    default the pool rolls it back.
    """
    if connection.engine.pool._reset_on_return is reset_rollback or connection.dialect.is_async:  # noqa: SLF001
        return False
    return not (is_lost(connection) or connection.connection.is_detached)


def is_lost(connection: Connection) -> bool:
    """Return whether SQLAlchemy's connection has no connection of the driver."""
    return connection.invalidated or connection.closed


def overlays(
    kind: type[Connection], living: Callable[[], Connection], found: Open
) -> dict[str, Callable[..., None]]:
    """Return, by name, what overlays the methods that take the driver's connection away.

    The driver's connection cannot be asked after that.

    Args:
        kind: the class of the connection.
        living: returns the connection.
        found: the events that wait for its transactions.
    """

    def invalidate(exception: BaseException | None = None) -> None:
        connection = living()
        with Contained(found.lose):
            if exception is None:  # by the caller; before an error SQLAlchemy has done something
                found.check_open(connection)
            elif found and not connection.invalidated:
                found.was_open = is_still_open(connection, exception)
        kind.invalidate(connection, exception)
        found.outlives = False

    def detach() -> None:
        kind.detach(living())
        found.outlives = False

    def close() -> None:
        connection = living()
        with Contained(found.lose):
            if found and _is_given_back_open(connection):
                found.unknown()
        kind.close(connection)

    return {"invalidate": invalidate, "detach": detach, "close": close}


def _is_given_back_open(connection: Connection) -> bool:
    """Return whether a close returns the driver's connection with its transaction open.

    That is so after a commit that was interrupted before its COMMIT, unless the caller rolls back.
    The pool's next user commits the transaction.
    """
    part = connection.get_transaction()
    if part is None or part.is_active or is_lost(connection):
        return False
    return driver_of(connection).has_begun(connection)
