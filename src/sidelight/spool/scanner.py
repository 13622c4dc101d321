"""Reads one segment's frames in order, from a cursor, and passes over what is damaged."""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from sidelight.record import FRAME, FRAME_MAGIC, MAX_PAYLOAD
from sidelight.spool.segment import READ, Segment

_DOUBT: Final = 0.1
"""Seconds after which a bad frame of a living writer, with a good one behind it, is damage."""
_LARGEST: Final = FRAME.size + MAX_PAYLOAD
_OVERLAP: Final = len(FRAME_MAGIC) - 1


@dataclass(slots=True)
class Batch:
    """Payloads read in order; ``end`` is the offset behind the last of them.

    Attributes:
        damaged: stretches that are no frames, each with its offset.
    """

    payloads: list[bytes] = field(default_factory=list)
    end: int = 0
    damaged: list[tuple[int, bytes]] = field(default_factory=list)


class Scanner:
    """Reads one segment, batch by batch.

    Where all that was written must be whole, a bad frame is damage: the search for the next good
    one goes on one byte past its magic, never by the length that it claims, and the stretch
    between is handed out to be set aside. While another process may be writing, zeros mean
    "nothing yet" and a bad frame "not yet" (a reader can see one half copied). But frames are
    written one after the other: that cannot be said for long of one that has a good one behind it.
    """

    def __init__(self, segment: Segment, offset: int) -> None:
        self.segment = segment
        self.offset = offset
        self._data = b""  # what was read ahead …
        self._base = offset  # … from here on
        self._was_whole = False
        self._doubted = (-1, 0.0)

    def batch(self, limit: int) -> Batch:
        """Up to ``limit`` payloads; an empty batch means that there is nothing to read now.

        Raises:
            OSError: the disk cannot read them. The next call begins where this one did.
        """
        begun = self.offset
        try:
            return self._batch(limit)
        except BaseException:
            self.offset, self._base, self._data = begun, begun, b""
            raise

    def _batch(self, limit: int) -> Batch:
        end, whole = self.segment.extent()
        if not (whole and self._was_whole):  # it may have changed since it was read
            self._data = b""
        self._was_whole = whole
        batch = Batch(end=self.offset)
        if not whole and not self.segment.read(self.offset, 1).strip(b"\0"):
            return batch
        while len(batch.payloads) < limit and self.offset < end:
            if not self._has_all_of_a_frame(end):
                self._data = self.segment.read(self.offset, min(READ, end - self.offset))
                self._base = self.offset
            if not self._take(batch, limit):
                if not whole and not self._is_past():
                    break
                self._skip(batch, end)
        batch.end = self.offset
        return batch

    def _has_all_of_a_frame(self, end: int) -> bool:
        read = self._base + len(self._data)
        return read >= min(end, self.offset + _LARGEST)

    def _take(self, batch: Batch, limit: int) -> bool:
        """Take the whole frames that were read; False where there is none."""
        at = first = self.offset - self._base
        while len(batch.payloads) < limit and (payload := self._payload(at)) is not None:
            batch.payloads.append(payload)
            at += FRAME.size + len(payload)
        self.offset = self._base + at
        return at > first

    def _payload(self, at: int) -> bytes | None:
        data, body = self._data, at + FRAME.size
        if body > len(data):
            return None
        magic, length, check = FRAME.unpack_from(data, at)
        if magic != FRAME_MAGIC or not 0 < length <= len(data) - body:
            return None
        payload = data[body : body + length]
        return payload if zlib.crc32(payload) == check else None

    def _is_past(self) -> bool:
        """Whether a living writer is past the bad frame that is here."""
        offset, since = self._doubted
        if offset != self.offset:
            self._doubted = (self.offset, time.monotonic())
        elif time.monotonic() - since > _DOUBT:
            at = self.offset - self._base
            while (at := self._data.find(FRAME_MAGIC, at + 1)) >= 0:
                if self._payload(at) is not None:
                    return True
        return False

    def _skip(self, batch: Batch, end: int) -> None:
        """Go on where the next frame may begin."""
        data, at = self._data, self.offset - self._base
        following = data.find(FRAME_MAGIC, at + 1)
        if following < 0:
            ends = self._base + len(data) >= end
            following = len(data) if ends else max(at + 1, len(data) - _OVERLAP)
        lost = data[at:following].rstrip(b"\0")
        if lost:  # without the zeros before it, except for those that were a head
            blank = max(0, len(lost) - len(lost.lstrip(b"\0")) - FRAME.size)
            batch.damaged.append((self.offset + blank, lost[blank:]))
        # Where there was nothing to read, the file has been cut short.
        self.offset = self._base + following if at < len(data) else end


#: msgpack: an array of two, of which the first is a short array.
_BEGINNING: Final = re.compile(rb"\x92[\x91-\x9f]")


def salvage(stretch: bytes) -> Iterator[tuple[int, int]]:
    """Where the payloads of whole records begin and end in a damaged stretch."""
    begins = _BEGINNING.search(stretch, FRAME.size)
    while begins is not None:
        at = begins.start()
        end = _end_of(stretch, at)
        if end is not None:
            yield at, end
        begins = _BEGINNING.search(stretch, at + 1 if end is None else end + FRAME.size)


def _end_of(stretch: bytes, at: int) -> int | None:
    """The end of the payload that begins here, if its checksum says that it is one."""
    _, length, crc = FRAME.unpack_from(stretch, at - FRAME.size)
    # Its length may be what was hit: a single record then fills the stretch.
    for end in (at + length, len(stretch)):
        whole = end <= len(stretch) and end - at <= MAX_PAYLOAD
        if whole and zlib.crc32(stretch[at:end]) == crc:
            return end
    return None
