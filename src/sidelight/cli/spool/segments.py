"""What lies in a spool directory: whose it is, and what the sinks have not taken yet."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from sidelight.cli.output import duration, plural, size, slowly
from sidelight.exceptions import ConfigurationError
from sidelight.record import decode, occurred_at
from sidelight.settings import Settings, settle
from sidelight.spool import PAGE, Scanner, Segment, segments_in

_BATCH: Final = 2000


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
        size: its bytes.
        end: the offset behind the last thing that was written.
        meta: what its header says of the process that wrote it.
        written: whether that process holds it.
        attended: whether a relay of another process reads it.
        alive: whether its writer lives; it may have let go of this segment, which is full.
        behind: what each sink that its writer had has not taken.
        damaged: bytes that are no records.
    """

    path: Path
    size: int
    end: int
    meta: dict[str, Any]
    written: bool
    attended: bool
    alive: bool
    behind: dict[str, Behind] = field(default_factory=dict)
    damaged: int = 0

    @property
    def owned(self) -> bool:
        """Whether somebody has it: the process that writes it, or a relay that delivers it."""
        return self.written or self.attended

    @property
    def sinks(self) -> Sequence[str]:
        """The sinks that the writer had."""
        return [*self.meta.get("sinks", ("store",))]

    @property
    def resource(self) -> Mapping[str, Any]:
        """What OpenTelemetry calls the writer; empty where the header is damaged."""
        resource = self.meta.get("resource")
        return resource if isinstance(resource, dict) else {}

    @property
    def service(self) -> str | None:
        """The writer's service; None where nobody has named one."""
        name = str(self.resource.get("service.name", ""))
        return name if name and not name.startswith("unknown_service") else None

    @property
    def writer(self) -> str:
        """The process that wrote it, in words."""
        name = "relay" if self.meta.get("role") == "relay" else self.service or "process"
        return f"{name} {self.meta.get('pid', '(unknown)')}"

    @property
    def host(self) -> str | None:
        """The machine, or the container, that the writer runs in."""
        host = self.resource.get("host.name")
        return None if host is None else str(host)

    @property
    def created_ns(self) -> int | None:
        """When it was made, as its name says."""
        with contextlib.suppress(ValueError):
            return int(self.path.name.partition("-")[0], 16)
        return None


def look_at(directory: Path) -> list[Found]:
    """Look at every segment of a spool directory, changing nothing and taking nobody's lock."""
    found = []
    for path in slowly([*segments_in(directory)], "looking at segments"):
        with contextlib.suppress(FileNotFoundError):  # delivered and deleted meanwhile
            found.append(_look_at(path))
    living = {each.meta.get("instance") for each in found if each.written} - {None}
    for each in found:
        each.alive = each.written or each.meta.get("instance") in living
    return found


def writers_of(directory: Path, *, living: bool = False) -> list[dict[str, Any]]:
    """What the headers of a spool directory's segments say of who wrote them.

    Args:
        directory: the spool's.
        living: only of those who hold them still.
    """
    headers = []
    for path in segments_in(directory):
        with (
            contextlib.suppress(OSError),
            contextlib.closing(Segment.inspect(path)) as segment,
        ):
            if not living or segment.has_writer:
                headers.append(segment.meta)
    return headers


def look_again(found: Found) -> Found | None:
    """The same segment now; None where it has been delivered and deleted."""
    try:
        return _look_at(found.path)
    except FileNotFoundError:
        return None


def _look_at(path: Path) -> Found:
    with contextlib.closing(Segment.inspect(path)) as segment:
        written = segment.has_writer
        segment.sealed = not written
        content = segment.read(PAGE, segment.size)
        found = Found(
            path=path,
            size=segment.size,
            end=PAGE + len(content.rstrip(b"\0")),
            meta=segment.meta,
            written=written,
            attended=segment.has_reader,
            alive=written,
        )
        seen: dict[int, tuple[Behind, int]] = {}
        for sink in found.sinks:
            cursor = segment.cursors.get(sink, PAGE)
            if cursor not in seen:
                seen[cursor] = _behind(segment, cursor)
            found.behind[sink], damaged = seen[cursor]
            found.damaged = max(found.damaged, damaged)
        return found


def _behind(segment: Segment, cursor: int) -> tuple[Behind, int]:
    scanner = Scanner(segment, cursor)
    behind, damaged = Behind(), 0
    while True:
        batch = scanner.batch(_BATCH)
        damaged += sum(len(stretch) for _, stretch in batch.damaged)
        if not batch.payloads:
            return behind, damaged
        behind.bytes += sum(map(len, batch.payloads))
        behind.records += len(batch.payloads)
        if behind.oldest_ns is None:
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
                behind.oldest_ns = occurred_at(decode(batch.payloads[0])[1])


def settled(
    spool: Path | None, store: str | None, otlp: str | None, writers: Iterable[Mapping[str, Any]]
) -> Settings:
    """The settings; where a spool is named and no store, the store that is named in the spool.

    Args:
        spool: the directory, as it was named.
        store: the store's URL, as it was named.
        otlp: the endpoint, as it was named.
        writers: what stands in the spool of those who have written there.

    Raises:
        ConfigurationError: they name no store, or several, or one with a password.
    """
    if store is None and spool is not None:
        named = {str(meta["store"]) for meta in writers if "store" in meta}
        problem = f"nothing in {spool} names one"
        if len(named) == 1:
            (store,) = named
            problem = f"{store} needs its password"
        elif named:
            problem = f"{spool} holds records for {' and '.join(sorted(named))}"
        if store is None or "***" in store:
            raise ConfigurationError(
                setting="store", problem=problem, remedy="name it with --store or SIDELIGHT_STORE"
            )
    return settle(store, spool=spool, otlp=otlp)
