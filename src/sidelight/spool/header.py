"""The first page of a segment: its writer, and one cursor for each kind of sink.

This module alone knows the byte positions of the page and of the locks on a segment's file.

A cursor is eight bytes, written at once: an offset and a checksum of it. A cursor with a wrong
checksum sends its sink back to the first frame. Then records are delivered twice, and none is
missed.

The store's cursor counts only until the next boot, because the store's commit may reach the disk
later than the cursor. After a power loss the cursor could be there without the commit.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import Annotated, Any, Final, TypedDict

import msgspec

from sidelight.record import encode

PAGE: Final = 4096
"""Bytes of the header page; the first frame begins behind it."""
VERSION: Final = 3
READER_BYTE: Final = 0
"""Byte that the one relay that reads a segment locks."""
WRITER_BYTE: Final = 1
"""Byte that the writer of a segment locks."""
SLOTS: Final[Mapping[str, int]] = {"store": 0, "traces": 1, "logs": 2, "stream": 3}
"""Position of each sink's cursor among the cursors."""
_HEAD_CHECKED_FROM: Final = 3  # the first version that has a checksum of the head
_HEAD: Final = struct.Struct("<8sIII")  # magic, version, length of the map, its CRC-32
_CHECK: Final = struct.Struct("<I")
_MAGIC: Final = b"SIDELITE"
_CURSOR: Final = struct.Struct("<II")
_CURSORS_AT: Final = 64
_META_AT: Final = 256
_LONGEST: Final = {
    "spool": 1024,  # bytes; without it nothing but `strays_of` is missing
    "outboxes": 1024,  # without them only `sidelight doctor` has to be told of them
}


class _Meta(TypedDict, total=False):
    """The types of the entries that readers use; a header with others counts as damaged."""

    instance: str
    pid: int
    store: str
    stream: str
    spool: str
    relay: str
    role: str
    limit: Annotated[int, msgspec.Meta(gt=0)]
    sinks: list[str]
    outboxes: list[str]
    resource: dict[str, Any]


class Header(msgspec.Struct):
    """The content of a header page.

    Attributes:
        version: version of the format; 0 where the page is damaged.
        meta: describes the writer; empty where the page is damaged.
    """

    version: int = 0
    meta: dict[str, Any] = msgspec.field(default_factory=dict)


def fit(meta: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Shorten ``meta`` to the room in a header page.

    Returns:
        What fits, and the names of the resource attributes that were left out.
    """
    meta = {
        name: value
        for name, value in meta.items()
        if name not in _LONGEST or len(encode(value)) <= _LONGEST[name]
    }
    resource = dict(meta.get("resource", ()))
    kept = {**meta, "resource": resource}
    left_out = []
    while len(encode(kept)) > PAGE - _META_AT and resource:
        longest = max(resource, key=lambda name: len(encode(resource[name])))
        del resource[longest]
        left_out.append(longest)
    return (kept, left_out) if left_out else (dict(meta), [])


def encode_header(meta: Mapping[str, Any]) -> bytes:
    """Encode the header of a new segment; ``meta`` must `fit`."""
    encoded = encode(meta)
    head = _HEAD.pack(_MAGIC, VERSION, len(encoded), zlib.crc32(encoded))
    return (head + _CHECK.pack(zlib.crc32(head))).ljust(_META_AT, b"\0") + encoded


def decode_header(page: bytes) -> Header:
    """Decode a header page; a damaged page gives an empty header.

    A later version counts only with a correct checksum. Else one flipped bit would make every
    relay leave the segment to a newer sidelight that does not exist.
    """
    if len(page) < _META_AT or not _is_intact(page):
        return Header()
    _, version, length, check = _HEAD.unpack_from(page)
    if version > VERSION:
        return Header(version)
    encoded = page[_META_AT : _META_AT + min(length, PAGE)]
    if version > 1 and zlib.crc32(encoded) != check:
        return Header()
    try:
        meta = msgspec.msgpack.decode(encoded)
        msgspec.convert(meta, _Meta)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Header()
    return Header(version, meta)


def _is_intact(page: bytes) -> bool:
    magic, version, _, _ = _HEAD.unpack_from(page)
    (check,) = _CHECK.unpack_from(page, _HEAD.size)
    is_checked = version >= _HEAD_CHECKED_FROM
    return bool(magic == _MAGIC) and (not is_checked or zlib.crc32(page[: _HEAD.size]) == check)


def cursor_offset(sink: str) -> int:
    """Return the position of a sink's cursor in the page."""
    return _CURSORS_AT + _CURSOR.size * SLOTS[sink]


def encode_cursor(sink: str, offset: int, boot: bytes) -> bytes:
    """Encode a cursor with its checksum; ``boot`` is the id of this run of the machine."""
    return _CURSOR.pack(offset, _checksum(sink, offset, boot))


def decode_cursor(page: bytes, sink: str, boot: bytes) -> int:
    """Return the offset at which a sink continues; the first frame for an invalid cursor."""
    place = cursor_offset(sink)
    if len(page) < place + _CURSOR.size:
        return PAGE
    offset, check = _CURSOR.unpack_from(page, place)
    is_valid = offset > PAGE and check == _checksum(sink, offset, boot)
    return int(offset) if is_valid else PAGE


def _checksum(sink: str, offset: int, boot: bytes) -> int:
    seed = zlib.crc32(boot) if sink == "store" else 0
    return zlib.crc32(_CURSOR.pack(SLOTS[sink], offset), seed)
