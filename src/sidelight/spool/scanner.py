"""Reads the frames of one segment in order, from a cursor, and skips damage."""

from __future__ import annotations

from typing import Final

import msgspec

from sidelight.host import monotonic
from sidelight.record import FRAME, FRAME_MAGIC, MAX_PAYLOAD, payload_at, payloads_at
from sidelight.spool.segment import READ, Segment

_DOUBT: Final = 0.1  # seconds
_HEAD: Final = FRAME.size
_LARGEST: Final = _HEAD + MAX_PAYLOAD
_OVERLAP: Final = len(FRAME_MAGIC) - 1


class Batch(msgspec.Struct):
    """Payloads that were read in order.

    Attributes:
        end: the offset behind the last payload.
        damaged: stretches that are no frames, each with its offset.
    """

    payloads: list[bytes] = []  # each batch has its own
    end: int = 0
    damaged: list[tuple[int, bytes]] = []


class Scanner:
    """Reads one segment, batch by batch.

    In a segment whose frames must all be complete, an invalid frame is damage. The search for the
    next valid frame begins one byte past the magic, never at the length that the frame claims. The
    stretch between is handed out for the quarantine.

    While another process may be writing, zeros mean "nothing yet", and an invalid frame means "not
    complete yet", because a reader can see a frame that is half copied. But a writer adds one
    frame after the other: an invalid frame that has had a valid one behind it for 0.1 s is damage.
    """

    def __init__(self, segment: Segment, offset: int) -> None:
        self.segment = segment
        self.offset = offset
        self._data = b""  # bytes that were read ahead
        self._base = offset  # offset of these bytes
        self._was_final = False
        self._doubtful = (-1, 0.0)  # offset of an invalid frame, and when it was first seen

    def batch(self, limit: int) -> Batch:
        """Read up to ``limit`` payloads; an empty batch means that there is nothing to read now.

        Raises:
            OSError: the disk cannot read. The next call begins where this one began.
        """
        begin = self.offset
        try:
            return self._batch(limit)
        except BaseException:
            self.offset, self._base, self._data = begin, begin, b""
            raise

    def skip_to(self, offset: int) -> None:
        """Go on at a later offset, where a frame begins or none is yet."""
        self.offset = offset

    def _batch(self, limit: int) -> Batch:
        end, is_final = self.segment.extent()
        if not (is_final and self._was_final):  # the bytes may have changed since they were read
            self._data = b""
        self._was_final = is_final
        batch = Batch(end=self.offset)
        if not is_final and not self.segment.read(self.offset, 1).strip(b"\0"):
            return batch
        while len(batch.payloads) < limit and self.offset < end:
            if not self._has_read_a_frame(end):
                self._data = self.segment.read(self.offset, min(READ, end - self.offset))
                self._base = self.offset
            if not self._take(batch, limit):
                if not is_final and not self._is_followed_by_a_frame():
                    break
                self._skip(batch, end)
        batch.end = self.offset
        return batch

    def _has_read_a_frame(self, end: int) -> bool:
        """Return whether the bytes that were read ahead hold all of the next frame."""
        return self._base + len(self._data) >= min(end, self.offset + _LARGEST)

    def _take(self, batch: Batch, limit: int) -> bool:
        """Take the valid frames that were read ahead; return False where there is none."""
        left = limit - len(batch.payloads)
        payloads, end = payloads_at(self._data, self.offset - self._base, left)
        batch.payloads += payloads
        self.offset = self._base + end
        return bool(payloads)

    def _is_followed_by_a_frame(self) -> bool:
        """Return whether a valid frame has been behind the invalid one here for long enough."""
        offset, since = self._doubtful
        if offset != self.offset:
            self._doubtful = (self.offset, monotonic())
        elif monotonic() - since > _DOUBT:
            at = self.offset - self._base
            while (at := self._data.find(FRAME_MAGIC, at + 1)) >= 0:
                if payload_at(self._data, at) is not None:
                    return True
        return False

    def _skip(self, batch: Batch, end: int) -> None:
        """Move to the next offset where a frame may begin."""
        data, at = self._data, self.offset - self._base
        following = data.find(FRAME_MAGIC, at + 1)
        if following < 0:
            is_last = self._base + len(data) >= end
            following = len(data) if is_last else max(at + 1, len(data) - _OVERLAP)
        lost = data[at:following].rstrip(b"\0")
        if lost:  # drop the zeros before it, except for those that were a frame's head
            blank = max(0, len(lost) - len(lost.lstrip(b"\0")) - FRAME.size)
            batch.damaged.append((self.offset + blank, lost[blank:]))
        # Nothing was read where the file has been cut short.
        self.offset = self._base + following if at < len(data) else end
