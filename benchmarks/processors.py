"""Spans of an application's own provider: the SDK's batch processor beside sidelight's."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

import sidelight
from benchmarks.houses import Subjects
from benchmarks.peers import before, discarding_processor, inside
from sidelight.otel import SpoolSpanProcessor

BATCH: Final = "end of an SDK span: BatchSpanProcessor"
SPOOL: Final = "end of an SDK span: SpoolSpanProcessor"
WHOLE_BATCH: Final = "SDK span, two attributes: BatchSpanProcessor"
WHOLE_SPOOL: Final = "SDK span, two attributes: SpoolSpanProcessor"


class _Keep(SpanProcessor):
    """Keeps the last span that has ended."""

    def on_end(self, span: ReadableSpan) -> None:
        self.span = span


def processors(directory: Path) -> Iterator[Subjects]:
    """The work of a processor at the end of a span, alone and within the life of the span.

    The relay is elsewhere, and the batch processor keeps nothing: only the caller's part is
    measured of both.
    """
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)  # its queue overflows; it says so
    sidelight.configure(f"sqlite:///{directory / 'events.db'}", relay="external", otlp=False)
    batch, spool, keep = discarding_processor(), SpoolSpanProcessor(), _Keep()

    def spans(processor: SpanProcessor) -> Any:
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(processor)
        tracer = provider.get_tracer("benchmarks", "1.0")

        def span(artifact: str, organization: str) -> Any:
            attributes = {"artifact_id": artifact, "organization_id": organization}
            return tracer.start_as_current_span("work", attributes=attributes)

        return span

    with spans(keep)("artifact-0001", "organization-7"):
        pass
    yield {
        BATCH: before(lambda *_: batch.on_end(keep.span)),
        SPOOL: before(lambda *_: spool.on_end(keep.span)),
        WHOLE_BATCH: inside(spans(batch)),
        WHOLE_SPOOL: inside(spans(spool)),
    }
    batch.shutdown()
