"""A turn on a connection that several threads share, for a driver that gives none.

An INSERT into an outbox is several statements. Between two of them no other thread may insert,
because each restores a setting of the connection, and looks at what it has written.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from functools import partial
from operator import call
from threading import Lock, get_ident
from typing import Any, Final

from sidelight.transactions.entry import BUSY, Refused

SHARE: Final = 0.5
"""The part of the time for an INSERT that may pass until the connection is free."""


_CALL: Final[Callable[[Callable[[], object]], object]] = call


def at_once(*steps: Callable[[], object]) -> Callable[[], object]:
    """Return a function of C that calls functions of C, so that no interrupt comes between two."""
    return partial(deque, map(_CALL, steps), 0)


class _Turn:
    """The lock of a connection.

    Attributes:
        lock: held while a thread inserts.
        holder: that thread.
        leave: takes the turn out and releases its lock. One call of C, because an interrupt that
            arrived between the two would keep the turn for good.
    """

    __slots__ = ("holder", "leave", "lock")

    def __init__(self, key: tuple[int, int]) -> None:
        self.lock = Lock()
        self.holder = 0
        self.leave = at_once(partial(_turns.pop, key, None), self.lock.release)


#: By process and connection, while a thread inserts; a forked child has none of the parent's.
_turns: Final[dict[tuple[int, int], _Turn]] = {}


def in_turn(raw: Any, within: float | None, insert: Callable[[], None]) -> None:
    """Execute an INSERT, and keep the other threads from another one on the same connection.

    Args:
        raw: the connection of the driver.
        within: seconds that the INSERT may take; None waits as long as others insert.
        insert: executes it.

    Raises:
        Refused: the connection is busy.
        Exception: of ``insert``.
    """
    key = os.getpid(), id(raw)
    timeout = -1 if within is None else within * SHARE
    held: list[bool] = []
    found = _turns.setdefault(key, _Turn(key))
    try:
        while True:
            if found.holder == get_ident() or not acquired(found.lock, held, timeout=timeout):
                raise Refused(BUSY)
            if _turns.get(key) is found:
                break
            held.clear()
            found.lock.release()  # its holder has taken it out, and another may hold a new one
            found = _turns.setdefault(key, _Turn(key))
        found.holder = get_ident()
        insert()
    finally:
        if held:
            found.leave()


def acquired(lock: Any, held: list[bool], *, blocking: bool = True, timeout: float = -1) -> bool:
    """Acquire a lock, and note that in the same step: no interrupt arrives between the two.

    Args:
        lock: of `threading`.
        held: gets an element with the lock.
        blocking: whether to wait.
        timeout: seconds to wait; -1 for no limit.
    """
    held.extend(filter(None, map(lock.acquire, (blocking,), (timeout,))))
    return bool(held)
