"""Check the spool directory: can records that are emitted now be kept there?"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sidelight.cli.doctor.findings import Finding
from sidelight.exceptions import SpoolError
from sidelight.host import HAS_FILE_LOCKS, IN_MEMORY, is_directory
from sidelight.spool import SMALLEST, filesystem, prepare_directory
from sidelight.store import size

_LITTLE: Final = 64 * 1024 * 1024  # bytes: two of the largest segments
_WITHOUT_FILES: Final = frozenset(
    {"proc", "sysfs", "cgroup", "cgroup2", "devpts", "debugfs", "securityfs", "tracefs"}
)
_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})


def check_ready(directory: Path) -> Finding:
    """Return whether a process on this machine can keep its records; quick, for probes.

    Only faults of this machine or pod count: a store that is down is down for the others too.
    """
    if not HAS_FILE_LOCKS:
        return Finding("spool", "note", IN_MEMORY)
    problem = _unusable(directory) or _full(_existing(directory))
    return problem or Finding("spool", "ok", f"ready: {directory} takes records")


def check_directory(directory: Path) -> Iterator[Finding]:
    """Check that the directory can be written, and that its disk has room."""
    problem = _unusable(directory) or _full(_existing(directory))
    if problem is not None:
        yield problem
        return
    if not is_directory(directory):
        yield Finding("spool", "ok", f"{directory} does not exist yet: no records wait")
    elif directory.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield Finding(
            "spool",
            "wrong",
            f"{directory} can be written by other users: they can delete or replace records",
            f"chmod 700 {directory}",
        )
    kind = filesystem(_existing(directory))
    if kind in _IN_MEMORY:
        yield Finding(
            "spool",
            "note",
            f"{directory} lies in memory ({kind}): it outlives the process, not the machine",
            "set SIDELIGHT_SPOOL to a directory on a disk, if records must survive a power cut",
        )
    yield from check_disk(_existing(directory), "soon no record can be kept")


def check_disk(place: Path, threat: str) -> Iterator[Finding]:
    """Check that a disk has room left; ``threat`` names what a full disk would do."""
    free = _free(place)
    if free < _LITTLE:
        yield Finding(
            "disk",
            "wrong",
            f"only {size(free)} are free on the disk of {place}: {threat}",
            "make room there",
        )


def _unusable(directory: Path) -> Finding | None:
    """Return why the directory cannot be used or made."""
    if not is_directory(directory):
        if os.path.lexists(directory):
            return _wrong(f"{directory} is not a directory", "move it, or set SIDELIGHT_SPOOL")
        parent = _existing(directory)
        if os.access(parent, os.W_OK | os.X_OK):
            return None
        return _wrong(
            f"{directory} does not exist, and {parent} is {_why_not(parent)}",
            "set SIDELIGHT_SPOOL to a directory that your program may write",
        )
    try:
        prepare_directory(directory)
    except SpoolError as error:
        problem = error.facts["problem"]
        if not os.access(directory, os.W_OK | os.X_OK):
            problem = f"it is {_why_not(directory)}"
        return _wrong(f"{directory}: {problem}", f"{error.facts['remedy']}")
    return None


def _why_not(place: Path) -> str:
    read_only = os.statvfs(place).f_flag & os.ST_RDONLY
    return "on a read-only filesystem" if read_only else "not writable"


def _full(place: Path) -> Finding | None:
    """Return why the next segment finds no room."""
    if (kind := filesystem(place)) in _WITHOUT_FILES:
        return _wrong(
            f"{place} lies on {kind}, which keeps no files",
            "set SIDELIGHT_SPOOL to a directory on a disk",
        )
    status = os.statvfs(place)
    problem = ""
    if _free(place) < SMALLEST:
        problem = f"only {size(_free(place))} are free"
    elif status.f_files and not status.f_favail:
        problem = "no file can be made (no inodes are left)"
    if not problem:
        return None
    return _wrong(f"the disk of {place} is full: {problem}", "make room there")


def _wrong(problem: str, remedy: str) -> Finding:
    return Finding(
        "spool",
        "wrong",
        f"{problem}: records are kept in memory, and die with their process",
        remedy,
    )


def _existing(directory: Path) -> Path:
    """Return the directory, or its nearest parent that exists."""
    return next(place for place in (directory, *directory.parents) if is_directory(place))


def _free(place: Path) -> int:
    return shutil.disk_usage(place).free
