"""Encode the event of a record as a log record with an event name.

The result equals what the SDK makes of the same log record, within the limits of the process that
wrote the record. What the events of a point have in common is encoded once.
"""

from __future__ import annotations

import struct
from typing import Any, Final, TypeAlias

from sidelight.otlp.fields import (
    Encode,
    Identity,
    bounded,
    code_function,
    event_name,
    identity,
    usual_most,
)
from sidelight.otlp.wire import (
    Attributes,
    GivenAttributes,
    Heads,
    ReservedKeyError,
    any_value,
    message,
    number_field,
    text_field,
    varint,
)
from sidelight.record import (
    ARTIFACT_KEY,
    DEFAULT_LIMITS,
    ORGANIZATION_KEY,
    RANDOM,
    SAMPLED,
    Limits,
    Moment,
    Static,
    event_id_ascii,
    exception_attributes,
    w3c_flags,
)

_attributes: Final = Attributes(b"\x32")
_identity: Final = Identity(_attributes)
_beginnings: Final = Heads(b"\x12")
_USUAL: Final = 1 << 62  # ns; a damaged record may say anything
_duration: Final = _attributes["sidelight.duration"]
_INFO: Final = (9, "INFO")
_ERROR: Final = (17, "ERROR")
_MAX_HEADS: Final = 10_000
_OWN_KEYS: Final = frozenset(
    {
        "code.function.name",
        "sidelight.mode",
        "sidelight.outcome",
        "sidelight.duration",
        ARTIFACT_KEY,
        ORGANIZATION_KEY,
        "sidelight.truncated",
        "sidelight.event.type",
        "log.record.uid",
    }
)
_given: Final = GivenAttributes(b"\x32", _OWN_KEYS)
_NO_ATTRIBUTES: Final[dict[str, Any]] = {}
#: time (1) or observed time (11) with its tag.
_time: Final = struct.Struct("<cQ").pack
#: time, trace_id (9), span_id (10) and flags (8) with their tags.
_time_and_trace: Final = struct.Struct("<cQ2s16s2s8scI").pack
_TRACE_FLAGS: Final = SAMPLED | RANDOM
_W3C_FLAGS: Final = tuple(int(w3c_flags(flags)) for flags in range(_TRACE_FLAGS + 1))


def log_encoder(limits: Limits = DEFAULT_LIMITS, observed: int = 0) -> Encode:
    """Return a function that writes the event that a record holds; None if it holds none.

    Args:
        limits: of the process that wrote the records.
        observed: when the relay has read the records (ns).
    """
    most = usual_most(limits.log_attributes, limits.log_length, len(_OWN_KEYS))
    observed_field = _time(b"\x59", observed)

    def encode(static: Static, moment: Moment) -> bytes | None:
        if static.type is None:
            return None
        duration, trace, span_id = moment.duration, moment.trace, moment.span_id
        occurred = moment.time + (duration or 0)
        uid = event_id_ascii(occurred, moment.random)
        given, details = moment.attributes or _NO_ATTRIBUTES, moment.details
        if trace and span_id:
            flags, span = _W3C_FLAGS[moment.flags & _TRACE_FLAGS], span_id.to_bytes(8, "big")
            begin = _time_and_trace(
                b"\x09", occurred, b"\x4a\x10", trace, b"\x52\x08", span, b"\x45", flags
            )
        else:
            begin = _time(b"\x09", occurred)
        parts = [begin, observed_field]
        is_usual = len(given) <= most and (details is None or "error" not in details)
        if is_usual and given:
            try:
                _given.add(parts, given.items())
            except ReservedKeyError:
                is_usual = False
                del parts[2:]
        if not is_usual:
            parts += _bounded_log(static, moment, uid.decode(), limits)
        else:
            known = _known.get(id(static))
            head, about, tail = (
                known[1] if known is not None and known[0] is static else _new_constants(static)
            )
            if duration is None:
                parts += head, about
            elif 0 <= duration < _USUAL:
                number = varint(duration)
                parts += head, about, _duration[-len(number)], number
            else:
                parts += head, about, _attributes.of({"sidelight.duration": duration})
            _identity.add(parts, moment)
            parts += tail, uid
        written = b"".join(parts)
        return _beginnings[len(written)] + written

    return encode


_Constants: TypeAlias = tuple[bytes, bytes, bytes]
#: The common part of a point's events: bytes before, among and behind the others.
_known: Final[dict[int, tuple[Static, _Constants]]] = {}


def _new_constants(static: Static) -> _Constants:
    """Encode the common part of a point's events, and keep it."""
    if len(_known) >= _MAX_HEADS:
        _known.clear()
    uid = "0" * 36
    last = _attributes.of({"sidelight.event.type": static.type, "log.record.uid": uid})
    constants = (
        _head(static, _INFO),
        _attributes.of(_about(static)),
        last.removesuffix(uid.encode()),
    )
    _known[id(static)] = static, constants
    return constants


def _head(static: Static, severity: tuple[int, str]) -> bytes:
    number, text = severity
    body = message(b"\x2a", any_value(static.type))
    name = text_field(b"\x62", event_name(static))
    return number_field(b"\x10", number) + text_field(b"\x1a", text) + body + name


def _about(static: Static) -> dict[str, str]:
    return {
        "code.function.name": code_function(static),
        "sidelight.mode": static.mode,
        "sidelight.outcome": static.outcome,
    }


def _bounded_log(static: Static, moment: Moment, uid: str, limits: Limits) -> tuple[bytes, ...]:
    """Write a log record with an error, or within narrower limits."""
    given: dict[str, Any] = {**(moment.attributes or {}), **_about(static)}
    if moment.duration is not None:
        given["sidelight.duration"] = moment.duration
    severity = _INFO
    if error := (moment.details or {}).get("error"):
        severity = _ERROR
        given |= exception_attributes(error) | {"error.type": error[0]}
    given |= dict(identity(moment))
    given["sidelight.event.type"] = static.type
    given["log.record.uid"] = uid  # last, because a limit drops the first ones
    kept, dropped = bounded(given, limits.log_attributes, limits.log_length)
    written = _attributes.of(kept)
    return _head(static, severity), written, number_field(b"\x38", dropped)
