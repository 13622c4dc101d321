"""Erase records of this machine: in the spool's segments, in the quarantine and in outboxes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from sidelight.host import monotonic
from sidelight.record import FRAME, Moment, decode, is_same_store, salvage
from sidelight.spool import (
    Choose,
    Entry,
    Quarantine,
    Segment,
    erase_records,
    segments_in,
)
from sidelight.store import Eraser, id_text

_PATIENCE: Final = 5.0  # seconds for relays of living processes to deliver what waits
_LOOK_AGAIN: Final = 0.25


@dataclass(slots=True)
class Local:
    """What was erased on this machine.

    Attributes:
        spool: records that were overwritten in segments.
        waiting: records that wait for a sink in segments of living processes.
        quarantine: entries that were deleted or overwritten.
        unreadable: segments and entries that cannot be read or written.
    """

    spool: int = 0
    waiting: int = 0
    quarantine: int = 0
    unreadable: int = 0


def chooser(eraser: Eraser, unreadable: set[bytes]) -> Choose:
    """Make a function that tells of records whether the store has a tombstone for them.

    Args:
        eraser: of the store.
        unreadable: gets the records whose subject nobody can tell.
    """

    def choose(payloads: Sequence[bytes]) -> Sequence[bool]:
        named = [_named(payload) for payload in payloads]
        pairs = {pair for pair in named if pair is not None and pair != (None, None)}
        unreadable.update(each for each, pair in zip(payloads, named, strict=True) if pair is None)
        erased = eraser.erased(pairs)
        return [pair in erased for pair in named]

    return choose


def _named(payload: bytes) -> tuple[str | None, str | None] | None:
    """Return the artifact and the organization of a record, as the store keys by them.

    None where it cannot be read.
    """
    try:
        moment: Moment = decode(payload)[1]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    artifact, organization = moment.artifact_id, moment.organization_id
    return (
        None if artifact is None else id_text(artifact),
        None if organization is None else id_text(organization),
    )


def erase_here(directory: Path, store: str, choose: Choose) -> Iterator[Local]:
    """Erase in the spool and its quarantine; yield the state after each segment.

    Waits a few seconds where living processes are still delivering.

    Args:
        directory: of the spool; it may be missing.
        store: the URL of the store, because a directory may serve several.
        choose: tells which records.
    """
    total = Local()
    paths = [path for path in segments_in(directory) if _is_for(path, store, total)]
    until = monotonic() + _PATIENCE
    while True:
        total.waiting, left = 0, []
        for path in paths:
            try:
                found = erase_records(path, choose, is_hot=path.parent != directory)
            except OSError:
                total.unreadable += 1
                continue
            total.spool += found.records
            total.waiting += found.waiting
            if found.waiting:
                left.append(path)
            yield total
        if not left or monotonic() > until:
            break
        paths = left
        time.sleep(_LOOK_AGAIN)
    _erase_quarantined(Quarantine(directory), store, choose, total)
    yield total


def _is_for(path: Path, store: str, total: Local) -> bool:
    try:
        with contextlib.closing(Segment.inspect(path)) as segment:
            return is_same_store(segment.meta.get("store"), store)
    except FileNotFoundError:  # delivered and deleted meanwhile
        return False
    except OSError:
        total.unreadable += 1
        return False


def _erase_quarantined(quarantine: Quarantine, store: str, choose: Choose, total: Local) -> None:
    for identity, entry in quarantine.entries():
        if entry is None or not isinstance(named := entry.writer.get("store"), str | None):
            total.unreadable += 1
        elif is_same_store(named, store):
            total.quarantine += _erase_entry(quarantine, identity, entry, choose)


def _erase_entry(quarantine: Quarantine, identity: str, entry: Entry, choose: Choose) -> bool:
    """Delete an entry, or blank the records in a damaged stretch; return whether it had any."""
    if entry.kind == "record":
        is_erased = choose([entry.payload])[0]
        if is_erased:
            quarantine.discard(identity)
        return is_erased
    found = {entry.payload[start:end] for start, end in salvage(entry.payload)}
    records = [*found]
    erased = {each for each, chosen in zip(records, choose(records), strict=True) if chosen}

    def without_erased(now: Entry) -> Entry | None:
        places = [place for place in salvage(now.payload) if now.payload[slice(*place)] in erased]
        payload = _blanked(now.payload, places)
        return msgspec.structs.replace(now, payload=payload) if payload.strip(b"\0") else None

    if erased:
        quarantine.change(identity, without_erased)
    return bool(erased)


def _blanked(payload: bytes, places: Iterable[tuple[int, int]]) -> bytes:
    data: Any = bytearray(payload)
    for start, end in places:
        begin = max(0, start - FRAME.size)
        data[begin:end] = bytes(end - begin)
    return bytes(data)
