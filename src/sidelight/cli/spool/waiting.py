"""Say that events still wait in the spool, because an answer of the store does not contain them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from sidelight.cli.output import remark
from sidelight.exceptions import SidelightError
from sidelight.record import Moment, decode, is_same_store, occurred_at
from sidelight.settings import settle
from sidelight.spool import PAGE, Scanner, Segment, segments_in
from sidelight.store import Mark, plural, whole_seconds

_MOST: Final = 10_000  # events to count
_BATCH: Final = 2000
PATIENCE: Final = 5_000_000_000
"""Nanoseconds that a record may wait for a relay that works."""


def remark_waiting(store: str | None) -> None:
    """Tell on stderr how many events wait for a store in the spool of this machine."""
    with contextlib.suppress(SidelightError):  # the store's own error says more
        settings = settle(store)
        try:
            events = _events_in(settings.spool, settings.require_store())
            number = sum(1 for _ in islice(events, _MOST))
        except OSError as error:
            remark(f"events may wait in {settings.spool}, which cannot be read: {error.strerror}")
            return
        if number:
            more = "more than " if number >= _MOST else ""
            remark(f"{more}{plural(number, 'event')} still in the spool; see `sidelight spool`")


def marks_here(store: str | None) -> list[Mark]:
    """Return how far a store is with the spool of this machine: at its oldest waiting event.

    A spool that cannot be read is no reason to judge nothing, because it may be of another store.
    """
    oldest = None
    with contextlib.suppress(SidelightError, OSError):
        settings = settle(store)
        events = _events_in(settings.spool, settings.require_store())
        oldest = min((occurred_at(each) for each in islice(events, _MOST)), default=None)
    if oldest is None:
        return []
    late = time.time_ns() - oldest
    reason = "" if late < PATIENCE else f"events wait in the spool here for {whole_seconds(late)}"
    return [Mark(oldest, reason)]


def _events_in(directory: Path, store: str) -> Iterator[Moment]:
    """Yield the events that a store has not taken.

    Raises:
        OSError: the spool cannot be read.
    """
    for path in segments_in(directory):
        with (
            contextlib.suppress(FileNotFoundError),  # delivered and deleted meanwhile
            contextlib.closing(Segment.inspect(path)) as segment,
        ):
            if not is_same_store(segment.meta.get("store"), store):
                continue
            scanner = Scanner(segment, segment.cursors.get("store", PAGE))
            while payloads := scanner.batch(_BATCH).payloads:
                for payload in payloads:
                    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
                        static, moment = decode(payload)
                        if static.type is not None:
                            yield moment
