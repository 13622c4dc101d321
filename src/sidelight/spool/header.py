"""The first page of a segment: who wrote it, and how far each kind of sink has got.

A cursor is eight bytes, written at once: the offset, and a check of it. One that fails its check
sends its sink back to the beginning, which costs a delivery too many and never one too few.

The store's cursor counts for this run of the machine only. A commit of the store may reach the disk
later than the cursor that follows it: after a power loss the one could be there without the other.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from sidelight.record import encode

PAGE: Final = 4096
VERSION: Final = 3
_CHECKED: Final = 3
"""From here on a check covers the head, too."""
SLOTS: Final[Mapping[str, int]] = {"store": 0, "traces": 1, "logs": 2, "stream": 3}
_HEAD: Final = struct.Struct("<8sIII")
_CHECK: Final = struct.Struct("<I")
_MAGIC: Final = b"SIDELITE"
_CURSOR: Final = struct.Struct("<II")
_CURSORS_AT: Final = 64
_META_AT: Final = 256


@dataclass(slots=True)
class Header:
    """What a header page says.

    Attributes:
        version: 0 where the page is damaged; what is behind it is read nevertheless.
        meta: who wrote the segment; empty where that is not known.
    """

    version: int = 0
    meta: dict[str, Any] = field(default_factory=dict)


def packed(meta: Mapping[str, Any]) -> bytes:
    """The header of a new segment; ``meta`` is `fitted`."""
    encoded = encode(meta)
    head = _HEAD.pack(_MAGIC, VERSION, len(encoded), zlib.crc32(encoded))
    return (head + _CHECK.pack(zlib.crc32(head))).ljust(_META_AT, b"\0") + encoded


def fitted(meta: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What of ``meta`` finds room in a page, and which attributes of the resource do not."""
    resource = dict(meta.get("resource", ()))
    kept = {**meta, "resource": resource}
    left_out = []
    while len(encode(kept)) > PAGE - _META_AT and resource:
        longest = max(resource, key=lambda name: len(encode(resource[name])))
        del resource[longest]
        left_out.append(longest)
    return (kept, left_out) if left_out else (dict(meta), [])


def parsed(page: bytes) -> Header:
    """Read a header page; one that is damaged costs what it says, not the records behind it.

    A version that is not known is believed only with its check: else a flipped bit would have us
    leave a segment to a sidelight that there is not.
    """
    if len(page) < _META_AT or not _is_whole(page):
        return Header()
    _, version, length, check = _HEAD.unpack_from(page)
    if version > VERSION:
        return Header(version)
    encoded = page[_META_AT : _META_AT + min(length, PAGE)]
    if version > 1 and zlib.crc32(encoded) != check:
        return Header()
    try:
        meta = msgspec.msgpack.decode(encoded)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Header()
    return Header(version, meta) if isinstance(meta, dict) else Header()


def _is_whole(page: bytes) -> bool:
    """Whether the head is one of ours, and says what was written there."""
    magic, version, _, _ = _HEAD.unpack_from(page)
    (check,) = _CHECK.unpack_from(page, _HEAD.size)
    return bool(magic == _MAGIC) and (version < _CHECKED or zlib.crc32(page[: _HEAD.size]) == check)


def cursor_place(sink: str) -> int:
    """Where in the page a sink's cursor is."""
    return _CURSORS_AT + _CURSOR.size * SLOTS[sink]


def packed_cursor(sink: str, offset: int, boot: bytes) -> bytes:
    """A cursor, with its check; ``boot`` tells this run of the machine."""
    return _CURSOR.pack(offset, _check(sink, offset, boot))


def parsed_cursor(page: bytes, sink: str, boot: bytes) -> int:
    """Where a sink goes on: at the first frame, unless its cursor can be believed."""
    place = cursor_place(sink)
    if len(page) < place + _CURSOR.size:
        return PAGE
    offset, check = _CURSOR.unpack_from(page, place)
    good = offset > PAGE and check == _check(sink, offset, boot)
    return int(offset) if good else PAGE


def _check(sink: str, offset: int, boot: bytes) -> int:
    seed = zlib.crc32(boot) if sink == "store" else 0
    return zlib.crc32(_CURSOR.pack(SLOTS[sink], offset), seed)
