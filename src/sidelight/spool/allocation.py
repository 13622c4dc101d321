"""Allocation of a segment's file: a file gets its name when it is complete and locked, or never."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from sidelight.record import random_bits
from sidelight.spool.disk import Disk
from sidelight.spool.header import WRITER_BYTE

SUFFIX: Final = ".segment"
UNFINISHED: Final = ".new"
NAME: Final = re.compile(r"[0-9a-f]{16}-[0-9a-f]{8}\.segment")
"""Matches the names that this module gives."""
ZEROS: Final = bytes(256 * 1024)
"""The piece of a file that is written or mapped at once."""


@contextlib.contextmanager
def new_file(
    directory: Path, size: int, pieces: Iterable[bytes], disk: Disk, *, name: str = ""
) -> Iterator[tuple[int, Path]]:
    """Allocate, fill and lock a new file; name it when the block has ended without an error.

    A file that has the ``name`` already loses it.

    Yields:
        The descriptor, and the path that the file will have.

    Raises:
        OSError: there is no room, or no right to write. Then there is no file.
    """
    fd, own_name = _create_locked(directory, disk)
    temporary, path = directory / f".{own_name}{UNFINISHED}", directory / f"{own_name}{SUFFIX}"
    path = directory / name if name else path
    try:
        disk.lock_byte(fd, WRITER_BYTE)
        disk.allocate(fd, size)
        offset = 0
        for piece in pieces:
            write_all(disk, fd, piece, offset)
            offset += len(piece)
        yield fd, path
        disk.rename(temporary, path)
    except BaseException:
        disk.close(fd)
        with contextlib.suppress(OSError):  # the next adoption removes it
            disk.unlink(temporary)
        raise


def _create_locked(directory: Path, disk: Disk) -> tuple[int, str]:
    """Create a file with a temporary name and lock it; return its descriptor and later name.

    Try again where another process has deleted the file before the lock was taken, because that
    process took it for the unfinished file of a dead one.
    """
    while True:
        name = f"{time.time_ns():016x}-{random_bits(32):08x}"
        temporary = directory / f".{name}{UNFINISHED}"
        fd = disk.create(temporary)
        try:
            if disk.lock(fd) and disk.is_linked(fd):
                return fd, name
        except BaseException:
            disk.close(fd)
            disk.unlink(temporary)
            raise
        disk.close(fd)


def write_all(disk: Disk, fd: int, data: bytes, offset: int) -> None:
    """Write all of ``data``, in as many calls as the system needs.

    Raises:
        OSError: the disk did not take all of it.
    """
    while written := disk.write(fd, data, offset):
        data, offset = data[written:], offset + written
        if not data:
            return
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
