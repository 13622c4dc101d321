"""The SDK's span as a record, and the record as the SDK's span again: equal in every byte exported.

For spans that another tracer has made and its provider's limits have been applied to. The light
span has its own way into a record; out of it, `sinks.telemetry` makes use of what is here.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util import BoundedList
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceState

from sidelight.emitter import Head
from sidelight.lightspan import LONGEST, w3c_flags
from sidelight.plain import plain, text
from sidelight.record import (
    CUT,
    MAX_PAYLOAD,
    RANDOM,
    REMOTE_PARENT,
    SAMPLED,
    SPAN,
    Moment,
    Origin,
    Static,
    encode,
    occurred_at,
    random_bits,
)

_AS_KNOWN: Final = {"_attributes", "_events", "_links"} <= vars(
    ReadableSpan("", resource=Resource({}))
).keys()
_KEPT: Final = SPAN | SAMPLED
_W3C_RANDOM: Final = 2
_INTERNAL: Final = SpanKind.INTERNAL
_UNSET: Final = StatusCode.UNSET
_LONGEST_NAME: Final = 1024
_LONGEST_STATUS: Final = 4096
_ROOM_FOR_ORIGIN: Final = 64 * 1024  # bytes of a record
_ROOM_FOR_REST: Final = 48 * 1024  # name, status, trace state and ids, at their longest
_DEEPEST: Final = 32

# -- into a record -------------------------------------------------------------------------------


def moment_of(span: ReadableSpan, context: SpanContext) -> tuple[Any, ...]:
    """A finished span as the fields of `record.Moment`."""
    start, end, parent = span.start_time, span.end_time, span.parent
    if type(start) is not int or type(end) is not int:
        start, end = int(start or 0), int(end or start or 0)
    flags = _KEPT | RANDOM if context.trace_flags & _W3C_RANDOM else _KEPT
    parent_id = 0
    if parent is not None:
        parent_id = parent.span_id
        if parent.is_remote:
            flags |= REMOTE_PARENT
    attributes, events, links = _contents(span)
    details: dict[str, Any] = {"name": span.name}
    if (kind := span.kind) is not _INTERNAL:
        details["kind"] = kind.value
    if (status := span.status).status_code is not _UNSET:
        details["status"] = [status.status_code.value, status.description]
    if state := context.trace_state:
        details["trace_state"] = state.to_header()
    if events:
        details["events"] = [
            [event.name, event.timestamp, _copy(event.attributes), event.dropped_attributes]
            for event in events
        ]
    if links:
        details["links"] = [_link(link) for link in links]
    if any(dropped := (span.dropped_attributes, span.dropped_events, span.dropped_links)):
        details["dropped"] = dropped
    return (
        start,
        random_bits(64),
        None,
        None,
        end - start,
        context.trace_id.to_bytes(16, "big"),
        context.span_id,
        parent_id,
        flags,
        _copy(attributes),
        details,
    )


def _contents(span: ReadableSpan) -> tuple[Any, Any, Any]:
    """Attributes, events and links; as the span has them, where it has them as we know it.

    Its properties copy at each look: to be asked for no events costs a span a microsecond.
    """
    if type(span) is ReadableSpan and _AS_KNOWN:
        return span._attributes, span._events, span._links  # noqa: SLF001
    return span.attributes, span.events, span.links


def _link(link: Link) -> list[Any]:
    to = link.context
    return [
        f"{to.trace_id:032x}",
        to.span_id,
        int(to.is_remote),
        _copy(link.attributes),
        link.dropped_attributes,
        to.trace_state.to_header() if to.trace_state else None,
    ]


def _copy(attributes: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Attributes as a dict. Nobody can change them any more, so that their values may stay."""
    try:
        return attributes.copy() or None  # type: ignore[union-attr]  # in one C call
    except AttributeError:  # there are none, or a stranger's mapping
        return dict(attributes) if attributes else None


