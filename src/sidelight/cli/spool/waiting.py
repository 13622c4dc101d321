"""Say that events still wait in the spool, and for what: an answer does not contain them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec

from sidelight.cli.output import complain, remark
from sidelight.cli.spool.commands import located, relay_command
from sidelight.cli.spool.ended import ended_in
from sidelight.cli.spool.segments import writer_of
from sidelight.cli.spool.writers import is_stopped
from sidelight.exceptions import SidelightError, StoreMissingError
from sidelight.host import is_directory
from sidelight.record import Moment, decode, is_same_store, occurred_at
from sidelight.settings import public_url, settle
from sidelight.spool import PAGE, Scanner, Segment, segments_in
from sidelight.store import Mark, Process, plural, whole_seconds

_MOST: Final = 10_000  # events to count
_BATCH: Final = 2000
PATIENCE: Final = 5_000_000_000
"""Nanoseconds that a record may wait for a relay that works."""


@dataclass(slots=True)
class _Waiting:
    """Events that a store has not taken.

    Attributes:
        events: how many; at most `_MOST`.
        oldest_ns: when the first of them occurred.
        remedies: why relays do not deliver them, and what helps; empty where relays may.
    """

    events: int = 0
    oldest_ns: int = 0
    remedies: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        more = "more than " if self.events >= _MOST else ""
        return f"{more}{plural(self.events, 'event')}"


def remark_waiting(store: str | None) -> None:
    """Tell on stderr how many events wait for a store in the spool of this machine, and why."""
    with contextlib.suppress(SidelightError):  # the store's own error says more
        settings = settle(store)
        url = settings.require_store()
        try:
            waiting = _waiting_in(settings.spool, url)
        except OSError as error:
            remark(f"events may wait in {settings.spool}, which cannot be read: {error.strerror}")
            return
        if waiting.events:
            more = "; ".join(waiting.remedies) or located(
                "see `sidelight spool`", settings.spool, settings.named_store
            )
            remark(f"{waiting} still in the spool; {more}")


def marks_here(
    store: str | None, running: Iterable[Process], spool: Path | None = None
) -> list[Mark]:
    """Return how far a store is with the spool of this machine: at its oldest waiting event.

    A process that has ended without a noted end gives no further sign of life.
    A spool that cannot be read is no reason to judge nothing, because it may be of another store.

    Args:
        store: its URL, as the command line gives it.
        running: the processes whose end it does not know.
        spool: the directory; None for the one that belongs to the store.
    """
    waiting, marks = _Waiting(), list[Mark]()
    with contextlib.suppress(SidelightError, OSError):
        settings = settle(store, spool=spool)
        url = settings.require_store()
        for process, command in ended_in(settings.spool, url, running):
            problem = f"{process} (instance {process.process}) has ended, and its end is not noted"
            marks.append(Mark.of(process, f"{problem}: `{command}` notes it"))
        waiting = _waiting_in(settings.spool, url)
    if not waiting.events:
        return marks
    late = time.time_ns() - waiting.oldest_ns
    reason = ""
    if late >= PATIENCE:
        parts = [f"events wait in the spool here for {whole_seconds(late)}", *waiting.remedies]
        reason = "; ".join(parts)
    awaited = "events that wait in the spool here are delivered"
    return [*marks, Mark(waiting.oldest_ns, reason, awaited)]


def complain_of_no_directory(spool: Path | None) -> None:
    """Tell on stderr that a spool directory that the user named does not exist."""
    if spool is not None and not is_directory(spool):
        complain(f"the spool {spool} was named, and does not exist")


def missing_beside_spool(error: StoreMissingError, spool: Path | None = None) -> StoreMissingError:
    """Name the remedy for a missing store whose events wait in a spool of this machine.

    Args:
        error: names the store.
        spool: the directory; None for the one that belongs to the store.
    """
    with contextlib.suppress(SidelightError, OSError):
        url = str(error.facts["url"])
        directory = settle(url, spool=spool).spool
        waiting = _waiting_in(directory, url)
        if waiting.events:
            more = "; ".join(waiting.remedies) or located(
                "see `sidelight doctor`", directory, public_url(url)
            )
            wait = "waits" if waiting.events == 1 else "wait"
            return StoreMissingError(url=url, remedy=f"{waiting} {wait} in {directory}; {more}")
    return error


def waiting_in(directory: Path, store: str) -> Iterator[Moment]:
    """Yield the events in a spool that a store has not taken.

    Raises:
        OSError: the spool cannot be read.
    """
    for path in segments_in(directory):
        with (
            contextlib.suppress(FileNotFoundError),  # delivered and deleted meanwhile
            contextlib.closing(Segment.inspect(path)) as segment,
        ):
            if is_same_store(segment.meta.get("store"), store):
                yield from _events_of(segment)


def _waiting_in(directory: Path, store: str) -> _Waiting:
    """Return the events in a spool that a store has not taken.

    Args:
        directory: of the spool.
        store: the URL of the store.

    Raises:
        OSError: the spool cannot be read.
    """
    waiting = _Waiting()
    living: list[tuple[Path, Mapping[str, Any]]] | None = None
    for path in segments_in(directory):
        with (
            contextlib.suppress(FileNotFoundError),  # delivered and deleted meanwhile
            contextlib.closing(Segment.inspect(path)) as segment,
        ):
            if not is_same_store(segment.meta.get("store"), store):
                continue
            found = islice(_events_of(segment), _MOST - waiting.events)
            times = [occurred_at(each) for each in found]
            if not times:
                continue
            waiting.events += len(times)
            waiting.oldest_ns = min([waiting.oldest_ns or times[0], *times])
            living = _living_in(directory) if living is None else living
            remedy = _remedy(path, segment, living, (directory, public_url(store)))
            if remedy and remedy not in waiting.remedies:
                waiting.remedies.append(remedy)
        if waiting.events >= _MOST:
            break
    return waiting


def _events_of(segment: Segment) -> Iterator[Moment]:
    scanner = Scanner(segment, segment.cursors.get("store", PAGE))
    while payloads := scanner.batch(_BATCH).payloads:
        for payload in payloads:
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
                static, moment = decode(payload)
                if static.type is not None:
                    yield moment


def _living_in(directory: Path) -> list[tuple[Path, Mapping[str, Any]]]:
    """Return the segments whose writer lives, with their headers."""
    found: list[tuple[Path, Mapping[str, Any]]] = []
    for path in segments_in(directory):
        with contextlib.suppress(OSError), contextlib.closing(Segment.inspect(path)) as segment:
            if segment.has_writer:
                found.append((path, segment.meta))
    return found


def _remedy(
    path: Path,
    segment: Segment,
    living: Sequence[tuple[Path, Mapping[str, Any]]],
    places: tuple[Path, str],
) -> str:
    """Return why no relay delivers a segment, and what helps; "" where one may.

    Args:
        path: of the segment.
        segment: it has events that wait.
        living: the segments whose writer lives.
        places: the spool, and the store that a relay must reach.
    """
    meta = segment.meta
    if segment.has_writer and is_stopped(path, meta):
        return f"{writer_of(meta)} is stopped: `kill -CONT {meta.get('pid')}`"
    own = [each for _, each in living if each.get("instance") == meta.get("instance")]
    if own and all(each.get("relay") != "external" for each in own):
        return ""
    for relay, each in living:
        if each.get("role") == "relay" and is_stopped(relay, each):
            return f"{writer_of(each)} is stopped: `kill -CONT {each.get('pid')}`"
    if segment.has_reader:
        return ""
    command = relay_command(*places, meta.get("stream"), once=not own)
    if own:
        return f"no relay reads them: start `{command}`"
    return f"their process has ended: `{command}` delivers them"
