"""Whole records inside a damaged stretch of the spool.

The scan looks for a frame's magic, and trusts only a frame whose length and checksum agree. A
stretch between two of those may still hold a record that is whole, where the damage has hit its
magic or its length. It is found by how a record begins, and proved by its checksum.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import Final

from sidelight.record import FRAME, MAX_PAYLOAD

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
