"""Read a spool directory from outside: the writers of its segments, and each sink's backlog."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from sidelight.cli.output import with_progress
from sidelight.cli.spool.writers import is_stopped
from sidelight.exceptions import ConfigurationError, SpoolError
from sidelight.host import is_directory
from sidelight.record import SPAN, decode, is_same_store, is_same_stream, occurred_at
from sidelight.settings import Settings, outbox_name, settle
from sidelight.spool import (
    PAGE,
    Scanner,
    Segment,
    require_file_locks,
    segments_in,
)
from sidelight.store import duration, plural, size

_BATCH: Final = 2000  # records
_CHUNK: Final = 65_536  # bytes


@dataclass(slots=True)
class Backlog:
    """The records that a sink has not taken.

    Attributes:
        events: how many of them are events; others are spans, losses, costs and signs of life.
        spans: how many of them have a span.
        unread: records and stretches among them that cannot be read.
        oldest_ns: when the oldest of them occurred; None where the record cannot be read.
    """

    records: int = 0
    events: int = 0
    bytes: int = 0
    oldest_ns: int | None = None
    spans: int = 0
    unread: int = 0

    def add(self, other: Backlog) -> None:
        """Add the backlog of another segment."""
        self.records += other.records
        self.events += other.events
        self.spans += other.spans
        self.unread += other.unread
        self.bytes += other.bytes
        times = [ns for ns in (self.oldest_ns, other.oldest_ns) if ns is not None]
        self.oldest_ns = min(times, default=None)

    def __str__(self) -> str:
        text = f"{plural(self.records, 'record')} ({size(self.bytes)})"
        if self.events < self.records:
            text += f", {plural(self.events, 'event') if self.events else 'no event'} among them"
        if self.unread:
            text += f", {self.unread} unreadable"
        return text if self.oldest_ns is None else f"{text}, the oldest {duration(self.age_ns)} old"

    def is_wanted(self, sink: str) -> bool:
        """Return whether an event, or for "traces" a span, may be among the records.

        Else only notes wait, such as that of a process's end.
        """
        return bool((self.spans if sink == "traces" else self.events) or self.unread)

    @property
    def age_ns(self) -> int:
        """How long the oldest record has been waiting; 0 where that is not known."""
        return 0 if self.oldest_ns is None else max(0, time.time_ns() - self.oldest_ns)


@dataclass(slots=True)
class SegmentReport:
    """The state of one segment.

    Attributes:
        size: in bytes.
        end: the offset behind the last written byte.
        meta: what the header says of the writer; empty where the header is damaged.
        written: whether the writer holds the segment's lock.
        attended: whether a relay of another process reads the segment.
        alive: whether the writer lives. A living writer leaves a segment that is full.
        backlog: of each sink that the writer had.
        damaged: bytes that are no records.
        foreign: records that sidelight has not written.
    """

    path: Path
    size: int
    end: int
    meta: dict[str, Any]
    written: bool
    attended: bool
    alive: bool
    backlog: dict[str, Backlog] = field(default_factory=dict)
    damaged: int = 0
    foreign: int = 0

    @property
    def name(self) -> str:
        """The second part of the file's name."""
        return self.path.stem.rpartition("-")[2]

    @property
    def stopped(self) -> bool:
        """Whether the writer is stopped (SIGSTOP, a debugger); False where it is unknown."""
        return self.written and is_stopped(self.path, self.meta)

    @property
    def orphaned(self) -> bool:
        """Whether neither the writer nor a relay holds the segment."""
        return not (self.written or self.attended)

    @property
    def sinks(self) -> Sequence[str]:
        """The sinks that the writer had."""
        return [*self.meta.get("sinks", ("store",))]

    @property
    def resource(self) -> Mapping[str, Any]:
        """The OpenTelemetry resource of the writer; empty where the header is damaged."""
        return _resource_of(self.meta)

    @property
    def service(self) -> str | None:
        """The name of the writer's service; None where it has none."""
        return _service_of(self.meta)

    @property
    def writer(self) -> str:
        """The writing process in words: ``shop 4711``."""
        return writer_of(self.meta)

    @property
    def host(self) -> str | None:
        """The machine or the container of the writer."""
        host = self.resource.get("host.name")
        return None if host is None else str(host)

    @property
    def created_ns(self) -> int | None:
        """When the segment was made, as the file's name says."""
        with contextlib.suppress(ValueError):
            return int(self.path.name.partition("-")[0], 16)
        return None


