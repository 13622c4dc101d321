"""The lock that serializes the writers of a SQLite file, where SQLite's bug needs one."""

from __future__ import annotations

import sqlite3
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final

from sidelight.host import monotonic, sleep
from sidelight.spool import DISK, make_private_directory
from sidelight.store.file_identity import beside
from sidelight.store.sqlite import LOCK_TIMEOUT

_FIRST_PAUSE: Final = 0.001  # seconds between two attempts; doubles
_LONGEST_PAUSE: Final = 0.02  # because several hundred relays that wait would keep the CPU busy


def has_wal_reset_bug() -> bool:
    """Return whether this SQLite can lose commits in WAL mode with two connections.

    Fixed in 3.51.3, 3.50.7 and 3.44.6.
    """
    version = sqlite3.sqlite_version_info
    fixed = {(3, 50): (3, 50, 7), (3, 44): (3, 44, 6)}
    return version < fixed.get(version[:2], (3, 51, 3))


def write_lock(path: Path) -> AbstractContextManager[None]:
    """Return the lock that a write transaction holds, where SQLite's bug needs one."""
    return WriteLock(path) if has_wal_reset_bug() else nullcontext()


class WriteLock:
    """Serializes the write transactions of all processes on one SQLite file.

    The file of the lock is open only while the lock is held. A daemon that closes every descriptor
    takes none away, and a file that was replaced is not locked again.

    Args:
        path: of the SQLite file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def __enter__(self) -> None:
        path = beside(self._path, ".lock")
        make_private_directory(path.parent)
        until, pause = monotonic() + LOCK_TIMEOUT, _FIRST_PAUSE
        while not self._is_locked(path):
            if monotonic() > until:
                raise TimeoutError
            sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _is_locked(self, path: Path) -> bool:
        """Lock the file; return False where another process has, or where the file was replaced."""
        fd = DISK.open_or_create(path, 0o600)
        try:
            if DISK.lock(fd) and DISK.is_at(fd, path):
                self._fd = fd
                return True
        except BaseException:
            DISK.close(fd)
            raise
        DISK.close(fd)
        return False

    def __exit__(self, *_: object) -> None:
        fd, self._fd = self._fd, -1
        DISK.unlock(fd)
        DISK.close(fd)
