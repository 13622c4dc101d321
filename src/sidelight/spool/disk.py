"""The only seam between the spool and the operating system; a test can put another disk here.

The caller's copy into a segment is not part of it: that is the mapping's own ``write``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import stat
import struct
import sys
from pathlib import Path
from typing import Final, Self

_LOCK: Final = struct.Struct("hhqqi4x")  # struct flock
_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"
_OPEN_FILES: Final = "/proc/self/fd"
_DUPLICATES: Final = sys.version_info < (3, 13)  # from then on a mapping needs no descriptor


def make_private_directory(path: Path) -> None:
    """Make a directory and its missing parents, all with mode 0700 whatever the umask.

    Raises:
        OSError: it cannot be made, or there is a file in its place.
    """
    if path.is_dir():
        return
    try:
        path.mkdir(mode=0o700)
    except FileNotFoundError:
        make_private_directory(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    except FileExistsError:  # another process was faster, or it is a file
        if not path.is_dir():
            raise


class Descriptor(int):
    """The number of an open file, and the file (device and inode) that was opened as it."""

    file: tuple[int, int]

    def __new__(cls, number: int) -> Self:
        """Note which file has the number now."""
        self = super().__new__(cls, number)
        self.file = _identity(number)
        return self

    def is_own(self) -> bool:
        """Whether the number still is the file that was opened as it."""
        try:
            return self.file == _identity(self)
        except OSError:
            return False


class Disk:
    """The system calls that the spool needs. Each raises OSError as the system call does.

    A daemon closes every descriptor that it inherits, and its own files then get the numbers.
    Therefore each call first checks that a descriptor still is the file that was opened as it:
    device and inode. A descriptor of another file is neither used (EBADF) nor closed.
    """

    def __init__(self) -> None:
        self._boot = b""
        self._mapped: dict[int, Descriptor] = {}  # what a mapping has open, by the mapping's id

    def boot(self) -> bytes:
        """Return an id of this run of the machine; it changes with each boot.

        Where the system has no boot id, each process gets an id of its own.
        """
        if not self._boot:
            try:
                with open(_BOOT_ID, "rb") as file:  # noqa: PTH123  # a Path would cost more
                    self._boot = file.read().strip()
            except OSError:
                self._boot = os.urandom(16)
        return self._boot

    # -- names -------------------------------------------------------------------------------

    def make_directory(self, path: Path) -> None:
        """Make a directory with mode 0700, and its parents where they are missing."""
        make_private_directory(path)

    def is_writable(self, directory: Path) -> bool:
        """Whether this process may create files in a directory."""
        return os.access(directory, os.W_OK | os.X_OK)

    def names(self, directory: Path) -> list[str]:
        """List the names in a directory, in no order."""
        return os.listdir(directory)  # noqa: PTH208  # there may be thousands of names

    def size_of(self, path: str) -> int:
        """Return the length of a file in bytes."""
        return os.stat(path).st_size  # noqa: PTH116  # there may be thousands of files

    def rename(self, old: Path, new: Path) -> None:
        """Rename a file; a file that had the new name loses it."""
        old.rename(new)

    def unlink(self, path: Path) -> None:
        """Remove a name; do nothing where the name is missing."""
        path.unlink(missing_ok=True)

    def link(self, path: Path, target: Path) -> None:
        """Make a symbolic link at ``path``; fail where the name exists."""
        path.symlink_to(target)

    def target(self, path: Path) -> Path | None:
        """Return where a symbolic link leads; None for everything else."""
        try:
            return Path(os.readlink(path))  # noqa: PTH115  # often
        except OSError:
            return None

    def is_trusted(self, directory: Path, of: Path) -> bool:
        """Whether a directory has one user only: this process's, or the owner of ``of``."""
        try:
            status = os.lstat(directory)
            owners = {os.geteuid(), os.stat(of).st_uid if of.exists() else os.geteuid()}  # noqa: PTH116
        except OSError:
            return False
        is_private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077
        return is_private and status.st_uid in owners

    def sync_directory(self, path: Path) -> None:
        """Make the names in a directory survive a power loss."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    # -- files -------------------------------------------------------------------------------

    def create(self, path: Path) -> int:
        """Create a file with mode 0600; fail where the name exists."""
        return Descriptor(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def open(self, path: Path, *, writable: bool) -> int:
        """Open an existing file; follow no symbolic link and do not block on a pipe."""
        mode = os.O_RDWR if writable else os.O_RDONLY
        return Descriptor(os.open(path, mode | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK))

    def open_or_create(self, path: Path, mode: int) -> int:
        """Open a file for reading and writing; create it with ``mode`` where it is missing."""
        return Descriptor(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode))

    def is_own(self, fd: int) -> bool:
        """Whether a descriptor still is the file that was opened as it."""
        return isinstance(fd, Descriptor) and fd.is_own()

    def _checked(self, fd: int) -> int:
        if not self.is_own(fd):
            raise OSError(errno.EBADF, "other code has closed the descriptor")
        return fd

    def close(self, fd: int) -> None:
        """Close a file; its locks end unless a forked child has the file open too."""
        if self.is_own(fd):
            os.close(fd)

    def size(self, fd: int) -> int:
        """Return the length of an open file in bytes; -1 for a file that is not regular."""
        status = os.fstat(self._checked(fd))
        return status.st_size if stat.S_ISREG(status.st_mode) else -1

    def is_linked(self, fd: int) -> bool:
        """Whether an open file still has a name."""
        return os.fstat(self._checked(fd)).st_nlink > 0

    def is_at(self, fd: int, path: Path) -> bool:
        """Whether an open file is the one at ``path``: it was not deleted, moved or replaced.

        A path that cannot be looked at, as after a change of user, counts as unchanged.
        """
        try:
            status = os.stat(path)  # noqa: PTH116  # often
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True
        return _identity(self._checked(fd)) == (status.st_dev, status.st_ino)

    def allocate(self, fd: int, size: int) -> None:
        """Reserve blocks for ``size`` bytes, so that no later write runs out of space."""
        os.posix_fallocate(self._checked(fd), 0, size)

    def truncate(self, fd: int, size: int) -> None:
        """Cut a file to ``size`` bytes and free the blocks behind."""
        os.ftruncate(self._checked(fd), size)

    def write(self, fd: int, data: bytes, offset: int) -> int:
        """Write at an offset; return how many bytes were written."""
        return os.pwrite(self._checked(fd), data, offset)

    def read(self, fd: int, size: int, offset: int) -> bytes:
        """Read at an offset; fewer than ``size`` bytes mean that the file ends there."""
        return os.pread(self._checked(fd), size, offset)

    def map(self, fd: int, size: int) -> mmap.mmap:
        """Map a file into memory, shared; -1 maps anonymous memory."""
        if fd < 0:
            return mmap.mmap(-1, size)
        if not _DUPLICATES:
            return mmap.mmap(self._checked(fd), size, trackfd=False)  # type: ignore[call-arg, unused-ignore]
        mapping = mmap.mmap(self._checked(fd), size)
        if (duplicate := self._duplicate_of(fd)) is not None:
            self._mapped[id(mapping)] = duplicate
        return mapping

    def _duplicate_of(self, fd: int) -> Descriptor | None:
        """Return the descriptor that a new mapping has made for itself; None where it is hidden."""
        with contextlib.suppress(OSError):
            for other in map(int, os.listdir(_OPEN_FILES)):  # noqa: PTH208
                with contextlib.suppress(OSError):
                    if other != fd and _identity(other) == _identity(fd):
                        return Descriptor(other)
        return None

    def unmap(self, mapping: mmap.mmap) -> None:
        """Unmap a file.

        Where the descriptor of the mapping is another file's now, the mapping stays for ever,
        because to free it would close that file.
        """
        fd = self._mapped.pop(id(mapping), None)
        if fd is None or self.is_own(fd):
            mapping.close()
        else:
            _keep_for_ever(mapping)

    def sync(self, fd: int) -> None:
        """Make the content and the length of a file survive a power loss."""
        os.fdatasync(self._checked(fd))

    def lock(self, fd: int) -> bool:
        """Take the exclusive lock of a file; return False where another process holds it."""
        try:
            fcntl.flock(self._checked(fd), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(self, fd: int) -> None:
        """Release the lock of a file, also where a forked child has the file open too."""
        if self.is_own(fd):
            fcntl.flock(fd, fcntl.LOCK_UN)

    def lock_byte(self, fd: int, byte: int) -> bool:
        """Lock one byte of a file; return False where another process holds the lock."""
        try:
            lock = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
            fcntl.fcntl(self._checked(fd), fcntl.F_OFD_SETLK, lock)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def is_byte_locked(self, fd: int, byte: int) -> bool:
        """Whether another process locks one byte of a file; take no lock."""
        asked = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
        kind, *_ = _LOCK.unpack(fcntl.fcntl(self._checked(fd), fcntl.F_OFD_GETLK, asked))
        return bool(kind != fcntl.F_UNLCK)


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _keep_for_ever(value: object) -> None:
    """Let the interpreter never free an object, not even at its end."""
    import ctypes  # noqa: PLC0415  # seldom needed

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


DISK: Final = Disk()
"""The disk of this machine."""
