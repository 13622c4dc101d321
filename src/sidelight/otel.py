"""`SpoolSpanProcessor`: the spans of an application's own TracerProvider, through the spool.

The thread that ends a span copies it, as it is, into one record; from that the relay puts the SDK's
span together again (`sdkspan`) and exports it. What the SDK keeps in a queue in memory, and
loses with the process, is then as durable as an event.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode

from sidelight.emission import EMITTER, Head
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

_SAMPLED: Final = 1  # the W3C flag
_HEADS: Final = 1000  # tracers whose heads are kept
_PATIENCE: Final = 5.0  # seconds that `shutdown` waits for a Collector that answers
_TRACES: Final = ("traces",)
_NO_ENDPOINT: Final = (
    "set OTEL_EXPORTER_OTLP_ENDPOINT or call sidelight.configure(otlp=…) before there are spans"
)
_clock: Final = time.perf_counter_ns
_logger: Final = logging.getLogger("sidelight")


class SpoolSpanProcessor(SpanProcessor):
    """Add it to a TracerProvider, and no span that has ended is lost with the process.

    ::

        provider.add_span_processor(SpoolSpanProcessor())

    It takes the place of a `BatchSpanProcessor` with an OTLP exporter; with both, each span is
    exported twice. Spans go to where sidelight's own go, as they are: with their provider's
    resource, scope and limits. Nothing here raises, and nothing but `force_flush` and `shutdown`
    waits.
    """

    def __init__(self) -> None:
        """Nothing is opened yet. Warns where sidelight has been told to export no spans.

        Where ``SIDELIGHT_DISABLED`` is set it does nothing at all.
        """
        self._heads: dict[int, tuple[InstrumentationScope | None, Resource, SpanHead]] = {}
        self._costs = EMITTER.costs_of("sidelight:span")
        self._settings: Settings | None = None
        self._is_off = False
        self._is_disabled = disabled()
        self._look()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing to do: a span is copied when it has ended."""

    def on_end(self, span: ReadableSpan) -> None:
        """Copy a sampled span into the spool. What goes wrong is counted."""
        if self._is_disabled:
            return
        begun = _clock()
        try:
            context = span.context
            if context is None or not context.trace_flags & _SAMPLED:
                return
            if RUNTIME.settings is not self._settings:
                self._look()
            if self._is_off:
                EMITTER.count("OTLP is off: span not kept", _NO_ENDPOINT)
                return
            if not EMITTER.spans:
                EMITTER.count("spool nearly full: span left out", span.name)
                return
            scope, resource = span.instrumentation_scope, span.resource
            known = self._heads.get(id(scope))
            if known is None or known[0] is not scope or known[1] is not resource:
                known = self._meet(scope, resource)
            EMITTER.write(known[2], moment_of(span, context))
        except RecursionError:  # there is no room for a call either
            EMITTER.losses["recursion limit"] = EMITTER.losses.get("recursion limit", 0) + 1
        except Exception as error:  # noqa: BLE001  # the guard
            EMITTER.lost("span not copied", "SpoolSpanProcessor", error)
        cost = _clock() - begun
        try:
            self._costs.fine[cost >> SHIFT] += 1
        except IndexError:
            self._costs.add(cost)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Wait until the spans that have ended are exported.

        Args:
            timeout_millis: the longest to wait, for a Collector that is down as well.

        Returns:
            Whether they are. What is not stays in the spool and is exported later. With
            ``relay="external"`` only `sidelight relay` knows: False.
        """
        return RUNTIME.flush(timeout_millis / 1000, needed=_TRACES)

    def shutdown(self) -> None:
        """Export what a Collector that answers takes within five seconds.

        sidelight goes on, and so do spans that end later. At the end of the process nothing is
        waited for: sidelight's own end does that, within its bound.
        """
        if threading.main_thread().is_alive():
            RUNTIME.flush(_PATIENCE, patient=False, needed=_TRACES)

    def _look(self) -> None:
        """See whether spans have anywhere to go; an external relay may know more than we do."""
        settings = self._settings = RUNTIME.settings
        self._is_off = (
            settings is not None and settings.relay == "thread" and not settings.otlp_traces
        )
        if self._is_off and not self._is_disabled:
            _logger.warning("sidelight exports no spans, and keeps none: %s", _NO_ENDPOINT)

    def _meet(
        self, scope: InstrumentationScope | None, resource: Resource
    ) -> tuple[InstrumentationScope | None, Resource, SpanHead]:
        """Encode what all spans of one tracer have in common; after a fork its resource is new."""
        if len(self._heads) >= _HEADS:
            self._heads.clear()
        origin, left_out = origin_of(scope, resource)
        if left_out:
            EMITTER.count("attributes too large", f"{left_out} of the resource of {origin.name}")
        known = self._heads[id(scope)] = (scope, resource, SpanHead(origin))
        return known


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


def moment_of(span: ReadableSpan, context: SpanContext) -> MomentTuple:
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

    def made_plain(self, moment: MomentTuple) -> MomentTuple:
        """Copy the moment of a span, with values that OTLP can carry."""
        fields = Moment(*moment)
        return replaced(
            moment, attributes=_faithful(fields.attributes), details=_faithful(fields.details)
        )

    def cut(self, moment: MomentTuple) -> MomentTuple:
        """The same span with long texts cut and, where that is not enough, the largest left out.

        What is left out is counted among what the span has dropped.
        """
        fields = Moment(*moment)
        attributes = _faithful(fields.attributes, MAX_SPAN_TEXT) or {}
        details = _faithful(fields.details, MAX_SPAN_TEXT) or {}
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
        return replaced(moment, flags=fields.flags | CUT, attributes=dict(kept[0]), details=details)


def origin_of(scope: InstrumentationScope | None, resource: Resource) -> tuple[Origin, int]:
    """A tracer's scope and resource, and how many attributes of these had no room."""
    groups = [
        list(_faithful(dict(each.attributes or {}), MAX_SPAN_TEXT).items()) if each else []
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
