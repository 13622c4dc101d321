"""Encode the span of a record, equal to what the SDK makes of the same calls.

Most spans have ids, times and attributes only: what their point has in common is encoded once, and
each span adds its own bytes. What few spans have (events, links, a status, an error, more than the
limits allow) is written item by item. (`Limits` are those of the process that wrote the record.) A
span of another tracer is written as that tracer made it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

from sidelight.otlp.fields import (
    Encode,
    Identity,
    bounded,
    code_function,
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
)
from sidelight.record import (
    ARTIFACT_KEY,
    CUT,
    DEFAULT_LIMITS,
    ORGANIZATION_KEY,
    REMOTE_PARENT,
    SPAN,
    Limits,
    Moment,
    Static,
    exception_attributes,
    occurred_at,
    status_description,
)

_INTERNAL: Final = 0
_ERROR: Final = 2
_MAX_HEADS: Final = 10_000
_OWN_KEYS: Final = frozenset(
    {"code.function.name", ARTIFACT_KEY, ORGANIZATION_KEY, "sidelight.truncated"}
)
_given: Final = GivenAttributes(b"\x4a", _OWN_KEYS)
_NONE_DROPPED: Final = (0, 0, 0)
_NO_ATTRIBUTES: Final[dict[str, Any]] = {}
#: trace_id (1), span_id (2), start (7) and end (8) with their tags.
_ids_and_times: Final = struct.Struct("<2s16s2s8scQcQ").pack
_time_field: Final = struct.Struct("<cQ").pack
#: The flags (16): whether the parent is remote is known, and whether it is.
_LOCAL: Final = b"\x85\x01" + struct.pack("<I", 0x100)
_REMOTE: Final = b"\x85\x01" + struct.pack("<I", 0x300)


_attributes: Final = Attributes(b"\x4a")
_identity: Final = Identity(_attributes)
_beginnings: Final = Heads(b"\x12")
_event_attributes: Final = Attributes(b"\x1a")
_link_attributes: Final = Attributes(b"\x22")
_foreign_attributes: Final = Attributes(b"\x4a", any_value)
_foreign_event_attributes: Final = Attributes(b"\x1a", any_value)
_foreign_link_attributes: Final = Attributes(b"\x22", any_value)


def span_encoder(limits: Limits = DEFAULT_LIMITS, _observed: int = 0) -> Encode:
    """Return a function that writes the span that a record holds; None if it holds none.

    Args:
        limits: of the process that wrote the records.
    """
    most = usual_most(limits.attributes, limits.span_length, len(_OWN_KEYS))

    def encode(static: Static, moment: Moment) -> bytes | None:
        flags, trace = moment.flags, moment.trace
        if not flags & SPAN or trace is None or static.span_name is None:
            return None
        given, details = moment.attributes or _NO_ATTRIBUTES, moment.details
        parts: list[bytes] = []
        is_usual = details is None and len(given) <= most and static.origin is None
        if is_usual:
            known = _heads.get(id(static))
            parts.append(
                known[1] if known is not None and known[0] is static else _new_head(static)
            )
            _identity.add(parts, moment)
            if given:
                try:
                    _given.add(parts, given.items())
                except ReservedKeyError:
                    is_usual = False
        if not is_usual:
            parts = (
                _detailed_span(static, moment, details or {}, limits)
                if static.origin is None
                else _foreign_span(moment, details or {})
            )
        began, parent = moment.time, moment.parent_id
        parts.append(
            _ids_and_times(
                b"\x0a\x10",
                trace,
                b"\x12\x08",
                moment.span_id.to_bytes(8, "big"),
                b"\x39",
                began,
                b"\x41",
                began + (moment.duration or 0),
            )
        )
        if parent:
            parts += b"\x22\x08", parent.to_bytes(8, "big")
        parts.append(_REMOTE if parent and flags & REMOTE_PARENT else _LOCAL)
        written = b"".join(parts)
        return _beginnings[len(written)] + written

    return encode


#: The common part of a point's spans; statics are the same objects for all records.
_heads: Final[dict[int, tuple[Static, bytes]]] = {}


def _new_head(static: Static) -> bytes:
    """Encode the common part of a point's spans, and keep it."""
    if len(_heads) >= _MAX_HEADS:
        _heads.clear()
    head = b"".join(
        (
            text_field(b"\x2a", static.span_name),
            _kind_and_status(_INTERNAL, _status(static)),
            _attributes.of({"code.function.name": code_function(static)}),
        )
    )
    _heads[id(static)] = (static, head)
    return head


