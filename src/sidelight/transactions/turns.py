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
    found = _acquired(key, -1 if within is None else within * SHARE)
    try:
        found.holder = get_ident()
        yield
    finally:
        _turns.pop(key, None)
        found.lock.release()


def _acquired(key: tuple[int, int], timeout: float) -> _Turn:
    while True:
        found = _turns.setdefault(key, _Turn())
        if found.holder == get_ident() or not found.lock.acquire(timeout=timeout):
            raise Refused(BUSY)
        if _turns.get(key) is found:
            return found
        found.lock.release()  # its holder has taken it out, and another may hold a new one
