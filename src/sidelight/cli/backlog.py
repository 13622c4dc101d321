"""What lies in a spool directory: whose it is, and what the sinks have not taken yet."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from sidelight.cli.findings import Finding
from sidelight.cli.output import ago, duration, plural, size
from sidelight.exceptions import SpoolError
from sidelight.record import decode, occurred_at
from sidelight.segment import PAGE, Scanner, Segment
from sidelight.spool import filesystem, prepare_directory, segments_in
from sidelight.times import from_ns

_PATIENCE: Final = 5_000_000_000
"""Nanoseconds that a record may wait for a relay that works."""
_BATCH: Final = 2000
_LITTLE_ROOM: Final = 64 * 1024 * 1024  # bytes: two of the largest segments
_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})


@dataclass(slots=True)
class Behind:
    """What a sink has not taken of some segments."""

    records: int = 0
    bytes: int = 0
    oldest_ns: int | None = None

    def add(self, other: Behind) -> None:
        """Take another segment's into account."""
        self.records += other.records
        self.bytes += other.bytes
        times = [ns for ns in (self.oldest_ns, other.oldest_ns) if ns is not None]
        self.oldest_ns = min(times, default=None)

    def __str__(self) -> str:
        told = f"{plural(self.records, 'record')} ({size(self.bytes)})"
        return told if self.oldest_ns is None else f"{told}, the oldest {duration(self.age_ns)} old"

    @property
    def age_ns(self) -> int:
        """Since when the oldest has been waiting; 0 where that cannot be read."""
        return 0 if self.oldest_ns is None else max(0, time.time_ns() - self.oldest_ns)


@dataclass(slots=True)
class Found:
    """One segment as it was found.

    Attributes:
        owned: whether the process that writes it, or a relay that reads it, lives.
        meta: what its header says of the process that wrote it.
        behind: what each sink that its writer had has not taken, where that is anything.
        damaged: bytes that are no records.
    """

    path: Path
    owned: bool
    meta: dict[str, Any]
    behind: dict[str, Behind] = field(default_factory=dict)
    damaged: int = 0

    @property
    def sinks(self) -> Sequence[str]:
        """The sinks that the writer had."""
        return [*self.meta.get("sinks", ("store",))]

    @property
    def writer(self) -> str:
        """The process that wrote it, in words."""
        resource = self.meta.get("resource")
        service = resource.get("service.name", "") if isinstance(resource, dict) else ""
        known = service and not str(service).startswith("unknown_service")
        return f"{service if known else 'process'} {self.meta.get('pid', '(unknown)')}"


def look_at(directory: Path) -> list[Found]:
    """Look at every segment of a spool directory, changing nothing and taking nobody's lock."""
    found = []
    for path in segments_in(directory):
        with contextlib.suppress(FileNotFoundError):  # delivered and deleted meanwhile
            found.append(_look_at(path))
    return found


def writers_of(directory: Path) -> list[dict[str, Any]]:
    """What the headers of a spool directory's segments say of who wrote them."""
    headers = []
    for path in segments_in(directory):
        with contextlib.suppress(OSError), contextlib.closing(Segment.look(path)) as segment:
            headers.append(segment.meta)
    return headers


def _look_at(path: Path) -> Found:
    with contextlib.closing(Segment.look(path)) as segment:
        owned = _is_locked(segment.fd)
        segment.sealed = not owned
        found = Found(path, owned, segment.meta)
        for sink in found.sinks:
            behind, damaged = _behind(segment, sink)
            found.damaged = max(found.damaged, damaged)
            if behind.records:
                found.behind[sink] = behind
        return found


def _is_locked(fd: int) -> bool:
    """Whether somebody holds the segment.

    It takes a shared lock for a moment; a relay that wants to adopt it just then comes back later.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def _behind(segment: Segment, sink: str) -> tuple[Behind, int]:
    scanner = Scanner(segment, segment.cursors.get(sink, PAGE))
    behind, damaged = Behind(), 0
    while (batch := scanner.batch(_BATCH)).payloads:
        behind.bytes += sum(map(len, batch.payloads))
        behind.records += len(batch.payloads)
        damaged += sum(len(stretch) for _, stretch in batch.damaged)
        if behind.oldest_ns is None:
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
                behind.oldest_ns = occurred_at(decode(batch.payloads[0])[1])
    return behind, damaged


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
            left[sink, segment.owned, segment.writer].add(behind)
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
