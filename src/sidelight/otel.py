"""`SpoolSpanProcessor`: the spans of an application's own TracerProvider, through the spool.

The thread that ends a span copies it, as it is, into one record; from that the relay puts the SDK's
span together again (`sdkspan`) and exports it. What the SDK keeps in a queue in memory, and
loses with the process, is then as durable as an event.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from sidelight.budget import SHIFT
from sidelight.emitter import emitter
from sidelight.points import disabled
from sidelight.runtime import runtime
from sidelight.sdkspan import SpanHead, moment_of, origin_of
from sidelight.settings import Settings

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
        self._costs = emitter.costs_of("sidelight:span")
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
            if runtime.settings is not self._settings:
                self._look()
            if self._is_off:
                emitter.count("OTLP is off: span not kept", _NO_ENDPOINT)
                return
            if not emitter.spans:
                emitter.count("spool nearly full: span left out", span.name)
                return
            scope, resource = span.instrumentation_scope, span.resource
            known = self._heads.get(id(scope))
            if known is None or known[0] is not scope or known[1] is not resource:
                known = self._meet(scope, resource)
            emitter.write(known[2], moment_of(span, context))
        except RecursionError:  # there is no room for a call either
            emitter.losses["recursion limit"] = emitter.losses.get("recursion limit", 0) + 1
        except Exception as error:  # noqa: BLE001  # the guard
            emitter.lost("span not copied", "SpoolSpanProcessor", error)
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
        return runtime.flush(timeout_millis / 1000, needed=_TRACES)

    def shutdown(self) -> None:
        """Export what a Collector that answers takes within five seconds.

        sidelight goes on, and so do spans that end later. At the end of the process nothing is
        waited for: sidelight's own end does that, within its bound.
        """
        if threading.main_thread().is_alive():
            runtime.flush(_PATIENCE, patient=False, needed=_TRACES)

    def _look(self) -> None:
        """See whether spans have anywhere to go; an external relay may know more than we do."""
        settings = self._settings = runtime.settings
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
            emitter.count("attributes too large", f"{left_out} of the resource of {origin.name}")
        known = self._heads[id(scope)] = (scope, resource, SpanHead(origin))
        return known
