"""The only seam between the spool and the operating system; a test can put another disk here.

The caller's copy into a segment is not part of it: that is the mapping's own ``write``.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import stat
import sys
from pathlib import Path
from typing import Final

from sidelight.host import (
    OPEN_FILES,
    Descriptor,
    fstat,
    identity,
    is_directory,
    is_faked,
    keep_for_ever,
    require_files,
    status_of,
)
from sidelight.spool import locks, system

_NEW: Final = os.O_RDWR | os.O_CREAT | system.BINARY
_DUPLICATES: Final = sys.version_info < (3, 13)  # from then on a mapping needs no descriptor


def make_private_directory(path: Path) -> None:
    """Make a directory and its missing parents, all with mode 0700 whatever the umask.

    Raises:
        OSError: it cannot be made, or there is a file in its place.
    """
    if is_directory(path):
        return
    try:
        path.mkdir(mode=0o700)
    except FileNotFoundError:
        make_private_directory(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    except FileExistsError:  # another process was faster, or it is a file
        if not is_directory(path):
            raise


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
        self._boot = self._boot or system.boot_id()
        return self._boot

    # -- names -------------------------------------------------------------------------------

    def make_directory(self, path: Path) -> None:
        """Make a directory with mode 0700, and its parents where they are missing."""
        make_private_directory(path)

    def is_writable(self, directory: Path) -> bool:
        """Return whether this process may create files in a directory."""
        return os.access(directory, os.W_OK | os.X_OK)

    def names(self, directory: Path) -> list[str]:
        """List the names in a directory, in no order."""
        require_files()
        return os.listdir(directory)  # noqa: PTH208  # there may be thousands of names

    def size_of(self, path: str) -> int:
        """Return the length of a file in bytes."""
        return os.stat(path).st_size  # noqa: PTH116  # there may be thousands of files

    def rename(self, old: Path, new: Path) -> None:
        """Rename a file; a file that had the new name loses it."""
        old.rename(new)

    def unlink(self, path: Path) -> None:
        """Remove a name; do nothing where the name is missing."""
        locks.unlink(path)

    def link(self, path: Path, target: Path) -> None:
        """Make a symbolic link at ``path``; fail where the name exists."""
        path.symlink_to(target)

    def target(self, path: Path) -> Path | None:
        """Return where a symbolic link leads; None for everything else."""
        try:
            return Path(os.readlink(path))  # noqa: PTH115  # often
        except OSError:
            return None

    def user(self) -> int:
        """Return the id of the user whose rights count; 0 where the system has no such ids."""
        return system.user()

    def is_trusted(self, directory: Path, of: Path) -> bool:
        """Return whether a directory has one user only: this process's, or the owner of ``of``."""
        try:
            status = os.lstat(directory)
            owner = status_of(of)
        except OSError:
            return False
        is_private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077
        return is_private and status.st_uid in {self.user(), owner.st_uid if owner else self.user()}

    def sync_directory(self, path: Path) -> None:
        """Make the names in a directory survive a power loss."""
        system.sync_directory(path)

    # -- files -------------------------------------------------------------------------------

    def create(self, path: Path) -> int:
        """Create a file with mode 0600; fail where the name exists."""
        return Descriptor(os.open(path, _NEW | os.O_EXCL, 0o600), path)

    def open(self, path: Path, *, writable: bool) -> int:
        """Open an existing file; follow no symbolic link and do not block on a pipe."""
        mode = os.O_RDWR if writable else os.O_RDONLY
        return Descriptor(os.open(path, mode | system.CAREFULLY), path)

    def open_or_create(self, path: Path, mode: int) -> int:
        """Open a file for reading and writing; create it with ``mode`` where it is missing."""
        return Descriptor(os.open(path, _NEW, mode), path)

    def is_own(self, fd: int) -> bool:
        """Return whether a descriptor still is the file that was opened as it."""
        return isinstance(fd, Descriptor) and fd.is_own()

    def _checked(self, fd: int) -> Descriptor:
        if isinstance(fd, Descriptor) and fd.is_own():
            return fd
        raise OSError(errno.EBADF, "other code has closed the descriptor")

    def close(self, fd: int) -> None:
        """Close a file; its locks end unless a forked child has the file open too."""
        if isinstance(fd, Descriptor):
            fd.close()

    def size(self, fd: int) -> int:
        """Return the length of an open file in bytes; -1 for a file that is not regular."""
        status = fstat(self._checked(fd))
        return status.st_size if stat.S_ISREG(status.st_mode) else -1

    def is_linked(self, fd: int) -> bool:
        """Return whether an open file still has a name."""
        return fstat(self._checked(fd)).st_nlink > 0

    def is_at(self, fd: int, path: Path) -> bool:
        """Return whether an open file is still at ``path``: not deleted, moved or replaced.

        A path that cannot be looked at, as after a change of user, counts as unchanged.
        """
        if is_faked():
            return True
        try:
            status = os.stat(path)  # noqa: PTH116  # often
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True
        return identity(self._checked(fd)) == (status.st_dev, status.st_ino)

    def allocate(self, fd: int, size: int) -> None:
        """Reserve blocks for ``size`` bytes, so that no later write runs out of space."""
        system.allocate(self._checked(fd), 0, size)

    def truncate(self, fd: int, size: int) -> None:
        """Cut a file to ``size`` bytes and free the blocks behind."""
        os.ftruncate(self._checked(fd), size)

    def write(self, fd: int, data: bytes, offset: int) -> int:
        """Write at an offset; return how many bytes were written."""
        return system.pwrite(self._checked(fd), data, offset)

    def read(self, fd: int, size: int, offset: int) -> bytes:
        """Read at an offset; fewer than ``size`` bytes mean that the file ends there."""
        return system.pread(self._checked(fd), size, offset)

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
            for other in map(int, os.listdir(OPEN_FILES)):  # noqa: PTH208
                with contextlib.suppress(OSError):
                    if other != fd and identity(other) == identity(fd):
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
            keep_for_ever(mapping)

    def sync(self, fd: int) -> None:
        """Make the content and the length of a file survive a power loss."""
        system.sync_data(self._checked(fd))

    def lock(self, fd: int) -> bool:
        """Take the exclusive lock of a file; return False where another process holds it."""
        return locks.lock(self._checked(fd))

    def unlock(self, fd: int) -> None:
        """Release the lock of a file, also where a forked child has the file open too."""
        if self.is_own(fd):
            locks.unlock(fd)

    def lock_byte(self, fd: int, byte: int) -> bool:
        """Lock one byte of a file; return False where another process holds the lock."""
        return locks.lock_byte(self._checked(fd), byte)

    def is_byte_locked(self, fd: int, byte: int) -> bool:
        """Return whether another process locks one byte of a file; take no lock."""
        return locks.is_byte_locked(self._checked(fd), byte)


DISK: Final = Disk()
"""The disk of this machine."""
