"""OTLP/JSON, as the Collector's file exporter writes it, read into flat records of plain values.

Ids are lower-case hexadecimal, or None where the sender gave none. Times are nanoseconds since
1970.
"""

import base64
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

Json = dict[str, Any]
Record = TypeVar("Record")

_KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_STATUSES = ("UNSET", "OK", "ERROR")
_METRIC_KINDS = ("gauge", "sum", "histogram", "exponentialHistogram", "summary")


@dataclass(frozen=True, slots=True)
class SpanEvent:
    """Something that happened during a span."""

    name: str
    time_ns: int
    attributes: Json


@dataclass(frozen=True, slots=True)
class SpanLink:
    """A span that another one refers to."""

    trace_id: str | None
    span_id: str | None
    trace_state: str
    flags: int
    attributes: Json


@dataclass(frozen=True, slots=True)
class SpanRecord:
    """One span; kind and status carry the names of the SDK's enums (``INTERNAL``, ``ERROR``)."""

    trace_id: str | None
    span_id: str | None
    parent_span_id: str | None
    name: str
    kind: str
    start_ns: int
    end_ns: int
    status: str
    status_message: str
    attributes: Json
    dropped_attributes: int
    events: tuple[SpanEvent, ...]
    links: tuple[SpanLink, ...]
    flags: int
    trace_state: str
    resource: Json
    scope_name: str
    scope_version: str


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One log record."""

    event_name: str
    time_ns: int
    observed_ns: int
    severity_number: int
    severity_text: str
    body: Any
    attributes: Json
    dropped_attributes: int
    trace_id: str | None
    span_id: str | None
    flags: int
    resource: Json
    scope_name: str
    scope_version: str


@dataclass(frozen=True, slots=True)
class MetricRecord:
    """One data point of a metric; a histogram's ``value`` is its sum."""

    name: str
    kind: str
    unit: str
    description: str
    value: float | None
    count: int | None
    start_ns: int
    time_ns: int
    attributes: Json
    resource: Json
    scope_name: str
    scope_version: str


class _Origin(NamedTuple):
    resource: Json
    scope_name: str
    scope_version: str


class Reader(Generic[Record]):
    """The records of one signal: at each look, whole lines that were appended to the files."""

    def __init__(self, parse: Callable[[bytes], Iterator[Record]]) -> None:
        self._parse = parse
        self._records: list[Record] = []
        self._read_up_to: dict[Path, int] = {}

    def add_file(self, path: Path) -> None:
        """Read this file, too, which need not exist yet."""
        self._read_up_to[path] = 0

    def forget_files(self) -> None:
        """Read no file any more."""
        self._read_up_to.clear()

    def read(self) -> list[Record]:
        """All records so far."""
        for path, offset in self._read_up_to.items():
            if not path.exists():
                continue
            with path.open("rb") as file:
                file.seek(offset)
                lines = file.read().split(b"\n")
            lines.pop()  # what follows the last line end is not a whole line yet
            for line in lines:
                self._records.extend(self._parse(line))
                self._read_up_to[path] += len(line) + 1
        return list(self._records)


def spans(line: str | bytes) -> Iterator[SpanRecord]:
    """The spans of one line, in the order in which they were sent."""
    for span, origin in _walk(json.loads(line), "Spans", "spans"):
        status = span.get("status", {})
        yield SpanRecord(
            trace_id=span.get("traceId") or None,
            span_id=span.get("spanId") or None,
            parent_span_id=span.get("parentSpanId") or None,
            name=span.get("name", ""),
            kind=_KINDS[span.get("kind", 0)],
            start_ns=int(span.get("startTimeUnixNano", 0)),
            end_ns=int(span.get("endTimeUnixNano", 0)),
            status=_STATUSES[status.get("code", 0)],
            status_message=status.get("message", ""),
            attributes=attributes(span.get("attributes", ())),
            dropped_attributes=span.get("droppedAttributesCount", 0),
            events=tuple(_span_event(event) for event in span.get("events", ())),
            links=tuple(_span_link(link) for link in span.get("links", ())),
            flags=span.get("flags", 0),
            trace_state=span.get("traceState", ""),
            **origin._asdict(),
        )