def writer_of(meta: Mapping[str, Any]) -> str:
    """Name the process that has written a header: ``shop 4711``."""
    name = "relay" if meta.get("role") == "relay" else _service_of(meta) or "process"
    return f"{name} {meta.get('pid', '(unknown)')}"


def _service_of(meta: Mapping[str, Any]) -> str | None:
    name = str(_resource_of(meta).get("service.name", ""))
    return name if name and not name.startswith("unknown_service") else None


def _resource_of(meta: Mapping[str, Any]) -> Mapping[str, Any]:
    resource = meta.get("resource")
    return resource if isinstance(resource, dict) else {}


def require_directory(spool: Path) -> None:
    """Check that a spool directory exists.

    Raises:
        SpoolError: there is none, or none can be on this system.
    """
    require_file_locks(spool)
    if not is_directory(spool):
        raise SpoolError(
            directory=spool,
            problem="there is no such directory",
            remedy="nothing was emitted yet, or name another with --spool or SIDELIGHT_SPOOL",
        )


def require_named(spool: Path | None) -> None:
    """Check that a spool directory exists, if the user named one: it may be misspelt.

    Raises:
        SpoolError: there is none.
    """
    if spool is not None:
        require_directory(spool)


def unreadable(spool: Path, error: OSError) -> SpoolError:
    """Return the error for a spool directory that this user cannot read."""
    return SpoolError(directory=spool, problem=error.strerror, remedy="ask the owner for access")


def read_spool(directory: Path) -> list[SegmentReport]:
    """Read every segment of a spool directory; change nothing, and take no lock."""
    reports = []
    paths = segments_in(directory)
    for path in with_progress(paths, "reading segments", len(paths)):
        with contextlib.suppress(FileNotFoundError):  # delivered and deleted meanwhile
            reports.append(_read_segment(path))
    living = {each.meta.get("instance") for each in reports if each.written} - {None}
    for each in reports:
        each.alive = each.written or each.meta.get("instance") in living
    return reports


def read_again(report: SegmentReport) -> SegmentReport | None:
    """Read the same segment once more; None where it was delivered and deleted."""
    try:
        return _read_segment(report.path)
    except FileNotFoundError:
        return None


def _read_segment(path: Path) -> SegmentReport:
    with contextlib.closing(Segment.inspect(path)) as segment:
        written = segment.has_writer
        segment.sealed = not written
        report = SegmentReport(
            path=path,
            size=segment.size,
            end=end_of(segment),
            meta=segment.meta,
            written=written,
            attended=segment.has_reader,
            alive=written,
        )
        scanned: dict[int, tuple[Backlog, int, int]] = {}
        for sink in report.sinks:
            cursor = segment.cursors.get(sink, PAGE)
            if cursor not in scanned:
                scanned[cursor] = _scan(segment, cursor)
            report.backlog[sink], damaged, foreign = scanned[cursor]
            report.damaged = max(report.damaged, damaged)
            report.foreign = max(report.foreign, foreign)
        return report


def end_of(segment: Segment) -> int:
    """Return the offset behind the last written byte; a segment is allocated in full."""
    end = segment.size
    while end > PAGE:
        begin = max(end - _CHUNK, PAGE)
        if written := segment.read(begin, end - begin).rstrip(b"\0"):
            return begin + len(written)
        end = begin
    return PAGE


