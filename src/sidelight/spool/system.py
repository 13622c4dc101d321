"""System calls under one name each, chosen at import by what the operating system has."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from sidelight.host import HAS_FILE_LOCKS, IS_LINUX, Descriptor, allocate_lock

fcntl: Any = None
if HAS_FILE_LOCKS:
    import fcntl

_ZEROS: Final = bytes(256 * 1024)
_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"
_MADV_POPULATE_WRITE: Final = 23  # Linux; the mmap module has no name for it yet
user: Final[Callable[[], int]] = getattr(os, "geteuid", int)
"""Return the id of the user whose rights count; 0 where the system has no such ids."""
BINARY: Final[int] = getattr(os, "O_BINARY", 0)
"""Flag of `os.open` without which Windows changes line ends."""

CAREFULLY: Final[int] = BINARY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""Flags of `os.open` that follow no symbolic link and do not block on a pipe."""


def _full_sync(fd: int) -> None:
    """Flush a file and the cache of its drive, because ``fsync`` of macOS leaves the latter."""
    try:
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    except OSError:  # a filesystem without it
        os.fsync(fd)


sync: Final[Callable[[int], object]] = _full_sync if hasattr(fcntl, "F_FULLFSYNC") else os.fsync
"""Make a file survive a power loss."""
sync_data: Final[Callable[[int], object]] = getattr(os, "fdatasync", sync)
"""Make the content and the length of a file survive a power loss."""


def sync_directory(path: Path) -> None:
    """Make the names in a directory survive a power loss; Windows does that by itself."""
    if not HAS_FILE_LOCKS:
        return
    with Descriptor(os.open(path, os.O_RDONLY | os.O_DIRECTORY), path) as fd:  # a sync takes long
        sync(fd)


def _write_zeros(fd: int, offset: int, size: int) -> None:
    """Reserve blocks by writing them."""
    while size > 0:
        written = pwrite(fd, _ZEROS[:size], offset)
        size, offset = size - written, offset + written


allocate: Final[Callable[[int, int, int], object]] = getattr(os, "posix_fallocate", _write_zeros)
"""Reserve blocks of a new file, from an offset, for a number of bytes."""

_seeking: Final = allocate_lock()


def _seek_and_read(fd: int, size: int, offset: int) -> bytes:
    with _seeking:
        os.lseek(fd, offset, os.SEEK_SET)
        return os.read(fd, size)


def _seek_and_write(fd: int, data: bytes, offset: int) -> int:
    with _seeking:
        os.lseek(fd, offset, os.SEEK_SET)
        return os.write(fd, data)


pread: Final[Callable[[int, int, int], bytes]] = getattr(os, "pread", _seek_and_read)
"""Read from an offset; fewer bytes than wanted mean that the file ends there."""
pwrite: Final[Callable[[int, bytes, int], int]] = getattr(os, "pwrite", _seek_and_write)
"""Write at an offset; return how many bytes were written."""


def boot_id() -> bytes:
    """Return an id of this run of the machine; it changes with each boot.

    Where the system has none, each process gets an id of its own.

    Raises:
        OSError: no descriptor is left to read it.
    """
    try:
        with open(_BOOT_ID, "rb") as file:  # noqa: PTH123  # a Path would cost more
            return file.read().strip()
    except OSError as error:
        if error.errno in {errno.EMFILE, errno.ENFILE}:
            raise
        return _boot_session() or os.urandom(16)


def _boot_session() -> bytes:
    """Return macOS's id of this run of the machine; nothing on another system."""
    import ctypes  # noqa: PLC0415  # seldom needed

    found, size = ctypes.create_string_buffer(64), ctypes.c_size_t(64)
    with contextlib.suppress(AttributeError, OSError, TypeError):  # no such function
        libc = ctypes.CDLL(None)
        if not libc.sysctlbyname(b"kern.bootsessionuuid", found, ctypes.byref(size), None, 0):
            return found.value
    return b""


def populate(mapping: mmap.mmap, size: int) -> None:
    """Take the page faults of a new mapping now; else a caller pays some 10 µs for each page.

    Where no call does that (Linux before 5.14, other systems), the pages are touched one by one.
    """
    if not (IS_LINUX and _is_populated(mapping, size)):
        for offset in range(0, size, mmap.PAGESIZE):
            mapping[offset] = mapping[offset]


def _is_populated(mapping: mmap.mmap, size: int) -> bool:
    """Populate a mapping in pieces, because the call keeps the GIL; False where it is missing.

    Another failure is no reason to touch the pages: where the kernel finds no page, that would be a
    SIGBUS.
    """
    try:
        for offset in range(0, size, len(_ZEROS)):
            mapping.madvise(_MADV_POPULATE_WRITE, offset, min(len(_ZEROS), size - offset))
    except OSError as error:
        return error.errno != errno.EINVAL
    return True
