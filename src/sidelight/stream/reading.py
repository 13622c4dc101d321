"""Messages of a topic, read back: the record of an event, or what is told of a process."""

from __future__ import annotations

import functools
import re
import struct
from binascii import unhexlify
from calendar import timegm
from collections.abc import Callable, Mapping, Sequence
from time import strptime
from typing import Any, Final, NamedTuple, TypeAlias, get_args

import msgspec

from sidelight.exceptions import MessageError
from sidelight.record import (
    CALL,
    DEEPEST,
    Mode,
    Moment,
    Static,
    is_deep,
    is_type_name,
    random_of,
    record_flags,
)
from sidelight.spool import Record
from sidelight.store import OUTCOMES
from sidelight.stream.messages import CONTENT_TYPE, JSON, PROCESS_TYPE, SECOND, ProcessNote

MessageHeaders: TypeAlias = Sequence[tuple[str, bytes | None]]
Sourced: TypeAlias = tuple[Record, Mapping[str, Any]]
"""A record, and what is known of its process."""
_STRUCTURED_PREFIX: Final = b"application/cloudevents+json"
_TIME: Final = re.compile(
    rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|\+00:00)", re.ASCII
)
_FLAGS: Final = {b"%02x" % flags: record_flags(flags) for flags in range(256)}
_EARLIEST: Final = -1 << 63  # ns; what a database holds
_LATEST: Final = (1 << 63) - 1
_LENGTH_OF_TIME: Final = len("2026-07-25T12:00:00.000000000Z")
_time_parts: Final = struct.Struct("20s9ss").unpack
_trace_parts: Final = struct.Struct(">16sQ").unpack
_CALL: Final = re.compile(r"([0-9a-f]{32})([0-9a-f]{16})")
_MODES: Final = frozenset(get_args(Mode))
_OUTCOMES: Final = frozenset(OUTCOMES)
_END: Final = Static(None, "sidelight:call", "scheduled", "succeeded", None)
_LEDGER: Final = Static(None, "sidelight:ledger", "scheduled", "ledger", None)


class Told(NamedTuple):
    """What a message tells of a process, besides its events.

    Attributes:
        writer: describes the process, as the header of its segments does.
        records: its losses, its costs and the ends of its calls, as records.
        sign: its sign of life, as a record: true as soon as all that was sent before is stored.
        at: see `ProcessNote`.
        state: see `ProcessNote`; like a sign of life, it is true later.
        is_end: whether the process has ended.
    """

    writer: Mapping[str, Any]
    records: Sequence[Record]
    sign: Record | None
    at: int
    state: str
    is_end: bool


class Event(NamedTuple):
    """An event, and the process that emitted it."""

    record: Record
    writer: Mapping[str, Any]


def read_message(value: bytes | None, headers: MessageHeaders) -> Event | Told:
    """Read a message.

    The record of an event gives the row that the original record gives. It has no span, and its
    error is among its attributes.

    Raises:
        MessageError: the message is damaged, or is none of sidelight.
    """
    try:
        return _read(value or b"", headers)
    except KeyError as error:
        name = str(error.args[0]).removeprefix("ce_")
        raise MessageError(problem=f"it has no attribute {name!r}") from error
    except (ValueError, msgspec.DecodeError, RecursionError) as error:
        raise MessageError(problem=str(error)) from error
    except (AttributeError, TypeError) as error:
        raise MessageError(problem="one of its headers has no value") from error


def _read(value: bytes, headers: MessageHeaders) -> Event | Told:
    found: dict[str, Any] = dict(headers)
    data = value
    kind = found.get(CONTENT_TYPE) or b""
    if kind != JSON and kind.lower().startswith(_STRUCTURED_PREFIX):
        event = _event_decoder.decode(value)
        data = bytes(event.pop("data", b"null"))
        found = {f"ce_{name}": _encoded(name, text) for name, text in event.items()}
    if found["ce_specversion"] != b"1.0":
        version = (found["ce_specversion"] or b"").decode()
        raise ValueError(f"it has version {version!r} of CloudEvents")
    if found["ce_type"] == _PROCESS_TYPE:
        return _told(found, data)
    is_long = len(data) > DEEPEST  # else it is not deep
    if is_long and data.count(b"[") + data.count(b"{") > DEEPEST and is_deep(_decode(data)):
        raise ValueError(f"its data is nested deeper than {DEEPEST} levels")
    static = _static(found["ce_type"], found["ce_point"], found["ce_mode"], found["ce_outcome"])
    moment = _moment(found, _data_decoder.decode(data))
    return _event(((static, moment), _writer(found.get("ce_instance"), found.get("ce_source"))))


_PROCESS_TYPE: Final = PROCESS_TYPE.encode()
#: Make an event without a call of Python.
_event: Final[Callable[[tuple[Record, Mapping[str, Any]]], Event]] = functools.partial(
    tuple.__new__, Event
)
_decode: Final = msgspec.json.decode
_event_decoder: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text_decoder: Final = msgspec.json.Decoder(str)
_data_decoder: Final = msgspec.json.Decoder(dict[str, Any])
_note_decoder: Final = msgspec.json.Decoder(ProcessNote)


