"""A turn on a connection of asyncpg, which executes one operation at a time.

SQLAlchemy gives turns to its own statements. An operation past SQLAlchemy, such as a COPY, takes no
turn: asyncpg refuses every other operation until it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from sidelight.transactions.entry import BUSY, Refused
from sidelight.transactions.turns import SHARE


@contextlib.asynccontextmanager
async def turn(adapter: Any, within: float | None) -> AsyncIterator[None]:
    """Hold the lock by which the statements of several tasks take turns.

    Args:
        adapter: SQLAlchemy's, of a connection of asyncpg.
        within: seconds that an INSERT may take; None waits without a limit.

    Raises:
        Refused: the connection is busy.
    """
    lock: asyncio.Lock = adapter._execute_mutex  # noqa: SLF001  # SQLAlchemy's statements hold it
    try:
        async with asyncio.timeout(None if within is None else within * SHARE):
            await lock.acquire()
    except TimeoutError:
        raise Refused(BUSY) from None
    try:
        yield
    finally:
        lock.release()


def runs_past_sqlalchemy(adapter: Any) -> bool:
    """Return whether an operation is running that SQLAlchemy has not begun: a COPY, for example."""
    raw = adapter.driver_connection
    if raw.is_closed() or adapter._execute_mutex.locked():  # noqa: SLF001
        return False
    # Asyncpg stops reading while the output of a COPY is processed.
    return not raw._transport.is_reading() or _refuses(adapter.dbapi.asyncpg, raw._protocol)  # noqa: SLF001


def is_busy(adapter: Any) -> bool:
    """Return whether an operation is running, or the connection has ended."""
    raw = adapter.driver_connection
    return raw.is_closed() or _refuses(adapter.dbapi.asyncpg, raw._protocol)  # noqa: SLF001


def _refuses(asyncpg: Any, protocol: Any) -> bool:
    """Return whether asyncpg refuses an operation now, without sending anything.

    asyncpg checks first that no operation is running, and then that a statement to be closed is
    not in use. The statement here always is.
    """
    if protocol._is_cancelling():  # noqa: SLF001
        return True
    statement = asyncpg.protocol.protocol.PreparedStatementState("", "", protocol, None, False)
    statement.attach()
    closing = protocol.close_statement(statement, None)
    try:
        closing.send(None)
    except asyncpg.InterfaceError:
        return True
    except asyncpg.InternalClientError:
        return False
    finally:
        closing.close()
    return True
