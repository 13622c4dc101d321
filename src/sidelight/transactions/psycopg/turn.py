"""A turn on a connection of psycopg, which executes one statement at a time.

COPY, `stream` and `notifies` hold the connection's lock from their beginning to their end, also
while code of the caller runs between two rows. The lock cannot be taken twice, so a wait for it
would never end there. Such a statement holds the lock, executes nothing, and leaves the server
busy. Another thread or task may go on with it; the caller's own cannot.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

from psycopg import AsyncConnection, Connection
from psycopg.pq import TransactionStatus

from sidelight.transactions.entry import BUSY, Refused
from sidelight.transactions.psycopg.overlays import AnyConnection, watch
from sidelight.transactions.turns import SHARE, acquired

_LOOK: Final = 0.4  # seconds from one look at the holder of the lock to the next


def take_turn(connection: Connection[Any], within: float | None, held: list[bool]) -> None:
    """Take the lock of a connection; the caller releases it in a ``finally``, if it is held.

    Args:
        connection: the caller's.
        within: seconds that an INSERT may take; None waits as long as others execute statements.
        held: gets an element with the lock, also where an interrupt arrives.

    Raises:
        Refused: the connection is busy.
    """
    lock = connection.lock
    if not acquired(lock, held, blocking=False):
        seen = _check_goes_on(connection, within)
        while not acquired(lock, held, timeout=_seconds(within)):
            seen = _check_again(connection, within, seen)
    _check_status(connection)


@contextlib.asynccontextmanager
async def turn_awaited(
    connection: AsyncConnection[Any], within: float | None
) -> AsyncIterator[None]:
    """Hold the lock of a connection; see `take_turn`."""
    lock = connection.lock
    seen = _check_goes_on(connection, within) if lock.locked() else 0
    if within is None:
        await _acquire_in_turn(connection, seen)
    else:
        try:
            async with asyncio.timeout(within * SHARE):
                await lock.acquire()
        except TimeoutError:
            _check_again(connection, within, seen)
    try:
        _check_status(connection)
        yield
    finally:
        lock.release()


async def _acquire_in_turn(connection: AnyConnection, seen: int) -> None:
    """Acquire the lock, and keep the place among the tasks that wait for it."""
    lock: Any = connection.lock
    acquiring = asyncio.ensure_future(lock.acquire())
    try:
        while not (await asyncio.wait({acquiring}, timeout=_LOOK))[0]:
            seen = _check_again(connection, None, seen)
        acquiring.result()
    except BaseException:
        if not (acquiring.cancel() or acquiring.cancelled()):  # it has the lock
            lock.release()
        raise


def _seconds(within: float | None) -> float:
    return _LOOK if within is None else within * SHARE


def _check_goes_on(connection: AnyConnection, within: float | None) -> int:
    """Check that the holder of the lock may release it soon enough; return the exchanges so far."""
    found = watch(connection)
    if found.stands(connection.pgconn) and (within is not None or found.is_own):
        raise Refused(BUSY)
    return found.exchanges


def _check_again(connection: AnyConnection, within: float | None, seen: int) -> int:
    """Check that there is time, and that anything was executed since the last look."""
    goes_on = watch(connection).goes_on(seen)
    if within is not None or not goes_on:
        raise Refused(BUSY)
    return _check_goes_on(connection, within)


def _check_status(connection: AnyConnection) -> None:
    if connection.pgconn.transaction_status == TransactionStatus.ACTIVE:
        raise Refused(BUSY)
