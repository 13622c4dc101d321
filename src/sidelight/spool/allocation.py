"""A new file of the spool: it gets its name when it is whole and locked, or never."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from sidelight.record import random_bits
from sidelight.spool.disk import Disk

SUFFIX: Final = ".segment"
UNFINISHED: Final = ".new"
NAME: Final = re.compile(r"[0-9a-f]{16}-[0-9a-f]{8}\.segment")
"""Of a file that was made here."""
WRITERS_BYTE: Final = 1
"""Locked by whoever has made the file, for those who only ask."""
ZEROS: Final = bytes(256 * 1024)
"""What is written at a time."""
_MADV_POPULATE_WRITE: Final = 23  # Linux; the mmap module has no name for it yet


@contextlib.contextmanager
def new_file(
    directory: Path, size: int, pieces: Iterable[bytes], disk: Disk
) -> Iterator[tuple[int, Path]]:
    """A new file, filled and locked; it gets its name when the block has ended well.

    Raises:
        OSError: there is no room, or no right to write; then there is no file.
    """
    fd, name = _locked_file(directory, disk)
    temporary, path = directory / f".{name}{UNFINISHED}", directory / f"{name}{SUFFIX}"
    try:
        disk.lock_byte(fd, WRITERS_BYTE)
        disk.allocate(fd, size)
        offset = 0
        for piece in pieces:
            write_whole(disk, fd, piece, offset)
            offset += len(piece)
        yield fd, path
        disk.rename(temporary, path)
    except BaseException:
        disk.close(fd)
        with contextlib.suppress(OSError):  # whoever adopts removes it
            disk.unlink(temporary)
        raise


def _locked_file(directory: Path, disk: Disk) -> tuple[int, str]:
    """Make a file with a temporary name, and lock it: its descriptor, and its name to be.

    Between the two another process may take it for what a dead one has left, and delete it.
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


def write_whole(disk: Disk, fd: int, data: bytes, offset: int) -> None:
    """Write all of it.

    Raises:
        OSError: not all of it is written.
    """
    while written := disk.write(fd, data, offset):
        data, offset = data[written:], offset + written
        if not data:
            return
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def map_pages(mapping: mmap.mmap, size: int) -> None:
    """Take the page faults now: else the caller takes one for each page, some of 10 µs.

    In pieces, because the call keeps the GIL. Kernels before 5.14 do not have it.
    """
    with contextlib.suppress(OSError, ValueError):
        for offset in range(0, size, len(ZEROS)):
            mapping.madvise(_MADV_POPULATE_WRITE, offset, min(len(ZEROS), size - offset))
