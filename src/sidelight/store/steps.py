"""Long work on a store in short transactions, beside relays."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final, Generic, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from sidelight.exceptions import StoreBusyError, StoreError, in_one_line
from sidelight.host import monotonic
from sidelight.store.database import DatabaseError

_TARGET: Final = 0.05
"""Seconds that one transaction should take, because a relay may wait for it."""
_ROWS: Final = (100, 20_000)  # rows of one transaction: minimum, maximum
_LOCK_TIMEOUT: Final = 60.0  # seconds
_LOCKED: Final = frozenset({"55P03", "40P01", "40001"})  # SQLSTATE: no lock, deadlock, conflict
_C = TypeVar("_C")
_T = TypeVar("_T")


class ShortTransactions(Generic[_C]):
    """Runs one transaction after the other, and pauses in between.

    Args:
        url: of the store, without the password.
        lock: held in each transaction.
        begin: begins a transaction, and commits it at the end.

    Attributes:
        rows: how many rows the next transaction should change; adapted to the store's speed.
    """

    def __init__(
        self,
        url: str,
        lock: AbstractContextManager[None],
        begin: Callable[[], AbstractContextManager[_C]],
    ) -> None:
        self._url = url
        self._lock = lock
        self._begin = begin
        self.rows = _ROWS[0]

    def run(self, step: Callable[[_C], _T]) -> _T:
        """Run one transaction, then pause as long as it took, so that relays can write.

        Raises:
            StoreBusyError: other processes hold a lock for longer than `_LOCK_TIMEOUT`.
            StoreError: the store does not answer, or refuses.
        """
        until = monotonic() + _LOCK_TIMEOUT
        while True:
            began = monotonic()
            try:
                with self._lock, self._begin() as connection:
                    result = step(connection)
            except (TimeoutError, SQLAlchemyError, DatabaseError) as error:
                if not _is_locked(error):
                    raise self.failure(error) from error
                if monotonic() > until:
                    raise StoreBusyError(
                        url=self._url,
                        problem=_message(error),
                        remedy="end the process that holds the lock, then run the command again:"
                        " it continues where it stopped",
                    ) from error
                time.sleep(random.uniform(0.02, 0.2))  # noqa: S311  # no secret
            else:
                seconds = monotonic() - began
                self._adapt_rows(seconds)
                time.sleep(max(_TARGET / 10, seconds))
                return result

    def _adapt_rows(self, seconds: float) -> None:
        """Adapt the rows of a transaction, so that it takes about `_TARGET` seconds."""
        least, most = _ROWS
        if seconds > _TARGET:
            self.rows = max(least, self.rows // 2)
        elif seconds < _TARGET / 2:
            self.rows = min(most, self.rows * 2)

    def failure(self, error: Exception) -> StoreError:
        """Return the error for a database that refuses or does not answer."""
        return StoreError(
            url=self._url,
            problem=_message(error),
            remedy="run the command again when the store answers: it continues where it stopped",
        )


def _original(error: Exception) -> Exception:
    if isinstance(error, DatabaseError):
        return error.original
    found: Exception = getattr(error, "orig", error)
    return found


def _is_locked(error: Exception) -> bool:
    original = _original(error)
    code = getattr(original, "sqlite_errorcode", 0) & 0xFF
    return (
        isinstance(error, TimeoutError)  # the write lock of a SQLite store
        or code == sqlite3.SQLITE_BUSY
        or getattr(original, "sqlstate", None) in _LOCKED
    )


def _message(error: Exception) -> str:
    return in_one_line(_original(error)) or "its lock is held"
