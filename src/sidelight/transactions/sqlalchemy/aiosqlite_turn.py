"""A turn on a connection of aiosqlite, whose thread executes the statements of all tasks in order.

An INSERT is one function for that thread, so that no statement of another task comes between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from threading import Lock
from typing import Any

from sidelight.transactions.entry import BUSY, Refused
from sidelight.transactions.turns import SHARE


async def run_in_turn(
    connection: Any, function: Callable[[Any], None], within: float | None
) -> None:
    """Run a function in the thread of a connection.

    Args:
        connection: of aiosqlite.
        function: takes the connection of sqlite3.
        within: seconds that an INSERT may take; None waits for what other tasks execute.

    Raises:
        Refused: the connection is busy.
    """
    first = Lock()  # taken by the thread that begins, or by the task that gives up

    def run() -> None:
        if first.acquire(blocking=False):
            function(connection._conn)  # noqa: SLF001

    running = asyncio.ensure_future(connection._execute(run))  # noqa: SLF001
    try:
        await asyncio.wait({running}, timeout=None if within is None else within * SHARE)
        has_given_up = not running.done() and first.acquire(blocking=False)
        if not has_given_up:
            await asyncio.wait({running})
    except BaseException:  # the task is cancelled
        first.acquire(blocking=False)
        running.add_done_callback(_retrieve)
        raise
    if has_given_up:
        raise Refused(BUSY)
    running.result()


def _retrieve(running: asyncio.Future[None]) -> None:
    """Retrieve an error that nobody waits for, because asyncio would log it."""
    if not running.cancelled():
        running.exception()
