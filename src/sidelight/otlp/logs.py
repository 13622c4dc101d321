"""Encode the event of a record as a log record with an event name.

The result equals what the SDK makes of the same log record, within the limits of the process that
wrote the record. What the events of a point have in common is encoded once.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from sidelight.otlp.fields import add_identity, bounded, code_function, event_name, identity
from sidelight.otlp.wire import (
    Attributes,
    any_value,
    message,
    number_field,
    text_field,
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
#: trace_id (9), span_id (10) and flags (8) with their tags.
_trace: Final = struct.Struct("<2s16s2s8scI").pack
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
        parts = [
            _times(b"\x09", occurred, b"\x59", observed),
            _trace(b"\x4a\x10", trace, b"\x52\x08", span, b"\x45", flags),
        ]
    else:
        parts = [_times(b"\x09", occurred, b"\x59", observed)]
    if (
        (details is None or "error" not in details)
        and limits.log_length is None
        and ((most := limits.log_attributes) is None or len(given) + _OWN_MOST <= most)
        and _OWN_KEYS.isdisjoint(given)
    ):
        head, about, tail = _constants(static)
        parts.append(head)
        if given:
            _attributes.add(parts, given.items())
        parts.append(about)
        if duration is not None:
            _attributes.add(parts, (("sidelight.duration", duration),))
        add_identity(_attributes, parts, moment)
        parts += tail, uid.encode()
    else:
        parts += _bounded_log(static, moment, uid, limits)
    return message(b"\x12", b"".join(parts))


_known: Final[dict[int, tuple[Static, tuple[bytes, bytes, bytes]]]] = {}


def _constants(static: Static) -> tuple[bytes, bytes, bytes]:
    """Return the common part of a point's events: bytes before, among and behind the others."""
    known = _known.get(id(static))
    if known is None or known[0] is not static:
        if len(_known) >= _MAX_HEADS:
            _known.clear()
        uid = "0" * 36
        last = _attributes.of({"sidelight.event.type": static.type, "log.record.uid": uid})
        constants = (
            _head(static, _INFO),
            _attributes.of(_about(static)),
            last.removesuffix(uid.encode()),
        )
        known = static, constants
        _known[id(static)] = known
    return known[1]


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
