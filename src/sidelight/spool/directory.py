"""The spool's directory: whether it will do, and what lies in it."""

from __future__ import annotations

import contextlib
import heapq
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sidelight.exceptions import SpoolError
from sidelight.host import allocate_lock
from sidelight.spool.allocation import SUFFIX, UNFINISHED
from sidelight.spool.disk import DISK, Disk
from sidelight.spool.failures import why

_logger: Final = logging.getLogger("sidelight")

_NETWORK_FILESYSTEMS: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "ceph", "glusterfs", "afs"}
)


def segments_in(directory: Path, disk: Disk = DISK) -> list[Path]:
    """The segments of a spool directory, oldest first.

    Raises:
        OSError: it cannot be read.
    """
    return [directory / name for name in sorted(_names(directory, disk))]


def bytes_in(directory: Path, disk: Disk = DISK, newest: int | None = None) -> int:
    """What the segments of a spool directory come to; or so many of the newest, for the hurried.

    Raises:
        OSError: it cannot be read.
    """
    names, total = _names(directory, disk), 0
    if newest is not None:
        names = heapq.nlargest(newest, names)
    for name in names:  # there may be thousands
        try:
            total += disk.size_of(f"{directory}/{name}")
        except FileNotFoundError:  # delivered and deleted meanwhile
            continue
    return total


def _names(directory: Path, disk: Disk) -> list[str]:
    try:
        return [name for name in disk.names(directory) if name.endswith(SUFFIX)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def remove_unfinished(directory: Path, disk: Disk = DISK) -> None:
    """Delete what died before it got its name.

    Raises:
        OSError: it cannot be.
    """
    for name in disk.names(directory):
        if not (name.startswith(".") and name.endswith(UNFINISHED)):
            continue
        with contextlib.suppress(FileNotFoundError):
            fd = disk.open(directory / name, writable=True)
            try:
                if disk.lock(fd):
                    disk.unlink(directory / name)
            finally:
                disk.close(fd)


def prepare_directory(directory: Path, disk: Disk = DISK) -> None:
    """Make the spool's directory, for its owner alone.

    Raises:
        SpoolError: it cannot be made or written, or lies on a network filesystem, where neither
            memory mappings nor locks can be trusted.
    """
    try:
        disk.make_directory(directory)
    except OSError as error:
        raise SpoolError(
            directory=directory, problem=error.strerror, remedy="set SIDELIGHT_SPOOL"
        ) from error
    if not disk.is_writable(directory):
        raise SpoolError(
            directory=directory, problem="it is not writable", remedy="set SIDELIGHT_SPOOL"
        )
    if is_remote(directory):
        raise SpoolError(
            directory=directory,
            problem=f"it lies on a network filesystem ({filesystem(directory)})",
            remedy="set SIDELIGHT_SPOOL to a directory on a local disk",
        )


def usable(directory: Path, count: Callable[[str, str], object]) -> Path | None:
    """The spool's directory, also where it cannot be used yet; None where it never can be.

    ``count`` is told of what must stay in memory for that.
    """
    try:
        prepare_directory(directory)
    except OSError as error:
        _logger.warning("sidelight's spool is in memory, and dies with the process: %s", error)
        if is_remote(directory):
            count(f"kept in memory: {why(error)}", str(error))
            return None
    return directory


def is_remote(directory: Path) -> bool:
    """Whether a directory lies on a network filesystem, or would, were it there."""
    return filesystem(directory) in _NETWORK_FILESYSTEMS


def filesystem(directory: Path) -> str:
    """The type of the filesystem that holds ``directory``; "" where the system does not tell."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
        resolved = directory.resolve()
    except (OSError, RuntimeError):  # a loop of links is either, as Python's version has it
        return ""
    best, kind = -1, ""
    for line in mounts.splitlines():
        _, mount, filesystem_type, *_ = line.split(" ")
        point = Path(mount.replace("\\040", " "))
        if resolved.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), filesystem_type
    return kind


class Names:
    """Makes what was created or renamed in a directory survive a power loss, by that name.

    Attributes:
        new: whether something was named since `sync` looked.
    """

    def __init__(self, directory: Path | None, disk: Disk) -> None:
        self.new = True
        self._directory = directory
        self._disk = disk
        self._rooted = False
        self._syncing = allocate_lock()

    def uproot(self) -> None:
        """The directory was made anew: those above it must be synced with it once more."""
        self.new, self._rooted = True, False

    def sync(self) -> None:
        """Make them survive; the first time also the names that lead to the directory.

        Raises:
            OSError: they would not.
        """
        with self._syncing:  # nobody is to think that it is done while another does it
            if self._directory is None or not self.new:
                return
            self.new = False  # first: what is named meanwhile is for the next time
            try:
                self._disk.sync_directory(self._directory)
            except OSError:
                self.new = True
                raise
            if not self._rooted:
                for parent in self._directory.parents:
                    with contextlib.suppress(OSError):  # not ours to read, hence not ours to make
                        self._disk.sync_directory(parent)
                self._rooted = True
