"""Restore a span of the application's own tracer from its record, equal in every exported byte.

`SpoolSpanProcessor` has copied the span into the record, after its provider's limits were applied.
`conversion` restores light spans, and uses the contexts and counts of dropped items from here.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util import BoundedList
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceState

from sidelight.record import CUT, REMOTE_PARENT, Moment, Origin, encode, occurred_at, w3c_flags

_INTERNAL: Final = SpanKind.INTERNAL
_UNSET: Final = StatusCode.UNSET


def span_from(origin: Origin, moment: Moment, trace_id: bytes) -> ReadableSpan:
    """Restore the span that was copied into a record."""
    details = moment.details or {}
    scope, resource = _scope_and_resource(origin)
    context, parent = contexts_of(moment, trace_id)
    attributes = moment.attributes or {}
    if moment.flags & CUT:
        attributes = {**attributes, "sidelight.truncated": True}
    code, description = details.get("status", (_UNSET.value, None))
    lost_attributes, lost_events, lost_links = details.get("dropped", (0, 0, 0))
    events = [
        Event(name, _otlp_attributes(given, lost), int(at))
        for name, at, given, lost in details.get("events", ())
    ]
    links = [
        Link(
            context_of(bytes.fromhex(linked), span_id, 0, _state(state), remote=bool(remote)),
            _otlp_attributes(given, lost),
        )
        for linked, span_id, remote, given, lost, state in details.get("links", ())
    ]
    return ReadableSpan(
        name=details["name"],
        context=context,
        parent=parent,
        resource=resource,
        attributes=_otlp_attributes(attributes, lost_attributes),
        events=items_with_dropped(events, lost_events),
        links=items_with_dropped(links, lost_links),
        kind=SpanKind(details.get("kind", _INTERNAL.value)),
        status=Status(StatusCode(code), description),
        start_time=moment.time,
        end_time=occurred_at(moment),
        instrumentation_scope=scope,
    )


@functools.lru_cache(maxsize=1000)
def _scope_and_resource(origin: Origin) -> tuple[InstrumentationScope, Resource]:
    """Return the same scope for all spans of a tracer, the same resource for all of a provider.

    The encoder groups spans by scope and resource, and compares objects that are not identical.
    """
    scope = InstrumentationScope(origin.name, origin.version, origin.schema_url, origin.attributes)
    return scope, _resource(encode((origin.resource, origin.resource_schema_url)))


@functools.lru_cache(maxsize=1000)
def _resource(encoded: bytes) -> Resource:
    return Resource(*msgspec.msgpack.decode(encoded))


def contexts_of(moment: Moment, trace_id: bytes) -> tuple[SpanContext, SpanContext | None]:
    """The contexts of a span and of its parent; None for a root span's parent."""
    state = _state((moment.details or {}).get("trace_state"))
    parent = None
    if moment.parent_id:
        remote = bool(moment.flags & REMOTE_PARENT)
        parent = context_of(trace_id, moment.parent_id, moment.flags, state, remote=remote)
    return context_of(trace_id, moment.span_id, moment.flags, state, remote=False), parent


def context_of(
    trace_id: bytes, span_id: int, flags: int, state: TraceState | None, *, remote: bool
) -> SpanContext:
    """Make a span's context from a record's ids and flags."""
    return SpanContext(
        trace_id=int.from_bytes(trace_id, "big"),
        span_id=span_id,
        is_remote=remote,
        trace_flags=w3c_flags(flags),
        trace_state=state,
    )


def _state(header: str | None) -> TraceState | None:
    return None if header is None else TraceState.from_header([header])


def _otlp_attributes(attributes: Mapping[str, Any] | None, dropped: int) -> Mapping[str, Any]:
    """Make integers beyond 64 bits text, because the encoder drops their attribute."""
    return attributes_with_dropped(
        {key: _otlp_value(value) for key, value in (attributes or {}).items()}, dropped
    )


def _otlp_value(value: Any) -> Any:
    if type(value) is int:
        return value if -(1 << 63) <= value < 1 << 63 else str(value)
    if type(value) is list:
        return [_otlp_value(item) for item in value]
    if type(value) is dict:
        return {key: _otlp_value(item) for key, item in value.items()}
    return value


def attributes_with_dropped(attributes: dict[str, Any], dropped: int) -> Mapping[str, Any]:
    """Attributes with the number of those that were dropped."""
    if not dropped:
        return attributes
    bounded = BoundedAttributes(attributes=attributes)
    bounded.dropped = dropped
    return bounded


def items_with_dropped(items: list[Any], dropped: int) -> Sequence[Any]:
    """Events or links with the number of those that were dropped."""
    if not dropped:
        return items
    bounded = BoundedList.from_seq(None, items)
    bounded.dropped = dropped
    return bounded
