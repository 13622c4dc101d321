"""What the spool asks of the operating system, and nothing else: a test can put another disk here.

The caller's copy is not among it: that is the mapping's own ``write``.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import stat
import struct
from pathlib import Path
from typing import Final

_LOCK: Final = struct.Struct("hhqqi4x")
_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"


class Disk:
    """The system's own calls; each raises OSError as they do."""

    def __init__(self) -> None:
        self._boot = b""

    def boot(self) -> bytes:
        """Tells this run of the machine from the one before a power loss.

        Where the system does not say, every process thinks that it is the first one.
        """
        if not self._boot:
            try:
                with open(_BOOT_ID, "rb") as file:  # noqa: PTH123  # seldom, and without a Path
                    self._boot = file.read().strip()
            except OSError:
                self._boot = os.urandom(16)
        return self._boot

    # -- names -------------------------------------------------------------------------------

    def make_directory(self, path: Path) -> None:
        """Make a directory for its owner alone, and those above it, where they are missing."""
        path.mkdir(parents=True, exist_ok=True, mode=0o700)

    def is_writable(self, directory: Path) -> bool:
        """Whether files can be made in it."""
        return os.access(directory, os.W_OK | os.X_OK)

    def names(self, directory: Path) -> list[str]:
        """The names in a directory, in no order."""
        return os.listdir(directory)  # noqa: PTH208  # of names there may be thousands

    def size_of(self, path: str) -> int:
        """The length of a file."""
        return os.stat(path).st_size  # noqa: PTH116  # as with the names

    def rename(self, old: Path, new: Path) -> None:
        """Give a file another name; whoever had that one loses it."""
        old.rename(new)

    def unlink(self, path: Path) -> None:
        """Take a name away; nothing happens where there is none."""
        path.unlink(missing_ok=True)

    def sync_directory(self, path: Path) -> None:
        """Make its names survive a power loss."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    # -- files -------------------------------------------------------------------------------

    def create(self, path: Path) -> int:
        """Make a file for its owner alone, which nobody may have made before."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def open(self, path: Path, *, writable: bool) -> int:
        """Open a file as it is; a link is not followed, and a pipe not waited for."""
        mode = os.O_RDWR if writable else os.O_RDONLY
        return os.open(path, mode | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)

    def close(self, fd: int) -> None:
        """Let go of a file, and of its locks unless a forked child has them too."""
        os.close(fd)

    def size(self, fd: int) -> int:
        """The length of an open file; -1 where it is no ordinary one."""
        status = os.fstat(fd)
        return status.st_size if stat.S_ISREG(status.st_mode) else -1

    def is_linked(self, fd: int) -> bool:
        """Whether an open file still has a name."""
        return os.fstat(fd).st_nlink > 0

    def allocate(self, fd: int, size: int) -> None:
        """Have the blocks of so many bytes, so that no later write lacks them."""
        os.posix_fallocate(fd, 0, size)

    def truncate(self, fd: int, size: int) -> None:
        """Cut a file: what lies behind is gone, and its blocks are free."""
        os.ftruncate(fd, size)

    def write(self, fd: int, data: bytes, offset: int) -> int:
        """Write; answers how much of it was."""
        return os.pwrite(fd, data, offset)

    def read(self, fd: int, size: int, offset: int) -> bytes:
        """Read; less than asked for means that the file ends there."""
        return os.pread(fd, size, offset)

    def map(self, fd: int, size: int) -> mmap.mmap:
        """Map a file into memory, shared; -1 maps memory that is nobody else's."""
        return mmap.mmap(fd, size)

    def sync(self, fd: int) -> None:
        """Make what is in a file, and how long it is, survive a power loss."""
        os.fdatasync(fd)

    def lock(self, fd: int) -> bool:
        """Become the owner of a file; False where somebody is."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def lock_byte(self, fd: int, byte: int) -> bool:
        """Hold one byte of a file, for those who ask; False where somebody does."""
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
        except (BlockingIOError, PermissionError):
            return False
        return True

    def is_byte_locked(self, fd: int, byte: int) -> bool:
        """Whether somebody else holds it; asked without taking a lock."""
        asked = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
        kind, *_ = _LOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))
        return bool(kind != fcntl.F_UNLCK)


DISK: Final = Disk()
"""The machine's."""
