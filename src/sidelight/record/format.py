"""The wire format: what the caller's thread writes and every sink reads.

A payload is one msgpack array of two: the *static* part, which is encoded once when the function
is decorated, and the *moment*, which is encoded at the call. Together they are an event, a span,
or both. The unit of time is the nanosecond throughout.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

import msgspec

Outcome: TypeAlias = Literal["started", "succeeded", "failed", "closed", "emitted", "ledger"]

#: A payload goes into the spool in a frame: magic (4), length (4), CRC-32 of the payload (4).
FRAME: Final = struct.Struct("<4sII")
FRAME_MAGIC: Final = b"\xc1SL\xc1"  # 0xc1 is the one byte that msgpack never uses
MAX_PAYLOAD: Final = 256 * 1024

#: Set in ``Moment.flags``: the record carries a span that is to be exported.
SPAN: Final = 1
#: Set in ``Moment.flags``: the span's parent came from another process.
REMOTE_PARENT: Final = 2
#: Set in ``Moment.flags``: the trace is sampled (the W3C flag).
SAMPLED: Final = 4
#: Set in ``Moment.flags``: the attributes were too large for a record and were left out.
CUT: Final = 8
#: Set in ``Moment.flags``: the trace id is random (the W3C flag of level 2).
RANDOM: Final = 16

_PREFIX: Final = b"\x92"  # msgpack: an array of two follows

#: A buffer for `encode_into`, to begin with.
blank: Final[Callable[[], bytearray]] = bytearray(256).copy
encode_into: Final[Callable[[object, bytearray], None]] = msgspec.msgpack.Encoder().encode_into


def encode(value: object) -> bytes:
    """A value as msgpack.

    Into a buffer of ours: where no memory is left, msgspec's own `encode` crashes the process (in
    0.22, when it cannot enlarge the buffer that it has made).
    """
    buffer = blank()
    encode_into(value, buffer)
    return bytes(buffer)


def frame(payload: bytes) -> bytes:
    """Wrap a payload for the spool."""
    return FRAME.pack(FRAME_MAGIC, len(payload), zlib.crc32(payload)) + payload


def length_of_frames(data: bytes) -> int:
    """Bytes of the frames that begin one behind the other in ``data``, by what they say."""
    length = 0
    while data.startswith(FRAME_MAGIC, length) and len(data) >= length + FRAME.size:
        length += FRAME.size + int(FRAME.unpack_from(data, length)[1])
    return length


class Origin(msgspec.Struct, array_like=True, frozen=True, eq=False):
    """Whose a span is that the application's own TracerProvider has made.

    The instrumentation scope of its tracer, and the resource of its provider.
    """

    name: str
    version: str | None
    schema_url: str | None
    attributes: dict[str, Any]
    resource: dict[str, Any]
    resource_schema_url: str | None


class Static(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What every record of one emission of one point has in common.

    ``origin`` is there where the record carries a span that is not of our making.
    """

    type: str | None
    point: str
    mode: str
    outcome: Outcome
    span_name: str | None
    origin: Origin | None = None


class Moment(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What one call adds: ``time`` is the wall clock at the start of the call.

    ``trace`` is 16 bytes; ``parent_id`` 0 means a root. ``details`` holds what is seldom there:
    ``error`` (type, message, frames) and what the function did to its span.
    """

    time: int
    random: int
    artifact_id: Any
    organization_id: Any
    duration: int | None
    trace: bytes | None
    span_id: int
    parent_id: int
    flags: int
    attributes: dict[str, Any] | None
    details: dict[str, Any] | None


def encode_static(static: Static) -> bytes:
    """The unchanging head of a payload; a moment, encoded, completes it."""
    return _PREFIX + encode(static)


_payload_decoder: Final = msgspec.msgpack.Decoder(tuple[msgspec.Raw, Moment])
_static_decoder: Final = msgspec.msgpack.Decoder(Static)
_statics: dict[bytes, Static] = {}


def decode(payload: bytes | memoryview) -> tuple[Static, Moment]:
    """Read a payload back.

    Raises:
        msgspec.DecodeError: the bytes are not a record of this format.
    """
    raw, moment = _payload_decoder.decode(payload)
    key = bytes(raw)
    static = _statics.get(key)
    if static is None:
        if len(_statics) > 10_000:
            _statics.clear()
        static = _statics[key] = _static_decoder.decode(key)
    return static, moment


def occurred_at(moment: Moment) -> int:
    """When the event happened: the end of the call, or its start where it has not ended (ns)."""
    return moment.time + (moment.duration or 0)


_halves: Final = struct.Struct(">QQ").pack


def event_id(occurred_ns: int, random_bits: int) -> str:
    """The event's UUIDv7 as text (RFC 9562, method 3: the sub-millisecond part in rand_a)."""
    milliseconds, rest = divmod(occurred_ns, 1_000_000)
    digits = _halves(
        (milliseconds & 0xFFFF_FFFF_FFFF) << 16 | 0x7000 | (rest << 12) // 1_000_000,
        0b10 << 62 | random_bits & 0x3FFF_FFFF_FFFF_FFFF,
    ).hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


class Ids(random.Random):
    """Random bits of our own: `random.seed` does not move them, and a fork gets fresh ones."""


_ids: Final = Ids()
random_bits: Final[Callable[[int], int]] = _ids.getrandbits
reseed: Final[Callable[..., None]] = _ids.seed  # given nothing, from the system's entropy
