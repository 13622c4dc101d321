"""The spool's directory: whether it is usable, and which segments lie in it."""

from __future__ import annotations

import contextlib
import functools
import heapq
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from sidelight.exceptions import SpoolError
from sidelight.host import HAS_FILE_LOCKS, IN_MEMORY, allocate_lock, log_warning
from sidelight.spool.allocation import SUFFIX, UNFINISHED
from sidelight.spool.disk import DISK, Disk
from sidelight.spool.failures import os_error_text
from sidelight.spool.filesystems import filesystem, is_remote
from sidelight.spool.hot import linked_from

_warned: Final[set[Path]] = set()


def segments_in(directory: Path, disk: Disk = DISK) -> list[Path]:
    """List the segments of a spool directory, the oldest first.

    A hot segment stands for its copy.

    Raises:
        OSError: the directory cannot be read.
    """
    names = _names(directory, disk)
    paths = {name: directory / name for name in names if name.endswith(SUFFIX)}
    for hot in linked_from(directory, names, disk):
        paths |= {name: hot / name for name in _names(hot, disk) if name.endswith(SUFFIX)}
    return [paths[name] for name in sorted(paths)]


def bytes_in(
    directory: Path, disk: Disk = DISK, newest: int | None = None, suffix: str = SUFFIX
) -> int:
    """Add up the sizes of the segments in a directory, or of its ``newest`` ones only.

    With `UNFINISHED` as the ``suffix``, of the files that processes are just allocating.

    Raises:
        OSError: the directory cannot be read.
    """
    names, total = [each for each in _names(directory, disk) if each.endswith(suffix)], 0
    if newest is not None:
        names = heapq.nlargest(newest, names)
    for name in names:
        try:
            total += disk.size_of(f"{directory}/{name}")
        except FileNotFoundError:  # delivered and deleted meanwhile
            continue
    return total


def _names(directory: Path, disk: Disk) -> list[str]:
    try:
        return disk.names(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


def remove_unfinished(directory: Path, disk: Disk = DISK) -> None:
    """Delete files that a dead process was allocating, hot ones as well.

    Raises:
        OSError: a file cannot be deleted.
    """
    names = disk.names(directory)
    _remove_unfinished(directory, names, disk)
    for hot in linked_from(directory, names, disk):
        _remove_unfinished(hot, _names(hot, disk), disk)


def _remove_unfinished(directory: Path, names: Iterable[str], disk: Disk) -> None:
    for name in names:
        if not (name.startswith(".") and name.endswith(UNFINISHED)):
            continue
        with contextlib.suppress(FileNotFoundError):
            fd = disk.open(directory / name, writable=True)
            try:
                if disk.lock(fd):
                    disk.unlink(directory / name)
            finally:
                disk.close(fd)


def require_file_locks(directory: Path) -> None:
    """Check that this system can keep a spool in files.

    Raises:
        SpoolError: it cannot.
    """
    if not HAS_FILE_LOCKS:
        raise SpoolError(
            directory=directory, problem=IN_MEMORY, remedy="each process delivers its own records"
        )


def prepare_directory(directory: Path, disk: Disk = DISK) -> None:
    """Make the spool's directory, with access for its owner only.

    Raises:
        SpoolError: the directory cannot be made or written, or lies on a network filesystem, where
            memory mappings and locks are unreliable; or the system can keep no spool in files.
    """
    require_file_locks(directory)
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


def usable_directory(directory: Path, count: Callable[[str, str], object]) -> Path | None:
    """Prepare the spool's directory; return None where it can never be used.

    A directory that cannot be used yet (a full or read-only disk) is returned all the same: the
    spool begins in memory and moves to the disk later.

    Args:
        directory: where the spool is to lie.
        count: counts a spool that must stay in memory as a loss reason.
    """
    if not HAS_FILE_LOCKS:
        _warn_of_memory()
        return None
    try:
        prepare_directory(directory)
        _warn_of_other_writers(directory)
    except OSError as error:
        log_warning("sidelight keeps its spool in memory, until the process ends: %s", error)
        if is_remote(directory):
            count(f"kept in memory: {os_error_text(error)}", str(error))
            return None
    return directory


@functools.cache
def _warn_of_memory() -> None:
    log_warning("sidelight: %s; call sidelight.flush() before the process ends", IN_MEMORY)


def _warn_of_other_writers(directory: Path) -> None:
    """Warn once of a directory in which other users can delete or replace records."""
    if directory.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH) and directory not in _warned:
        _warned.add(directory)
        log_warning(
            "sidelight: other users can delete or replace records in the spool: chmod 700 %s, or"
            " set SIDELIGHT_SPOOL to a directory of your own",
            directory,
        )


class NameSync:
    """Makes new names in the spool's directory survive a power loss.

    Attributes:
        is_due: whether a file was created or renamed since the last `sync`.
    """

    def __init__(self, directory: Path | None, disk: Disk) -> None:
        self.is_due = True
        self._directory = directory
        self._disk = disk
        self._are_parents_synced = False
        self._syncing = allocate_lock()

    def directory_was_recreated(self) -> None:
        """Sync the parent directories again as well at the next `sync`."""
        self.is_due, self._are_parents_synced = True, False

    def sync(self) -> None:
        """Sync the directory, and the first time also its parents.

        Raises:
            OSError: the names might not survive.
        """
        with self._syncing:  # a second caller must wait until the sync has ended
            if self._directory is None or not self.is_due:
                return
            self.is_due = False  # first: a name that comes meanwhile needs the next sync
            try:
                self._disk.sync_directory(self._directory)
            except OSError:
                self.is_due = True
                raise
            if not self._are_parents_synced:
                for parent in self._directory.parents:
                    with contextlib.suppress(OSError):  # not readable, hence not made by us
                        self._disk.sync_directory(parent)
                self._are_parents_synced = True
