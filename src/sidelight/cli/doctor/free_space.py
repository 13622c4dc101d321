"""What the doctor says of the spool's place: can what is emitted now be kept there?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sidelight.cli.doctor.findings import Finding
from sidelight.cli.output import size
from sidelight.exceptions import SpoolError
from sidelight.spool import SMALLEST, filesystem, prepare_directory

_LITTLE: Final = 64 * 1024 * 1024  # bytes: two of the largest segments
_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})


def check_ready(directory: Path) -> Finding:
    """Whether a process here can keep what it emits; asked often, hence quick.

    Only what another machine or pod would not have as well counts: a store that is down does not.
    """
    problem = _unusable(directory) or _full(_existing(directory))
    return problem or Finding("spool", "ok", f"ready: {directory} takes what is emitted")


def check_place(directory: Path) -> Iterator[Finding]:
    """Can the spool's directory be written, and is there room on its disk?"""
    problem = _unusable(directory) or _full(_existing(directory))
    if problem is not None:
        yield problem
        return
    if not directory.is_dir():
        yield Finding("spool", "ok", f"{directory} is not there yet: nothing waits in it")
    kind = filesystem(_existing(directory))
    if kind in _IN_MEMORY:
        yield Finding(
            "spool",
            "note",
            f"{directory} lies in memory ({kind}): it outlives the process, not the machine",
            "set SIDELIGHT_SPOOL to a directory on a disk, if it must",
        )
    yield from check_disk(_existing(directory), "soon nothing can be recorded")


def check_disk(place: Path, threat: str) -> Iterator[Finding]:
    """Is there little room left on a disk?"""
    free = _free(place)
    if free < _LITTLE:
        yield Finding(
            "disk",
            "wrong",
            f"only {size(free)} are free on the disk of {place}: {threat}",
            "make room there",
        )


def _unusable(directory: Path) -> Finding | None:
    """Why the directory cannot be used; None where it can, or can be made."""
    if not directory.is_dir():
        if os.path.lexists(directory):
            return _wrong(f"{directory} is not a directory", "move it, or set SIDELIGHT_SPOOL")
        parent = _existing(directory)
        if os.access(parent, os.W_OK | os.X_OK):
            return None
        return _wrong(
            f"{directory} is not there, and {parent} is {_why_not(parent)}",
            "set SIDELIGHT_SPOOL to a directory that your program may write",
        )
    try:
        prepare_directory(directory)
    except SpoolError as error:
        problem = error.facts["problem"]
        if problem == "it is not writable":
            problem = f"it is {_why_not(directory)}"
        return _wrong(f"{directory}: {problem}", f"{error.facts['remedy']}")
    return None


def _why_not(place: Path) -> str:
    read_only = os.statvfs(place).f_flag & os.ST_RDONLY
    return "on a read-only filesystem" if read_only else "not writable"


def _full(place: Path) -> Finding | None:
    """Whether the next segment would find no room."""
    stat = os.statvfs(place)
    problem = ""
    if _free(place) < SMALLEST:
        problem = f"only {size(_free(place))} are free"
    elif stat.f_files and not stat.f_favail:
        problem = "no file can be made (no inodes are left)"
    if not problem:
        return None
    return _wrong(f"the disk of {place} is full: {problem}", "make room there")


def _wrong(problem: str, remedy: str) -> Finding:
    return Finding(
        "spool",
        "wrong",
        f"{problem}: what is emitted is kept in memory, and dies with its process",
        remedy,
    )


def _existing(directory: Path) -> Path:
    """The directory, or the first above it that is there."""
    return next(place for place in (directory, *directory.parents) if place.is_dir())


def _free(place: Path) -> int:
    stat = os.statvfs(place)
    return stat.f_bavail * stat.f_frsize
