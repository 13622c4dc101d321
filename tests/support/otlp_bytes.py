"""Read the relay's exports with the generated protobuf messages; let the SDK make the same span."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ScopeLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator

from sidelight.otlp.logs import log_encoder
from sidelight.otlp.requests import encode_request
from sidelight.otlp.spans import span_encoder
from sidelight.otlp.wire import Attributes, message
from sidelight.record.format import Moment, Static
from sidelight.record.limits import DEFAULT_LIMITS, Limits
from sidelight.version import __version__

Record = tuple[Static, Moment]
DESCRIBED = {"service.name": "equal", "process.pid": 1}
RESOURCE = Resource(DESCRIBED)


class _Same(IdGenerator):
    """The ids of a record."""

    def __init__(self, moment: Moment) -> None:
        self._moment = moment

    def generate_span_id(self) -> int:
        return self._moment.span_id

    def generate_trace_id(self) -> int:
        return int.from_bytes(self._moment.trace or b"", "big")

    def is_trace_id_random(self) -> bool:
        return True


def by_the_sdk(
    act: Callable[[trace.Span], object],
    record: Record,
    parent: trace.Span = trace.INVALID_SPAN,
    limits: SpanLimits | None = None,
) -> ExportTraceServiceRequest:
    """The request that the SDK makes of the same call, with the ids and times of its record."""
    static, moment = record
    exporter = InMemorySpanExporter()
    provider = TracerProvider(
        resource=RESOURCE, id_generator=_Same(moment), shutdown_on_exit=False, span_limits=limits
    )
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with trace.use_span(parent):
        span = provider.get_tracer("sidelight", __version__).start_span(
            static.span_name or "",
            attributes={"code.function.name": static.point.replace(":", ".")},
            start_time=moment.time,
        )
    act(span)
    span.end(moment.time + (moment.duration or 0))
    return encode_spans(exporter.get_finished_spans())


def span_in(record: Record, limits: Limits = DEFAULT_LIMITS) -> Span | None:
    """The span that a record holds."""
    encoded = span_encoder(limits)(*record)
    return None if encoded is None else ScopeSpans.FromString(encoded).spans[0]


def log_in(record: Record, limits: Limits = DEFAULT_LIMITS, observed: int = 0) -> LogRecord | None:
    """The event that a record holds."""
    encoded = log_encoder(limits, observed)(*record)
    return None if encoded is None else ScopeLogs.FromString(encoded).log_records[0]


def spans_request(
    records: Iterable[Record], resource: Mapping[str, Any], limits: Limits = DEFAULT_LIMITS
) -> ExportTraceServiceRequest:
    """The request with the spans of records, whose writer has the resource."""
    items = [(record[0].origin, span_encoder(limits)(*record)) for record in records]
    written = encode_request([i for i in items if i[1] is not None], _resource(resource))
    return ExportTraceServiceRequest.FromString(written)


def logs_request(
    records: Iterable[Record],
    resource: Mapping[str, Any],
    limits: Limits = DEFAULT_LIMITS,
    observed: int = 0,
) -> ExportLogsServiceRequest:
    """The request with the events of records, whose writer has the resource."""
    items = [(record[0].origin, log_encoder(limits, observed)(*record)) for record in records]
    written = encode_request([i for i in items if i[1] is not None], _resource(resource))
    return ExportLogsServiceRequest.FromString(written)


def _resource(described: Mapping[str, Any]) -> bytes:
    return message(b"\x0a", Attributes(b"\x0a").of(described))


def values(pairs: Iterable[Any]) -> dict[str, Any]:
    """Attributes as a mapping."""
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(given: Any) -> Any:
    kind = given.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in given.array_value.values]
    if kind == "kvlist_value":
        return values(given.kvlist_value.values)
    return None if kind is None else getattr(given, kind)


def numbers_in(request: bytes) -> list[int]:
    """The attribute ``n`` of each span or log record of a request of either signal."""
    try:
        spans = ExportTraceServiceRequest.FromString(request).resource_spans
        items: Iterator[Any] = (
            i for group in spans for scope in group.scope_spans for i in scope.spans
        )
    except DecodeError:
        logs = ExportLogsServiceRequest.FromString(request).resource_logs
        items = (i for group in logs for scope in group.scope_logs for i in scope.log_records)
    return [values(item.attributes)["n"] for item in items]
