"""A turn on a connection that several threads share, for a driver that gives none.

An INSERT into an outbox is several statements. Between two of them no other thread may insert,
because each restores a setting of the connection, and looks at what it has written.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from threading import Lock, get_ident
from typing import Any, Final

from sidelight.transactions.entry import BUSY, Refused

SHARE: Final = 0.5
"""The part of the time for an INSERT that may pass until the connection is free."""


class _Turn:
    __slots__ = ("holder", "lock")

    def __init__(self) -> None:
        self.lock = Lock()
        self.holder = 0


#: By process and connection, while somebody inserts; a forked child has none of the parent's.
_turns: Final[dict[tuple[int, int], _Turn]] = {}


@contextlib.contextmanager
def turn(raw: Any, within: float | None) -> Iterator[None]:
    """Keep the other threads from an INSERT on the connection of a driver.

    Args:
        raw: the connection.
        within: seconds that the INSERT may take; None waits as long as others insert.

    Raises:
        Refused: the connection is busy.
    """
    key = os.getpid(), id(raw)
    timeout = -1 if within is None else within * SHARE
    held: list[bool] = []
    found = _turns.setdefault(key, _Turn())
    try:
        while True:
            if found.holder == get_ident() or not acquired(found.lock, held, timeout=timeout):
                raise Refused(BUSY)
            if _turns.get(key) is found:
                break
            held.clear()
            found.lock.release()  # its holder has taken it out, and another may hold a new one
            found = _turns.setdefault(key, _Turn())
        found.holder = get_ident()
        yield
    finally:
        if held:
            if _turns.get(key) is found:
                del _turns[key]
            found.lock.release()


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