def _status(static: Static) -> tuple[int, str | None]:
    return (_ERROR if static.outcome == "failed" else 0), None


def _kind_and_status(kind: int, status: tuple[int, str | None]) -> bytes:
    code, description = status
    written = text_field(b"\x12", description if code == _ERROR else None)
    return number_field(b"\x30", kind + 1) + message(b"\x7a", written + number_field(b"\x18", code))


def _detailed_span(
    static: Static, moment: Moment, details: dict[str, Any], limits: Limits
) -> list[bytes]:
    """Write a span with details, or within narrower limits."""
    dropped, status = details.get("dropped", _NONE_DROPPED), _status(static)
    given = {"code.function.name": code_function(static), **dict(identity(moment))}
    given |= moment.attributes or {}
    for key, value in details.get("attributes", {}).items():
        given.pop(key, None)  # what a function sets again is the newest
        given[key] = value
    events = list(details.get("events", ()))
    if error := details.get("error"):
        given["error.type"] = error[0]
        events.append(("exception", occurred_at(moment), exception_attributes(error)))
        status = (_ERROR, status_description(error))
    if "status" in details:
        code, description = details["status"]
        status = (code, description)
    kept, lost = bounded(given, limits.attributes, limits.span_length, dropped[0])
    parts = [
        text_field(b"\x2a", details.get("name", static.span_name)),
        text_field(b"\x1a", details.get("trace_state")),
        _kind_and_status(_INTERNAL, status),
        _attributes.of(kept),
        number_field(b"\x50", lost),
    ]
    newest, lost = _newest(events, limits.events, dropped[1])
    for name, at, more in newest:
        of_event = bounded(more, limits.event_attributes, limits.length)
        parts.append(_event(name, at, _event_attributes.of(of_event[0]), of_event[1]))
    parts.append(number_field(b"\x60", lost))
    links, lost = _newest(details.get("links", ()), limits.links, dropped[2])
    for trace_id, span_id, remote, more in links:
        of_link = bounded(more, limits.link_attributes, limits.length)
        parts.append(_link(trace_id, span_id, remote, _link_attributes.of(of_link[0]), of_link[1]))
    parts.append(number_field(b"\x70", lost))
    return parts


def _foreign_span(moment: Moment, details: dict[str, Any]) -> list[bytes]:
    """Write a span that `SpoolSpanProcessor` has copied after its provider's limits."""
    given = moment.attributes or {}
    if moment.flags & CUT:
        given = {**given, "sidelight.truncated": True}
    dropped = details.get("dropped", _NONE_DROPPED)
    return [
        text_field(b"\x2a", details["name"]),
        text_field(b"\x1a", details.get("trace_state")),
        _kind_and_status(details.get("kind", _INTERNAL), details.get("status", (0, None))),
        _foreign_attributes.of(given),
        number_field(b"\x50", dropped[0]),
        *(
            _event(name, int(at), _foreign_event_attributes.of(more or {}), lost)
            for name, at, more, lost in details.get("events", ())
        ),
        number_field(b"\x60", dropped[1]),
        *(  # without the trace state of the link, as the SDK writes it
            _link(trace_id, span_id, remote, _foreign_link_attributes.of(more or {}), lost)
            for trace_id, span_id, remote, more, lost, _ in details.get("links", ())
        ),
        number_field(b"\x70", dropped[2]),
    ]


def _event(name: str, at: int, written: bytes, dropped: int) -> bytes:
    content = _time_field(b"\x09", at) + text_field(b"\x12", name) + written
    return message(b"\x5a", content + number_field(b"\x20", dropped))


def _link(trace_id: str, span_id: int, remote: object, written: bytes, dropped: int) -> bytes:
    ids = message(b"\x0a", bytes.fromhex(trace_id)) + message(b"\x12", span_id.to_bytes(8, "big"))
    flags = b"\x35" + struct.pack("<I", 0x300 if remote else 0x100)
    return message(b"\x6a", ids + written + number_field(b"\x28", dropped) + flags)


def _newest(items: Sequence[Any], most: int | None, dropped: int) -> tuple[Sequence[Any], int]:
    """Return the newest ``most`` items, and how many were dropped in all."""
    if most is not None and len(items) > most:
        return items[len(items) - most :], dropped + len(items) - most
    return items, dropped
