"""`SpoolSpanProcessor`: writes the spans of an application's own TracerProvider to the spool.

The thread that ends a span copies the span into one record. The relay rebuilds the SDK's span from
the record and exports it. The SDK keeps ended spans in memory and loses them with the process;
here a span is as durable as an event.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode

from sidelight.emission import EMITTER, Head
from sidelight.host import log_warning, perf_counter_ns
from sidelight.record import (
    CUT,
    MAX_PAYLOAD,
    MAX_SPAN_TEXT,
    RANDOM,
    REMOTE_PARENT,
    SAMPLED,
    SHIFT,
    SPAN,
    Moment,
    MomentTuple,
    Origin,
    Static,
    encode,
    plain,
    random_bits,
    replaced,
    text,
)
from sidelight.runtime import RUNTIME
from sidelight.settings import Settings, disabled

_W3C_SAMPLED: Final = 1
_W3C_RANDOM: Final = 2
_KEPT: Final = SPAN | SAMPLED
_INTERNAL: Final = SpanKind.INTERNAL
_UNSET: Final = StatusCode.UNSET
_MAX_HEADS: Final = 1000  # tracers whose heads are kept
_MAX_NAME: Final = 1024
_MAX_STATUS: Final = 4096
_MAX_DEPTH: Final = 32
_ROOM_FOR_ORIGIN: Final = 64 * 1024  # bytes of a record
_ROOM_FOR_REST: Final = 48 * 1024  # bytes: name, status, trace state and ids, at their longest
_SHUTDOWN_WITHIN: Final = 5.0  # s; how long `shutdown` waits for a Collector that answers
_TRACES: Final = ("traces",)
_NO_ENDPOINT: Final = (
    "set OTEL_EXPORTER_OTLP_ENDPOINT or call sidelight.configure(otlp=…) before there are spans"
)
#: Whether the SDK keeps the contents of a span in these private fields. Its properties copy at each
#: access: asking a span for its events costs a microsecond even where it has none.
_HAS_PRIVATE_FIELDS: Final = {"_attributes", "_events", "_links"} <= vars(
    ReadableSpan("", resource=Resource({}))
).keys()
_clock: Final = perf_counter_ns


class SpoolSpanProcessor(SpanProcessor):
    """A span processor that writes ended spans to the spool.

    ::

        provider.add_span_processor(SpoolSpanProcessor())

    It replaces a `BatchSpanProcessor` with an OTLP exporter; with both, each span is exported
    twice. Spans are exported to sidelight's endpoint, unchanged: with the resource, scope and
    limits of their provider. No method raises, and only `force_flush` and `shutdown` wait.
    """

    def __init__(self) -> None:
        """Make the processor, and warn where sidelight is configured to export no spans.

        With ``SIDELIGHT_DISABLED`` the processor does nothing.
        """
        self._heads: dict[int, tuple[InstrumentationScope | None, Resource, SpanHead]] = {}
        self._costs = EMITTER.costs_of("sidelight:span")
        self._settings: Settings | None = None
        self._is_off = False
        self._is_disabled = disabled()
        self._check_export()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Do nothing, because a span is copied when it ends."""

    def on_end(self, span: ReadableSpan) -> None:
        """Copy a sampled span into the spool, and count errors."""
        if self._is_disabled:
            return
        begun = _clock()
        try:
            context = span.context
            if context is None or not context.trace_flags & _W3C_SAMPLED:
                return
            if RUNTIME.settings is not self._settings:
                self._check_export()
            if self._is_off:
                EMITTER.count("OTLP is off: span not kept", _NO_ENDPOINT)
                return
            if not EMITTER.spans:
                EMITTER.count("spool nearly full: span left out", span.name)
                return
            scope, resource = span.instrumentation_scope, span.resource
            known = self._heads.get(id(scope))
            if known is None or known[0] is not scope or known[1] is not resource:
                known = self._add_head(scope, resource)
            EMITTER.write(known[2], moment_of(span, context))
        except RecursionError:  # without a call, for which the stack has no room
            EMITTER.losses["recursion limit"] += 1
        except Exception as error:  # noqa: BLE001  # the guard
            EMITTER.lost("span not copied", "SpoolSpanProcessor", error)
        cost = _clock() - begun
        try:
            self._costs.fine[cost >> SHIFT] += 1
        except IndexError:
            self._costs.add(cost)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Wait until the ended spans are exported.

        Args:
            timeout_millis: the longest time to wait (ms), also while the Collector is down.

        Returns:
            Whether all are exported. The others stay in the spool and are exported later. With
            ``relay="external"`` this process cannot know, and the answer is False. So it is where
            the export of spans is off, or cannot start.
        """
        return RUNTIME.flush(timeout_millis / 1000, needed=_TRACES)

    def shutdown(self) -> None:
        """Wait for the export, at most five seconds and only while the Collector answers.

        Later spans are still copied. At the end of the process nothing is waited for here, because
        sidelight itself waits there, within its own bound.
        """
        if threading.main_thread().is_alive():
            RUNTIME.flush(_SHUTDOWN_WITHIN, patient=False, needed=_TRACES)

    def _check_export(self) -> None:
        """Note whether spans are exported; with an external relay, assume that they are."""
        settings = self._settings = RUNTIME.settings
        self._is_off = (
            settings is not None and settings.relay == "thread" and not settings.otlp_traces
        )
        if self._is_off and not self._is_disabled:
            log_warning("sidelight: spans are neither kept nor exported: %s", _NO_ENDPOINT)

    def _add_head(
        self, scope: InstrumentationScope | None, resource: Resource
    ) -> tuple[InstrumentationScope | None, Resource, SpanHead]:
        """Encode the head for the spans of one tracer; after a fork the resource is a new one."""
        if len(self._heads) >= _MAX_HEADS:
            self._heads.clear()
        origin, left_out = origin_of(scope, resource)
        if left_out:
            EMITTER.count("attributes too large", f"{left_out} of the resource of {origin.name}")
        known = self._heads[id(scope)] = (scope, resource, SpanHead(origin))
        return known


def moment_of(span: ReadableSpan, context: SpanContext) -> MomentTuple:
    """Copy an ended span into a moment: the fields of `record.Moment`, in their order."""
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
    """Read attributes, events and links of a span, if possible without copies."""
    if type(span) is ReadableSpan and _HAS_PRIVATE_FIELDS:
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
    """Copy attributes into a dict; the values need no copy, because an ended span is immutable."""
    try:
        return attributes.copy() or None  # type: ignore[union-attr]  # in one C call
    except AttributeError:  # None, or a foreign mapping
        return dict(attributes) if attributes else None


class SpanHead(Head):
    """The static part of the records of one tracer's spans."""

    __slots__ = ()

    def __init__(self, origin: Origin) -> None:
        super().__init__(Static(None, origin.name, "scheduled", "emitted", "", origin))

    def made_plain(self, moment: MomentTuple) -> MomentTuple:
        """Copy the moment of a span, with values that OTLP can carry."""
        fields = Moment(*moment)
        return replaced(
            moment, attributes=_otlp_value(fields.attributes), details=_otlp_value(fields.details)
        )

    def cut(self, moment: MomentTuple) -> MomentTuple:
        """Copy the moment of a span that is too large, with long texts cut.

        Where that is not enough, the largest attributes, events and links are left out. They are
        added to the span's own counts of dropped items.
        """
        fields = Moment(*moment)
        attributes = _otlp_value(fields.attributes, MAX_SPAN_TEXT) or {}
        details = _otlp_value(fields.details, MAX_SPAN_TEXT) or {}
        groups = [list(attributes.items()), details.pop("events", []), details.pop("links", [])]
        kept = _fitting(groups, MAX_PAYLOAD - self.size - _ROOM_FOR_REST)
        before = details.get("dropped", (0, 0, 0))
        details |= {
            "name": text(details["name"], _MAX_NAME),
            "events": kept[1],
            "links": kept[2],
            "dropped": [
                dropped + len(group) - len(part)
                for dropped, group, part in zip(before, groups, kept, strict=True)
            ],
        }
        if "status" in details:
            code, description = details["status"]
            details["status"] = [code, description and text(description, _MAX_STATUS)]
        return replaced(moment, flags=fields.flags | CUT, attributes=dict(kept[0]), details=details)