def _scan(segment: Segment, cursor: int) -> tuple[Backlog, int, int]:
    """Return the backlog behind a cursor, and how many bytes and records there are unreadable."""
    scanner = Scanner(segment, cursor)
    backlog, damaged, foreign = Backlog(), 0, 0
    while True:
        batch = scanner.batch(_BATCH)
        damaged += sum(len(stretch) for _, stretch in batch.damaged)
        backlog.unread += len(batch.damaged)
        if not batch.payloads:
            return backlog, damaged, foreign
        backlog.bytes += sum(map(len, batch.payloads))
        backlog.records += len(batch.payloads)
        for payload in batch.payloads:
            try:
                static, moment = decode(payload)
            except (msgspec.DecodeError, UnicodeDecodeError):
                foreign += 1
                backlog.unread += 1
                continue
            backlog.spans += bool(moment.flags & SPAN)
            backlog.events += static.type is not None
            if backlog.oldest_ns is None:
                backlog.oldest_ns = occurred_at(moment)


def writers_of(directory: Path, *, living: bool = False) -> list[dict[str, Any]]:
    """Return the headers of the segments of a spool directory.

    Args:
        directory: of the spool.
        living: only of segments whose writer holds the lock.
    """
    headers = []
    for path in segments_in(directory):
        with contextlib.suppress(OSError), contextlib.closing(Segment.inspect(path)) as segment:
            if not living or segment.has_writer:
                headers.append(segment.meta)
    return headers


def outboxes_beside(settings: Settings) -> list[str]:
    """Return the outboxes that the segments of a spool name and the settings do not.

    Their processes leave them to an external relay. Headers name no password.
    """
    known = {*map(outbox_name, settings.outboxes)}
    try:
        headers = writers_of(settings.spool) if is_directory(settings.spool) else []
    except OSError:  # `sidelight doctor` tells it
        return []
    named = dict.fromkeys(url for each in headers for url in each.get("outboxes", ()))
    return [url for url in named if url not in known]


def settings_for(
    spool: Path | None,
    store: str | None,
    otlp: str | None,
    writers: Iterable[Mapping[str, Any]],
    stream: str | None = None,
) -> Settings:
    """Return the settings; the writers name the destinations where the user named only the spool.

    Args:
        spool: directory, as the user named it.
        store: URL, as the user named it.
        otlp: endpoint, as the user named it.
        writers: headers from the spool.
        stream: address, as the user named it.

    Raises:
        ConfigurationError: the headers name no store, or several, or one with a password; or they
            name several streams.
    """
    if store is None and spool is not None:
        headers = [*writers]
        stream = stream or _only_stream(spool, headers)
        stores: list[str] = []
        for named in (str(meta["store"]) for meta in headers if meta.get("store")):
            if not any(is_same_store(named, known) for known in stores):
                stores.append(named)
        if stream is not None and not stores:
            return settle(stream=stream, spool=spool, otlp=otlp)
        problem = f"no record in {spool} names a store"
        if len(stores) == 1:
            (store,) = stores
            problem = f"{store} needs its password"
        elif stores:
            problem = f"{spool} holds records for {' and '.join(sorted(stores))}"
        if store is None or "***" in store:
            raise ConfigurationError(
                setting="store", problem=problem, remedy="name it with --store or SIDELIGHT_STORE"
            )
    return settle(store, stream=stream, spool=spool, otlp=otlp)


def _only_stream(spool: Path, headers: Iterable[Mapping[str, Any]]) -> str | None:
    streams: list[str] = []
    for named in (str(meta["stream"]) for meta in headers if meta.get("stream")):
        if not any(is_same_stream(named, known) for known in streams):
            streams.append(named)
    if len(streams) > 1:
        raise ConfigurationError(
            setting="stream",
            problem=f"{spool} holds records for {' and '.join(sorted(streams))}",
            remedy="name it with --stream or SIDELIGHT_STREAM",
        )
    return streams[0] if streams else None
