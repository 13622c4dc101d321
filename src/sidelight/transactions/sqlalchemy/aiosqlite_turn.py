"""A turn on a connection of aiosqlite, whose thread executes the statements of all tasks in order.

An INSERT is one function for that thread, so that no statement of another task comes between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
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
        Exception: of the function.
    """
    # Taken by the thread that begins, or by the task that gives up. The thread keeps what it has
    # executed until the next statement, so that must refer neither to the function nor to its
    # error: either would keep SQLAlchemy's connection.
    waiting: list[Callable[[], None]] = [partial(function, connection._conn)]  # noqa: SLF001
    errors: list[BaseException] = []

    def run() -> None:
        taken = _taken(waiting)
        try:
            if taken is not None:
                taken()
        except BaseException as error:  # noqa: BLE001  # raised in the task
            errors.append(error)

    running = asyncio.ensure_future(connection._execute(run))  # noqa: SLF001
    try:
        await asyncio.wait({running}, timeout=None if within is None else within * SHARE)
        has_given_up = not running.done() and _taken(waiting) is not None
        if not has_given_up:
            await asyncio.wait({running})
    except BaseException:  # the task is cancelled
        waiting.clear()
        running.add_done_callback(partial(_forget, errors))
        raise
    if has_given_up:
        raise Refused(BUSY)
    running.result()
    if errors:
        raise errors.pop()


def _taken(waiting: list[Callable[[], None]]) -> Callable[[], None] | None:
    """Take what waits; only one of two threads gets it."""
    try:
        return waiting.pop()
    except IndexError:
        return None


def _forget(errors: list[BaseException], running: asyncio.Future[None]) -> None:
    """Retrieve an error that nobody waits for, because asyncio would log it."""
    errors.clear()
    if not running.cancelled():
        running.exception()
