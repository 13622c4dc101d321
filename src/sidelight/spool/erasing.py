"""Overwrite records in the file of a segment, in place, so that no reader finds them.

An orphaned segment is taken over meanwhile, so that no relay reads it. In a segment of a living
process only records that every sink has are overwritten, because a relay may be reading the others.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from sidelight.record import FRAME, FRAME_MAGIC, blank_payload, frame, payload_at
from sidelight.spool.allocation import write_all
from sidelight.spool.disk import DISK
from sidelight.spool.header import PAGE
from sidelight.spool.segment import Segment

Choose: TypeAlias = Callable[[Sequence[bytes]], Sequence[bool]]
"""Tells of each payload whether it is to be erased."""


class Overwritten(NamedTuple):
    """The outcome for one segment: records that were overwritten, and that wait for a sink."""

    records: int = 0
    waiting: int = 0


def erase_records(path: Path, choose: Choose, *, is_hot: bool) -> Overwritten:
    """Overwrite the chosen records of a segment.

    Args:
        path: of the segment.
        choose: tells which.
        is_hot: the file is on a tmpfs and has a copy, so that it is not taken over.

    Raises:
        OSError: the file cannot be read or written.
    """
    orphan = None if is_hot else Segment.adopt(path)
    try:
        segment = orphan or Segment.inspect(path)
    except FileNotFoundError:  # delivered and deleted meanwhile
        return Overwritten()
    with contextlib.closing(segment):
        frames = _frames(segment)
        answers = choose([payload for _, payload in frames])
        chosen = [each for each, is_chosen in zip(frames, answers, strict=True) if is_chosen]
        sinks = segment.meta.get("sinks", ("store",))
        free = [segment.cursors.get(sink, PAGE) for sink in sinks]
        until = segment.size if orphan else min(free, default=PAGE)
        done = [each for each in chosen if each[0] < until]
        try:
            if done:
                _overwrite(path, done)
        except FileNotFoundError:  # delivered and deleted meanwhile
            return Overwritten()
        return Overwritten(len(done), len(chosen) - len(done))


def _frames(segment: Segment) -> list[tuple[int, bytes]]:
    """Return the intact frames of a segment: offset and payload."""
    data, at = segment.read(PAGE, segment.size), 0
    found = []
    while (at := data.find(FRAME_MAGIC, at)) >= 0:
        payload = payload_at(data, at)
        if payload is None:
            at += 1
            continue
        found.append((PAGE + at, payload))
        at += FRAME.size + len(payload)
    return found


def _overwrite(path: Path, frames: Sequence[tuple[int, bytes]]) -> None:
    fd = DISK.open(path, writable=True)
    try:
        for offset, payload in frames:
            blank = blank_payload(len(payload), time.time_ns())
            filled = bytes(FRAME.size + len(payload)) if blank is None else frame(blank)
            write_all(DISK, fd, filled, offset)
        DISK.sync(fd)
    finally:
        DISK.close(fd)