def origin_of(scope: InstrumentationScope | None, resource: Resource) -> tuple[Origin, int]:
    """Read a tracer's scope and resource, and count the attributes that had no room."""
    groups = [
        list(_otlp_value(dict(each.attributes or {}), MAX_SPAN_TEXT).items()) if each else []
        for each in (scope, resource)
    ]
    kept = _fitting(groups, _ROOM_FOR_ORIGIN)
    name, version, schema_url = (
        (scope.name, scope.version, scope.schema_url) if scope else ("", None, None)
    )
    origin = Origin(
        name=text(name, _MAX_NAME),
        version=version and text(version, _MAX_NAME),
        schema_url=schema_url and text(schema_url, _MAX_NAME),
        attributes=dict(kept[0]),
        resource=dict(kept[1]),
        resource_schema_url=text(resource.schema_url, _MAX_NAME),
    )
    return origin, sum(map(len, groups)) - sum(map(len, kept))


def _fitting(groups: Sequence[list[Any]], room: int) -> list[list[Any]]:
    """Select the smallest items of all groups that fit into ``room`` bytes, in their order."""
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


def _otlp_value(value: Any, longest: int = sys.maxsize, depth: int = 0) -> Any:
    """Copy a value into OTLP's types; subclasses become the built-in class.

    A value without an OTLP type (an int beyond 64 bits, a lone surrogate, an object) becomes text.

    Args:
        value: anything.
        longest: characters of one text; a longer text is cut.
        depth: levels of containers around the value.
    """
    kind = type(value)  # compared by identity, because a metaclass may define `__hash__`
    if value is None or kind is bool or kind is float or kind is bytes:
        return value
    if isinstance(value, str):
        return text(value, longest)
    if isinstance(value, float | bytes):
        return float(value) if isinstance(value, float) else bytes(value)
    if isinstance(value, Mapping | Sequence) and depth < _MAX_DEPTH:
        if isinstance(value, Sequence):
            return [_otlp_value(item, longest, depth + 1) for item in value]
        pairs = ((text(str(key), longest), item) for key, item in value.items())
        return {key: _otlp_value(item, longest, depth + 1) for key, item in pairs}
    return plain(value)
