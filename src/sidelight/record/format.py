"""The wire format: what the caller's thread writes and every sink reads.

A payload is one msgpack array of two: the *static* part, encoded once at decoration, and the
*moment*, encoded at each call. Together they are an event, a span, or both. Times are nanoseconds.
This module alone knows the positions of the fields of a moment.
"""

from __future__ import annotations

import _random
import re
import struct
import zlib
from binascii import hexlify, unhexlify
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal, TypeAlias

import msgspec

from sidelight.record.encoding import encode

Mode: TypeAlias = Literal["scheduled", "awaited"]
Outcome: TypeAlias = Literal["started", "succeeded", "failed", "closed", "emitted", "ledger"]
MomentTuple: TypeAlias = tuple[Any, ...]
"""A moment as the caller's path makes it: the fields of `Moment`, in their order."""

#: The header of a payload's frame in the spool: magic (4), length (4), CRC-32 of the payload (4).
FRAME: Final = struct.Struct("<4sII")
FRAME_MAGIC: Final = b"\xc1SL\xc1"  # 0xc1 is the one byte that msgpack never uses
MAX_PAYLOAD: Final = 256 * 1024

#: Set in ``Moment.flags``: the record carries a span that is to be exported.
SPAN: Final = 1
#: Set in ``Moment.flags``: the parent of the span came from another process.
REMOTE_PARENT: Final = 2
#: Set in ``Moment.flags``: the trace is sampled (the W3C flag).
SAMPLED: Final = 4
#: Set in ``Moment.flags``: the attributes were too large for a record and were left out.
CUT: Final = 8
#: Set in ``Moment.flags``: the trace id is random (the W3C flag of level 2).
RANDOM: Final = 16
#: Set in ``Moment.flags``: the start of a call, or its end. It is not set in a start whose end
#: leaves no record, as that of a span that is not sampled.
CALL: Final = 32

_PREFIX: Final = b"\x92"  # msgpack: an array of two follows
_PAYLOAD_BEGINS: Final = re.compile(_PREFIX + rb"[\x91-\x9f]")  # its first item: a short array
#: Levels of containers that a record may have. The caller's path writes less than half of them.
#: Readers walk a record and write it as JSON, and would end at the interpreter's own limit.
DEEPEST: Final = 128
_CONTAINERS: Final = bytes([*range(0x80, 0xA0), *range(0xDC, 0xE0)])  # first bytes, in msgpack
_LEAVES: Final = bytes(set(range(256)).difference(_CONTAINERS))
_TYPE_NAME: Final = re.compile(r"[A-Za-z][\w.\-]{0,127}")


def is_deep(value: object) -> bool:
    """Return whether containers are nested deeper than `DEEPEST`."""
    level: list[Any] = [value]
    for _ in range(DEEPEST):
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                inner += each.values()
            elif isinstance(each, list | tuple):
                inner += each
        if not inner:
            return False
        level = inner
    return any(isinstance(each, dict | list | tuple) for each in level)


def is_type_name(value: object) -> bool:
    """Return whether a value can be the name of an event type."""
    return isinstance(value, str) and _TYPE_NAME.fullmatch(value) is not None


def frame(payload: bytes) -> bytes:
    """Wrap a payload for the spool.

    Raises:
        ValueError: the payload is larger than `MAX_PAYLOAD`, which the reader takes for damage.
    """
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"a payload of {len(payload)} bytes is larger than a record may be")
    return FRAME.pack(FRAME_MAGIC, len(payload), zlib.crc32(payload)) + payload


def payload_at(data: bytes, at: int) -> bytes | None:
    """Return the payload of the frame at ``at``; None where no complete, intact frame is there."""
    payloads, _ = payloads_at(data, at, 1)
    return payloads[0] if payloads else None


def payloads_at(data: bytes, at: int, limit: int) -> tuple[list[bytes], int]:
    """Return the payloads of complete, intact frames, one behind the other, and where they end.

    Args:
        data: the bytes of a segment.
        at: where the first frame begins.
        limit: how many payloads at most.
    """
    payloads: list[bytes] = []
    head, size, unpack, crc = FRAME.size, len(data), FRAME.unpack_from, zlib.crc32
    for _ in range(limit):
        begin = at + head
        if begin > size:
            break
        magic, length, check = unpack(data, at)
        if magic != FRAME_MAGIC or not 0 < length <= size - begin:
            break
        payload = data[begin : begin + length]
        if crc(payload) != check:
            break
        payloads.append(payload)
        at = begin + length
    return payloads, at


def salvage(stretch: bytes) -> Iterator[tuple[int, int]]:
    """Yield begin and end of each intact payload in a stretch whose frames are damaged.

    The payload is found by its first bytes, and confirmed by the checksum in front of it.
    """
    begins = _PAYLOAD_BEGINS.search(stretch, FRAME.size)
    while begins is not None:
        at = begins.start()
        end = _end_of_payload(stretch, at)
        if end is not None:
            yield at, end
        begins = _PAYLOAD_BEGINS.search(stretch, at + 1 if end is None else end + FRAME.size)


def _end_of_payload(stretch: bytes, at: int) -> int | None:
    _, length, crc = FRAME.unpack_from(stretch, at - FRAME.size)
    # The length may be the damage: then a single record fills the stretch.
    for end in (at + length, len(stretch)):
        is_possible = end <= len(stretch) and end - at <= MAX_PAYLOAD
        if is_possible and zlib.crc32(stretch[at:end]) == crc:
            return end
    return None


def length_of_frames(data: bytes) -> int:
    """Add up the frames at the start of ``data``, by the lengths that they state (bytes)."""
    length = 0
    while data.startswith(FRAME_MAGIC, length) and len(data) >= length + FRAME.size:
        length += FRAME.size + int(FRAME.unpack_from(data, length)[1])
    return length


