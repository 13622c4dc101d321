"""Locks of files that end with their process, by what the operating system has.

- Linux: ``flock`` locks a file, and an open file can lock single bytes.
- macOS: ``flock`` locks a file. A lock file beside it stands for each byte, because the byte locks
  of POSIX end as soon as the process closes any descriptor of the file.
- Windows: a lock on one byte far behind the end stands for the file, because no other process can
  read locked bytes. There are no byte locks: segments lie in memory there.

The functions raise OSError as the system does.
"""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path
from typing import Any, Final

from sidelight.host import HAS_FILE_LOCKS, Descriptor
from sidelight.spool.header import READER_BYTE, WRITER_BYTE
from sidelight.spool.system import CAREFULLY

fcntl: Any = None
msvcrt: Any = None
if HAS_FILE_LOCKS:
    import fcntl
else:
    import msvcrt

HAS_BYTE_LOCKS: Final = hasattr(fcntl, "F_OFD_SETLK")
_LOCK: Final = struct.Struct("hhqqi4x")  # struct flock of Linux
_FAR: Final = 1 << 30

if HAS_FILE_LOCKS:

    def _lock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def unlock(fd: int) -> None:
        """Release the lock of a file, also where a forked child has the file open too."""
        fcntl.flock(fd, fcntl.LOCK_UN)

else:

    def _lock(fd: int) -> None:
        os.lseek(fd, _FAR, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)

    def unlock(fd: int) -> None:
        """Release the lock of a file."""
        os.lseek(fd, _FAR, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)


def lock(fd: int) -> bool:
    """Take the exclusive lock of a file; return False where another process holds it."""
    try:
        _lock(fd)
    except (BlockingIOError, PermissionError):
        return False
    return True


if HAS_BYTE_LOCKS:

    def lock_byte(fd: Descriptor, byte: int) -> bool:
        """Lock one byte of a file; return False where another process holds the lock."""
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
        except (BlockingIOError, PermissionError):
            return False
        return True

    def is_byte_locked(fd: Descriptor, byte: int) -> bool:
        """Return whether another process locks one byte of a file; take no lock."""
        asked = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
        kind, *_ = _LOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))
        return bool(kind != fcntl.F_UNLCK)

else:

    def lock_byte(fd: Descriptor, byte: int) -> bool:
        """Lock the file that stands for one byte; return False where another process does."""
        path = _lock_file(Path(fd.path), fd.file[1], byte)
        lock_file = Descriptor(os.open(path, os.O_RDWR | os.O_CREAT | CAREFULLY, 0o600), path)
        if not lock(lock_file):
            lock_file.close()
            return False
        fd.lock_files[byte] = lock_file
        return True

    def is_byte_locked(fd: Descriptor, byte: int) -> bool:
        """Return whether another process locks the file that stands for one byte.

        A shared lock is taken for a moment. A relay that wants its own just then comes again.
        """
        if byte in fd.lock_files:
            return False
        path = _lock_file(Path(fd.path), fd.file[1], byte)
        try:
            with Descriptor(os.open(path, os.O_RDWR | CAREFULLY), path) as lock_file:
                fcntl.flock(lock_file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False


def _lock_file(path: Path, inode: int, byte: int) -> Path:
    return path.with_name(f".{inode:x}-{byte}.lock")  # a file keeps its inode when it is renamed


def unlink(path: Path) -> None:
    """Remove a name, and the lock files of its file; do nothing where the name is missing."""
    with contextlib.suppress(FileNotFoundError):
        inode = 0 if HAS_BYTE_LOCKS else path.lstat().st_ino
        path.unlink()
        if not HAS_BYTE_LOCKS:
            for byte in (READER_BYTE, WRITER_BYTE):
                _lock_file(path, inode, byte).unlink(missing_ok=True)
