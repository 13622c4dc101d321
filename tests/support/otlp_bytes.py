"""Read the relay's exports of records with the generated protobuf messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ScopeLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span

from sidelight.otlp.logs import encode_log
from sidelight.otlp.requests import encode_request
from sidelight.otlp.spans import encode_span
from sidelight.otlp.wire import Attributes, message
from sidelight.record.format import Moment, Static
from sidelight.record.limits import DEFAULT_LIMITS, Limits

Record = tuple[Static, Moment]


def span_in(record: Record, limits: Limits = DEFAULT_LIMITS) -> Span | None:
    """The span that a record holds."""
    encoded = encode_span(*record, limits)
    return None if encoded is None else ScopeSpans.FromString(encoded).spans[0]


def log_in(record: Record, limits: Limits = DEFAULT_LIMITS, observed: int = 0) -> LogRecord | None:
    """The event that a record holds."""
    encoded = encode_log(*record, limits, observed)
    return None if encoded is None else ScopeLogs.FromString(encoded).log_records[0]


def spans_request(
    records: Iterable[Record], resource: Mapping[str, Any], limits: Limits = DEFAULT_LIMITS
) -> ExportTraceServiceRequest:
    """The request with the spans of records, whose writer has the resource."""
    items = [(record[0].origin, encode_span(*record, limits)) for record in records]
    written = encode_request([i for i in items if i[1] is not None], _resource(resource))
    return ExportTraceServiceRequest.FromString(written)


def logs_request(
    records: Iterable[Record],
    resource: Mapping[str, Any],
    limits: Limits = DEFAULT_LIMITS,
    observed: int = 0,
) -> ExportLogsServiceRequest:
    """The request with the events of records, whose writer has the resource."""
    items = [(record[0].origin, encode_log(*record, limits, observed)) for record in records]
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