class Origin(msgspec.Struct, array_like=True, frozen=True, eq=False):
    """The tracer and the resource of a span that the application's own TracerProvider made."""

    name: str
    version: str | None
    schema_url: str | None
    attributes: dict[str, Any]
    resource: dict[str, Any]
    resource_schema_url: str | None


class Static(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What every record of one emission of one point has in common.

    ``origin`` is set where the record carries a span that sidelight did not make.
    """

    type: str | None
    point: str
    mode: str
    outcome: Outcome
    span_name: str | None
    origin: Origin | None = None


class Moment(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What one call adds to the static part.

    Attributes:
        time: the wall clock at the start of the call (ns).
        random: 64 random bits of the event's id.
        artifact_id: what the event is about.
        organization_id: the organization of the event.
        duration: of the call (ns); None where the call has not ended.
        trace: the trace id in 16 bytes.
        span_id: of the span that the record carries, or of the span around the event.
        parent_id: the parent of the span; 0 for a root.
        flags: `SPAN`, `REMOTE_PARENT`, `SAMPLED`, `CUT`, `RANDOM`.
        attributes: the event's named values.
        details: what few records have: ``error`` (type, message, frames), and what the function
            did to its span.
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


_POSITIONS: Final = {name: place for place, name in enumerate(Moment.__struct_fields__)}


def replaced(moment: MomentTuple, **fields: Any) -> MomentTuple:
    """Copy a moment with some of its fields replaced (off the hot path)."""
    values = list(moment)
    for name, value in fields.items():
        values[_POSITIONS[name]] = value
    return tuple(values)


def moment_source(**fields: str) -> str:
    """Write the source of a tuple with the fields of a moment, each given as an expression."""
    return f"({', '.join(fields[name] for name in _POSITIONS)})"


def encode_static(static: Static) -> bytes:
    """Encode the unchanging head of a payload; an encoded moment completes it."""
    return _PREFIX + encode(static)


_payload_decoder: Final = msgspec.msgpack.Decoder(tuple[msgspec.Raw, Moment])
_static_decoder: Final = msgspec.msgpack.Decoder(Static)
_statics: dict[bytes, Static] = {}
_TOO_DEEP: Final = f"the record is nested deeper than {DEEPEST} levels"


def decode(payload: bytes | memoryview) -> tuple[Static, Moment]:
    """Read a payload back.

    Raises:
        msgspec.DecodeError: the bytes are not a record of this format, or nested too deeply.
    """
    try:
        raw, moment = _payload_decoder.decode(payload)
        key = bytes(raw)
        static = _statics.get(key)
        if static is None:
            if len(_statics) > 10_000:
                _statics.clear()
            static = _statics[key] = _static_decoder.decode(key)
    except RecursionError as error:
        raise msgspec.DecodeError(_TOO_DEEP) from error
    # Few records have so many bytes that could begin a container. Only these are walked.
    if (
        len(payload) - len(key) > DEEPEST
        and len(bytes(payload).translate(None, _LEAVES)) > DEEPEST
        and any(
            map(
                is_deep,
                (moment.artifact_id, moment.organization_id, moment.attributes, moment.details),
            )
        )
    ):
        raise msgspec.DecodeError(_TOO_DEEP)
    return static, moment


def occurred_at(moment: Moment) -> int:
    """Return the time of the event (ns): the end of the call, or its start while it runs."""
    return moment.time + (moment.duration or 0)


_id: Final = struct.Struct(">QQ")
_halves: Final = _id.pack
#: The hexadecimal digits of an id, without that of the version: the 16th digit is not used.
_groups: Final = struct.Struct("8s4s3sx4s12s").unpack
_LENGTH_OF_ID: Final = 36


def event_id_ascii(occurred_ns: int, random_bits: int) -> bytes:
    """Derive an event's UUIDv7 (RFC 9562, method 3: the sub-millisecond part in rand_a)."""
    milliseconds = (occurred_ns << 12) // 1_000_000  # with 12 bits of a fraction
    halves = _halves(
        milliseconds << 4 & 0xFFFF_FFFF_FFFF_FFFF,
        0b10 << 62 | random_bits & 0x3FFF_FFFF_FFFF_FFFF,
    )
    return b"%b-%b-7%b-%b-%b" % _groups(hexlify(halves))


def event_id(occurred_ns: int, random_bits: int) -> str:
    """Derive an event's id as text: see `event_id_ascii`."""
    return event_id_ascii(occurred_ns, random_bits).decode()


def random_of(event_id: bytes, occurred_ns: int) -> int | None:
    """Return the random bits of an event's id in ASCII; None where no event of that time has it.

    Raises:
        ValueError: it is no UUID.
    """
    if len(event_id) != _LENGTH_OF_ID or event_id[8:24:5] != b"----":
        raise ValueError(f"its id {event_id.decode()!r} is no UUID")
    first, second = _id.unpack(unhexlify(event_id.replace(b"-", b"")))
    milliseconds = (occurred_ns << 12) // 1_000_000
    expected = (milliseconds >> 12 & 0xFFFF_FFFF_FFFF) << 16 | 0x7000 | milliseconds & 0xFFF
    if first != expected or second >> 62 != 0b10 or event_id != event_id.lower():
        return None
    return int(second & 0x3FFF_FFFF_FFFF_FFFF)


#: A generator that `random.seed` does not reach; `random` itself is slow to import.
_ids: Final = _random.Random()
random_bits: Final[Callable[[int], int]] = _ids.getrandbits
reseed: Final[Callable[..., None]] = _ids.seed  # without an argument, from the system's entropy