def logs(line: str | bytes) -> Iterator[LogRecord]:
    """The log records of one line, in the order in which they were sent."""
    for log, origin in _walk(json.loads(line), "Logs", "logRecords"):
        yield LogRecord(
            event_name=log.get("eventName", ""),
            time_ns=int(log.get("timeUnixNano", 0)),
            observed_ns=int(log.get("observedTimeUnixNano", 0)),
            severity_number=log.get("severityNumber", 0),
            severity_text=log.get("severityText", ""),
            body=value(log.get("body", {})),
            attributes=attributes(log.get("attributes", ())),
            dropped_attributes=log.get("droppedAttributesCount", 0),
            trace_id=log.get("traceId") or None,
            span_id=log.get("spanId") or None,
            flags=log.get("flags", 0),
            **origin._asdict(),
        )


def metrics(line: str | bytes) -> Iterator[MetricRecord]:
    """The data points of one line, in the order in which they were sent."""
    for metric, origin in _walk(json.loads(line), "Metrics", "metrics"):
        kind = next((kind for kind in _METRIC_KINDS if kind in metric), "")
        for point in metric.get(kind, {}).get("dataPoints", ()):
            yield MetricRecord(
                name=metric.get("name", ""),
                kind=kind,
                unit=metric.get("unit", ""),
                description=metric.get("description", ""),
                value=_measured(point),
                count=int(point["count"]) if "count" in point else None,
                start_ns=int(point.get("startTimeUnixNano", 0)),
                time_ns=int(point.get("timeUnixNano", 0)),
                attributes=attributes(point.get("attributes", ())),
                **origin._asdict(),
            )


def attributes(pairs: Iterable[Json]) -> Json:
    """A list of key-value pairs as a dictionary; a key that comes twice is the sender's error."""
    decoded: Json = {}
    for pair in pairs:
        if pair["key"] in decoded:
            raise ValueError(f"the attribute {pair['key']} was sent twice")
        decoded[pair["key"]] = value(pair.get("value", {}))
    return decoded


def value(wrapped: Json) -> Any:
    """An OTLP AnyValue as a Python value; one that holds nothing is None."""
    match wrapped:
        case {"stringValue": plain} | {"boolValue": plain}:
            return plain
        case {"intValue": number}:
            return int(number)
        case {"doubleValue": number}:
            return float(number)  # "NaN" and "Infinity" come as strings
        case {"bytesValue": encoded}:
            return base64.b64decode(encoded)
        case {"arrayValue": array}:
            return [value(item) for item in array.get("values", ())]
        case {"kvlistValue": mapping}:
            return attributes(mapping.get("values", ()))
        case _ if not wrapped:
            return None
    raise ValueError(f"no value that OTLP knows: {wrapped}")


def _walk(message: Json, signal: str, items: str) -> Iterator[tuple[Json, _Origin]]:
    for sender in message.get(f"resource{signal}", ()):
        resource = attributes(sender.get("resource", {}).get("attributes", ()))
        for group in sender.get(f"scope{signal}", ()):
            scope = group.get("scope", {})
            origin = _Origin(resource, scope.get("name", ""), scope.get("version", ""))
            for item in group.get(items, ()):
                yield item, origin


def _span_event(event: Json) -> SpanEvent:
    return SpanEvent(
        name=event.get("name", ""),
        time_ns=int(event.get("timeUnixNano", 0)),
        attributes=attributes(event.get("attributes", ())),
    )


def _span_link(link: Json) -> SpanLink:
    return SpanLink(
        trace_id=link.get("traceId") or None,
        span_id=link.get("spanId") or None,
        trace_state=link.get("traceState", ""),
        flags=link.get("flags", 0),
        attributes=attributes(link.get("attributes", ())),
    )


def _measured(point: Json) -> float | None:
    if "asInt" in point:
        return int(point["asInt"])
    number = point.get("asDouble", point.get("sum"))
    return None if number is None else float(number)