class SpanHead(Head):
    """What the records of one tracer's spans have in common."""

    __slots__ = ()

    def __init__(self, origin: Origin) -> None:
        super().__init__(Static(None, origin.name, "scheduled", "emitted", "", origin))

    def robust(self, moment: tuple[Any, ...]) -> tuple[Any, ...]:
        """The same span, of values that can be encoded."""
        return (*moment[:9], _faithful(moment[9]), _faithful(moment[10]))

    def cut(self, moment: tuple[Any, ...]) -> tuple[Any, ...]:
        """The same span with long texts cut and, where that is not enough, the largest left out.

        What is left out is counted among what the span has dropped.
        """
        attributes, details = (_faithful(part, LONGEST) or {} for part in moment[9:])
        groups = [list(attributes.items()), details.pop("events", []), details.pop("links", [])]
        kept = _fitting(groups, MAX_PAYLOAD - self.size - _ROOM_FOR_REST)
        before = details.get("dropped", (0, 0, 0))
        details |= {
            "name": text(details["name"], _LONGEST_NAME),
            "events": kept[1],
            "links": kept[2],
            "dropped": [
                dropped + len(group) - len(part)
                for dropped, group, part in zip(before, groups, kept, strict=True)
            ],
        }
        if "status" in details:
            code, description = details["status"]
            details["status"] = [code, description and text(description, _LONGEST_STATUS)]
        return (*moment[:8], moment[8] | CUT, dict(kept[0]), details)


def origin_of(scope: InstrumentationScope | None, resource: Resource) -> tuple[Origin, int]:
    """A tracer's scope and resource, and how many attributes of these had no room."""
    groups = [
        list(_faithful(dict(each.attributes or {}), LONGEST).items()) if each else []
        for each in (scope, resource)
    ]
    kept = _fitting(groups, _ROOM_FOR_ORIGIN)
    name, version, schema_url = (
        (scope.name, scope.version, scope.schema_url) if scope else ("", None, None)
    )
    origin = Origin(
        name=text(name, _LONGEST_NAME),
        version=version and text(version, _LONGEST_NAME),
        schema_url=schema_url and text(schema_url, _LONGEST_NAME),
        attributes=dict(kept[0]),
        resource=dict(kept[1]),
        resource_schema_url=text(resource.schema_url, _LONGEST_NAME),
    )
    return origin, sum(map(len, groups)) - sum(map(len, kept))


def _fitting(groups: Sequence[list[Any]], room: int) -> list[list[Any]]:
    """Of each group what there is room for (bytes): the smallest first, in their old order."""
    sizes = sorted(
        (len(encode(item)), number, place)
        for number, group in enumerate(groups)
        for place, item in enumerate(group)
    )
    kept: list[set[int]] = [set() for _ in groups]
    for size, number, place in sizes:
        room -= size
        if room < 0:
            break
        kept[number].add(place)
    return [
        [item for place, item in enumerate(group) if place in places]
        for group, places in zip(groups, kept, strict=True)
    ]


def _faithful(value: Any, longest: int = sys.maxsize, depth: int = 0) -> Any:
    """A copy of a value as OTLP has it, whatever classes of their own it is made of.

    What OTLP has not (an int beyond 64 bits, a lone surrogate, an object) becomes text.

    Args:
        value: anything.
        longest: characters of one text; what is longer is cut.
        depth: how deep in another value it lies.
    """
    if value is None or type(value) in {bool, float, bytes}:
        return value
    if isinstance(value, str):
        return text(value, longest)
    if isinstance(value, float | bytes):
        return float(value) if isinstance(value, float) else bytes(value)
    if isinstance(value, Mapping | Sequence) and depth < _DEEPEST:
        if isinstance(value, Sequence):
            return [_faithful(item, longest, depth + 1) for item in value]
        pairs = ((text(str(key), longest), item) for key, item in value.items())
        return {key: _faithful(item, longest, depth + 1) for key, item in pairs}
    return plain(value)


# -- and out of it -------------------------------------------------------------------------------


