"""Encode the event of a record as a log record with an event name.

The result equals what the SDK makes of the same log record, within the limits of the process that
wrote the record. What the events of a point have in common is encoded once.
"""

from __future__ import annotations

import struct
from typing import Any, Final, TypeAlias

from sidelight.otlp.fields import Identity, bounded, code_function, event_name, identity
from sidelight.otlp.wire import (
    Attributes,
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
    event_id,
    exception_attributes,
    w3c_flags,
)

_attributes: Final = Attributes(b"\x32")
_identity: Final = Identity(_attributes)
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
_OWN_MOST: Final = len(_OWN_KEYS)
_NO_ATTRIBUTES: Final[dict[str, Any]] = {}
#: time (1) and observed time (11) with their tags.
_times: Final = struct.Struct("<cQcQ").pack
#: The same, and trace_id (9), span_id (10) and flags (8) with their tags.
_times_and_trace: Final = struct.Struct("<cQcQ2s16s2s8scI").pack
_TRACE_FLAGS: Final = SAMPLED | RANDOM
_W3C_FLAGS: Final = tuple(int(w3c_flags(flags)) for flags in range(_TRACE_FLAGS + 1))


def encode_log(
    static: Static, moment: Moment, limits: Limits = DEFAULT_LIMITS, observed: int = 0
) -> bytes | None:
    """Write the event that a record holds, as a field of ``ScopeLogs``; None if it holds none.

    Args:
        static: what the records of the point have in common.
        moment: the call.
        limits: of the process that wrote the record.
        observed: when the relay has read the record (ns).
    """
    if static.type is None:
        return None
    duration, trace, span_id = moment.duration, moment.trace, moment.span_id
    occurred = moment.time + (duration or 0)
    uid = event_id(occurred, moment.random)
    given, details = moment.attributes or _NO_ATTRIBUTES, moment.details
    if trace and span_id:
        flags, span = _W3C_FLAGS[moment.flags & _TRACE_FLAGS], span_id.to_bytes(8, "big")
        ids = b"\x4a\x10", trace, b"\x52\x08", span, b"\x45", flags
        parts = [_times_and_trace(b"\x09", occurred, b"\x59", observed, *ids)]
    else:
        parts = [_times(b"\x09", occurred, b"\x59", observed)]
    if (
        (details is None or "error" not in details)
        and limits.log_length is None
        and ((most := limits.log_attributes) is None or len(given) + _OWN_MOST <= most)
        and (not given or _OWN_KEYS.isdisjoint(given))
    ):
        known = _known.get(id(static))
        head, about, tail = (
            known[1] if known is not None and known[0] is static else _new_constants(static)
        )
        parts.append(head)
        if given:
            _attributes.add(parts, given.items())
        parts.append(about)
        if duration is not None:
            if 0 <= duration < _USUAL:
                number = varint(duration)
                parts += _duration[-len(number)], number
            else:
                _attributes.add(parts, (("sidelight.duration", duration),))
        _identity.add(parts, moment)
        parts += tail, uid.encode()
    else:
        parts += _bounded_log(static, moment, uid, limits)
    written = b"".join(parts)
    return b"\x12" + varint(len(written)) + written


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
