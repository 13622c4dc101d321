"""A turn on a connection of psycopg, which executes one statement at a time.

COPY, `stream` and `notifies` hold the connection's lock from their beginning to their end, also
while code of the caller runs between two rows. The lock cannot be taken twice, so a wait for it
would never end there. Such a statement holds the lock and executes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

from psycopg import AsyncConnection, Connection
from psycopg.pq import TransactionStatus

from sidelight.transactions.entry import BUSY, Refused
from sidelight.transactions.psycopg.watch import AnyConnection, watch
from sidelight.transactions.statements import SHARE

_LOOK: Final = 0.4  # seconds from one look at the holder of the lock to the next


@contextlib.contextmanager
def turn(connection: Connection[Any], within: float | None) -> Iterator[None]:
    """Hold the lock of a connection.

    Args:
        connection: the caller's.
        within: seconds that an INSERT may take; None waits as long as a statement is executed.

    Raises:
        Refused: the connection is busy.
    """
    lock = connection.lock
    if not lock.acquire(blocking=False):
        _check_executes(connection)
        while not lock.acquire(timeout=_seconds(within)):
            _check_again(connection, within)
    try:
        _check_status(connection)
        yield
    finally:
        lock.release()


@contextlib.asynccontextmanager
async def turn_awaited(
    connection: AsyncConnection[Any], within: float | None
) -> AsyncIterator[None]:
    """See `turn`."""
    lock = connection.lock
    if lock.locked():
        _check_executes(connection)
    while True:
        try:
            async with asyncio.timeout(_seconds(within)):
                await lock.acquire()
            break
        except TimeoutError:
            _check_again(connection, within)
    try:
        _check_status(connection)
        yield
    finally:
        lock.release()


def _seconds(within: float | None) -> float:
    return _LOOK if within is None else within * SHARE


def _check_again(connection: AnyConnection, within: float | None) -> None:
    if within is not None:
        raise Refused(BUSY)
    _check_executes(connection)


def _check_executes(connection: AnyConnection) -> None:
    if not watch(connection).executes():
        raise Refused(BUSY)


def _check_status(connection: AnyConnection) -> None:
    if connection.pgconn.transaction_status == TransactionStatus.ACTIVE:
        raise Refused(BUSY)