def span_from(origin: Origin, moment: Moment, trace_id: bytes) -> ReadableSpan:
    """The span that was copied into a record."""
    details = moment.details or {}
    scope, resource = _whence(origin)
    context, parent = contexts_of(moment, trace_id)
    attributes = moment.attributes or {}
    if moment.flags & CUT:
        attributes = {**attributes, "sidelight.truncated": True}
    code, description = details.get("status", (_UNSET.value, None))
    lost_attributes, lost_events, lost_links = details.get("dropped", (0, 0, 0))
    events = [
        Event(name, _exact(given, lost), int(at))
        for name, at, given, lost in details.get("events", ())
    ]
    links = [
        Link(
            context_of(bytes.fromhex(linked), span_id, 0, _state(state), remote=bool(remote)),
            _exact(given, lost),
        )
        for linked, span_id, remote, given, lost, state in details.get("links", ())
    ]
    return ReadableSpan(
        name=details["name"],
        context=context,
        parent=parent,
        resource=resource,
        attributes=_exact(attributes, lost_attributes),
        events=but_for(events, lost_events),
        links=but_for(links, lost_links),
        kind=SpanKind(details.get("kind", _INTERNAL.value)),
        status=Status(StatusCode(code), description),
        start_time=moment.time,
        end_time=occurred_at(moment),
        instrumentation_scope=scope,
    )


@functools.lru_cache(maxsize=1000)
def _whence(origin: Origin) -> tuple[InstrumentationScope, Resource]:
    """One scope for all spans of a tracer, one resource for all of a provider.

    The exporter groups spans by them, and compares only what is not the same object.
    """
    scope = InstrumentationScope(origin.name, origin.version, origin.schema_url, origin.attributes)
    return scope, _resource(encode((origin.resource, origin.resource_schema_url)))


@functools.lru_cache(maxsize=1000)
def _resource(encoded: bytes) -> Resource:
    return Resource(*msgspec.msgpack.decode(encoded))


def contexts_of(moment: Moment, trace_id: bytes) -> tuple[SpanContext, SpanContext | None]:
    """The contexts of a span and of its parent, if it has one."""
    state = _state((moment.details or {}).get("trace_state"))
    parent = None
    if moment.parent_id:
        remote = bool(moment.flags & REMOTE_PARENT)
        parent = context_of(trace_id, moment.parent_id, moment.flags, state, remote=remote)
    return context_of(trace_id, moment.span_id, moment.flags, state, remote=False), parent


def context_of(
    trace_id: bytes, span_id: int, flags: int, state: TraceState | None, *, remote: bool
) -> SpanContext:
    """A span's context, from a record's ids and flags."""
    return SpanContext(
        trace_id=int.from_bytes(trace_id, "big"),
        span_id=span_id,
        is_remote=remote,
        trace_flags=w3c_flags(flags),
        trace_state=state,
    )


def _state(header: str | None) -> TraceState | None:
    return None if header is None else TraceState.from_header([header])


def _exact(attributes: Mapping[str, Any] | None, dropped: int) -> Mapping[str, Any]:
    """Attributes as they are, but for ints that OTLP has not: the encoder would drop their key."""
    return attributes_but_for(
        {key: _fitted(value) for key, value in (attributes or {}).items()}, dropped
    )


def _fitted(value: Any) -> Any:
    if type(value) is int:
        return value if -(1 << 63) <= value < 1 << 63 else str(value)
    if type(value) is list:
        return [_fitted(item) for item in value]
    if type(value) is dict:
        return {key: _fitted(item) for key, item in value.items()}
    return value


def attributes_but_for(attributes: dict[str, Any], dropped: int) -> Mapping[str, Any]:
    """Attributes that say how many of them were dropped."""
    if not dropped:
        return attributes
    told = BoundedAttributes(attributes=attributes)
    told.dropped = dropped
    return told


def but_for(items: list[Any], dropped: int) -> Sequence[Any]:
    """Events or links that say how many of them were dropped."""
    if not dropped:
        return items
    told = BoundedList.from_seq(None, items)
    told.dropped = dropped
    return told
