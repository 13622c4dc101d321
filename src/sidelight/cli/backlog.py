"""What the doctor says of the spool: its place, what waits in it, what was set aside."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from sidelight.cli.findings import Finding
from sidelight.cli.output import ago, plural, size
from sidelight.cli.segments import Behind, Found, look_at
from sidelight.exceptions import SpoolError
from sidelight.spool import filesystem, prepare_directory
from sidelight.times import from_ns

_PATIENCE: Final = 5_000_000_000
"""Nanoseconds that a record may wait for a relay that works."""
_LITTLE_ROOM: Final = 64 * 1024 * 1024  # bytes: two of the largest segments
_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})


def check_spool(directory: Path) -> Iterator[Finding]:
    """Is there a place for the records, and do they leave it?"""
    if not directory.is_dir():
        yield _check_missing(directory)
        return
    try:
        prepare_directory(directory)
    except SpoolError as error:
        yield Finding(
            "spool",
            "wrong",
            f"{directory}: {error.facts['problem']}: what is emitted is kept in memory, and dies "
            "with its process",
            f"{error.facts['remedy']}",
        )
        return
    try:
        segments = look_at(directory)
    except PermissionError as error:
        yield Finding("spool", "wrong", f"cannot read {error.filename}", "ask its owner")
        return
    yield from _check_place(directory, segments)
    yield from _check_backlog(segments)
    yield from _check_quarantine(directory / "quarantine")


def _check_missing(directory: Path) -> Finding:
    if os.path.lexists(directory):
        return Finding(
            "spool", "wrong", f"{directory} is not a directory", "move it, or set SIDELIGHT_SPOOL"
        )
    parent = next(parent for parent in directory.parents if parent.exists())
    if not os.access(parent, os.W_OK | os.X_OK):
        return Finding(
            "spool",
            "wrong",
            f"{directory} is not there, and {parent} is not writable",
            "set SIDELIGHT_SPOOL to a directory that your program may write",
        )
    return Finding("spool", "ok", f"{directory} is not there yet: nothing waits in it")


def _check_place(directory: Path, segments: Sequence[Found]) -> Iterator[Finding]:
    kind = filesystem(directory)
    held = 0
    for each in segments:
        with contextlib.suppress(FileNotFoundError):
            held += each.path.stat().st_size
    writers = {each.meta.get("instance", str(each.path)) for each in segments if each.owned}
    where = f"{directory} on {kind}" if kind else str(directory)
    holds = f"{plural(len(segments), 'segment')}, {size(held)}" if segments else "empty"
    running = f", of {plural(len(writers), 'running process', 'running processes')}"
    yield Finding("spool", "ok", f"{where}: {holds}{running if writers else ''}")
    if kind in _IN_MEMORY:
        yield Finding(
            "spool",
            "note",
            f"{directory} lies in memory ({kind}): it outlives the process, not the machine",
            "set SIDELIGHT_SPOOL to a directory on a disk, if it must",
        )
    free = shutil.disk_usage(directory).free
    if free < _LITTLE_ROOM:
        yield Finding(
            "spool",
            "wrong",
            f"only {size(free)} are free on the disk of {directory}: soon nothing can be recorded",
            "make room there, or set SIDELIGHT_SPOOL",
        )


def _check_backlog(segments: Sequence[Found]) -> Iterator[Finding]:
    """What the dead have left waits for somebody; that of the living may only wait for a moment."""
    left: dict[tuple[str, bool, str], Behind] = defaultdict(Behind)
    for segment in segments:
        for sink, behind in segment.behind.items():
            if behind.records:
                left[sink, segment.owned or segment.alive, segment.writer].add(behind)
    well = True
    for (sink, owned, writer), behind in sorted(left.items(), key=lambda item: item[0]):
        if not owned:
            problem = f"of {writer}, which has ended"
            remedy = (
                f"`sidelight relay --once{'' if sink == 'store' else ' --otlp URL'}` delivers them"
            )
        elif behind.age_ns > _PATIENCE:
            problem = f"of {writer}, which is running: no relay brings them to the {sink}"
            remedy = _REMEDIES.get(sink, "")
        else:
            continue
        well = False
        yield Finding("backlog", "wrong", f"{sink}: {behind}, {problem}", remedy)
    if well:
        yield Finding("backlog", "ok", "every sink has what there is" if not left else "on its way")
    damaged = sum(segment.damaged for segment in segments if not segment.owned)
    if damaged:
        yield Finding(
            "spool",
            "wrong",
            f"{size(damaged)} of the segments are no records any more",
            "`sidelight relay --once` sets them aside and delivers what is around them",
        )


_REMEDIES: Final = {
    "store": 'see above for the store; with relay="external" start `sidelight relay`',
    "traces": "see below for otlp",
    "logs": "see below for otlp",
}


def _check_quarantine(directory: Path) -> Iterator[Finding]:
    if not directory.is_dir():
        return
    files = [path.stat() for path in directory.iterdir()]
    if files:
        latest = from_ns(max(each.st_mtime_ns for each in files))
        yield Finding(
            "quarantine",
            "wrong",
            f"{plural(len(files), 'record')} that could not be read, or that a sink refused, "
            f"{'lies' if len(files) == 1 else 'lie'} in {directory}, the latest {ago(latest)}",
            "look at them (msgpack), then delete the files",
        )