def _encoded(name: str, text: msgspec.Raw) -> bytes:
    try:
        return _text_decoder.decode(text).encode()
    except msgspec.ValidationError:
        raise ValueError(f"its attribute {name} is not text") from None


@functools.lru_cache(maxsize=10_000)
def _static(type_name: bytes, point: bytes, mode: bytes, outcome: bytes) -> Static:
    of: Any = [each.decode() for each in (type_name, point, mode, outcome)]
    if not is_type_name(of[0]) or of[2] not in _MODES or of[3] not in _OUTCOMES:
        raise ValueError(f"its type is {of[0]!r}, its mode {of[2]!r}, its outcome {of[3]!r}")
    return Static(of[0], of[1], of[2], of[3], None)


@functools.lru_cache(maxsize=10_000)
def _writer(instance: bytes | None, source: bytes | None) -> Mapping[str, Any]:
    """Return the one object that stands for a process: see `StoreSink.write_of_many`."""
    writer = {"resource": {"service.name": (source or b"").decode(errors="replace")}}
    return writer if instance is None else {**writer, "instance": instance.decode()}


def _moment(found: Mapping[str, bytes], data: dict[str, Any]) -> Moment:
    occurred = _nanoseconds(found["ce_time"])
    random = _random_of(found["ce_id"], occurred)
    duration = None if (text := found.get("ce_duration")) is None else int(text)
    began = occurred if duration is None else occurred - duration
    if not _EARLIEST <= began <= occurred <= _LATEST:
        raise ValueError(f"it began at {began} ns and ended at {occurred} ns")
    trace, span_id, flags = None, 0, 0
    if (text := found.get("ce_traceparent")) is not None:
        trace, span_id, flags = _trace_of(text)
    if "ce_call" in found:
        flags |= CALL
    artifact = found.get("ce_subject", found.get("ce_artifact"))
    organization = found.get("ce_organization")
    return Moment(
        began,
        random,
        None if artifact is None else artifact.decode(),
        None if organization is None else organization.decode(),
        duration,
        trace,
        span_id,
        0,
        flags,
        data or None,
        None,
    )


def _random_of(uid: bytes, occurred: int) -> int:
    random = random_of(uid, occurred)
    if random is None:
        raise ValueError(f"its id {uid.decode()!r} was not made at its time")
    return random


def _trace_of(parent: bytes) -> tuple[bytes, int, int]:
    """Read trace, span and flags of a traceparent."""
    known = _FLAGS.get(parent[53:])
    if known is None or parent[:3] != b"00-" or parent[35:53:17] != b"--":
        raise ValueError(f"its traceparent is {parent.decode()!r}")
    trace, span_id = _trace_parts(unhexlify(parent[3:35] + parent[36:52]))
    return trace, span_id, known


def _told(found: Mapping[str, bytes], data: bytes) -> Told:
    note = _note_decoder.decode(data)
    if not _EARLIEST <= note.at <= _LATEST:
        raise ValueError(f"its time is {note.at} ns")
    random = _random_of(found["ce_id"], note.at)
    writer: dict[str, Any] = {"pid": note.pid, "resource": note.resource}
    if (instance := found.get("ce_instance")) is not None:
        writer["instance"] = instance.decode()
    records: list[Record] = []
    sign: Record | None = None
    is_end = note.state == "died"
    if note.ledger is not None:
        ledger = _LEDGER, _bare_moment(note.at, random, msgspec.to_builtins(note.ledger))
        if note.ledger.began is None:
            records.append(ledger)
        else:
            sign, is_end = ledger, note.ledger.ended
    for call in note.ended_calls:
        if (parts := _CALL.fullmatch(call)) is None:
            raise ValueError(f"it names the call {call!r}")
        trace, span_id = bytes.fromhex(parts[1]), int(parts[2], 16)
        records.append((_END, _bare_moment(note.at, random, None, trace, span_id, CALL)))
    return Told(writer, records, sign, note.at, note.state, is_end)


def _bare_moment(
    at: int,
    random: int,
    attributes: dict[str, Any] | None,
    trace: bytes | None = None,
    span_id: int = 0,
    flags: int = 0,
) -> Moment:
    return Moment(at, random, None, None, None, trace, span_id, 0, flags, attributes, None)


def _nanoseconds(text: bytes) -> int:
    if len(text) == _LENGTH_OF_TIME:
        until_point, fraction, zone = _time_parts(text)
        if zone == b"Z" and fraction.isdigit():
            return _second(until_point) + int(fraction)
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(f"its time is {text.decode()!r}")
    return _second(found[1] + b".") + int((found[2] or b"0").ljust(9, b"0"))


@functools.lru_cache(maxsize=1024)
def _second(text: bytes) -> int:
    """Read a second with the point behind it (ns)."""
    return timegm(strptime(text.decode(), "%Y-%m-%dT%H:%M:%S.")) * SECOND
