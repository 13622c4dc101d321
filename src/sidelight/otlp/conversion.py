"""Convert records into the SDK's spans and log records.

The result equals what the SDK makes of the same calls, with its limits and its counts of dropped
items. (`Limits` are those of the process that wrote the record.) A span of another tracer is
restored as that tracer made it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context.context import Context
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.sdk.version import __version__ as sdk_version
from opentelemetry.trace import Link, NonRecordingSpan, Status, StatusCode

from sidelight.otlp.sdk_spans import (
    attributes_with_dropped,
    context_of,
    contexts_of,
    items_with_dropped,
    span_from,
)
from sidelight.record import (
    ARTIFACT_KEY,
    CUT,
    DEFAULT_LIMITS,
    ORGANIZATION_KEY,
    SPAN,
    Limits,
    Moment,
    Static,
    event_id,
    exception_attributes,
    occurred_at,
    status_description,
    to_json,
)
from sidelight.version import __version__

_SCOPE: Final = InstrumentationScope("sidelight", __version__)


def resource_of(writer: Mapping[str, Any]) -> Resource:
    """The resource of the process that wrote a segment."""
    return Resource(
        {
            "telemetry.sdk.language": "python",
            "telemetry.sdk.name": "opentelemetry",
            "telemetry.sdk.version": sdk_version,
            "telemetry.distro.name": "sidelight",
            "telemetry.distro.version": __version__,
            **writer.get("resource", {}),
        }
    )


def span_of(
    static: Static, moment: Moment, resource: Resource, limits: Limits = DEFAULT_LIMITS
) -> ReadableSpan | None:
    """The span that a record holds; None if it holds none."""
    if not moment.flags & SPAN or moment.trace is None or static.span_name is None:
        return None
    if static.origin is not None:
        return span_from(static.origin, moment, moment.trace)
    details = moment.details or {}
    dropped = details.get("dropped", (0, 0, 0))
    context, parent = contexts_of(moment, moment.trace)
    attributes = {
        "code.function.name": static.point.replace(":", "."),
        **_identity(moment),
        **(moment.attributes or {}),
        **details.get("attributes", {}),
    }
    events = [
        Event(name, _bounded(given, limits.event_attributes, limits.length), at)
        for name, at, given in details.get("events", ())
    ]
    status = Status(StatusCode.ERROR) if static.outcome == "failed" else Status(StatusCode.UNSET)
    if error := details.get("error"):
        attributes["error.type"] = error[0]
        given = _bounded(exception_attributes(error), limits.event_attributes, limits.length)
        events.append(Event("exception", given, occurred_at(moment)))
        status = Status(StatusCode.ERROR, status_description(error))
    if "status" in details:
        code, description = details["status"]
        status = Status(StatusCode(code), description)
    links = [
        Link(
            context_of(bytes.fromhex(linked), span_id, 0, None, remote=bool(remote)),
            _bounded(given, limits.link_attributes, limits.length),
        )
        for linked, span_id, remote, given in details.get("links", ())
    ]
    return ReadableSpan(
        name=details.get("name", static.span_name),
        context=context,
        parent=parent,
        resource=resource,
        attributes=_bounded(attributes, limits.attributes, limits.span_length, dropped[0]),
        events=_newest(events, limits.events, dropped[1]),
        links=_newest(links, limits.links, dropped[2]),
        status=status,
        start_time=moment.time,
        end_time=occurred_at(moment),
        instrumentation_scope=_SCOPE,
    )


def log_of(
    static: Static, moment: Moment, resource: Resource, limits: Limits = DEFAULT_LIMITS
) -> ReadableLogRecord | None:
    """The event that a record holds, as a log record with an event name; None if it holds none."""
    if static.type is None:
        return None
    occurred = occurred_at(moment)
    attributes = {  # the id comes last, because a limit drops the first ones
        **(moment.attributes or {}),
        "code.function.name": static.point.replace(":", "."),
        "sidelight.mode": static.mode,
        "sidelight.outcome": static.outcome,
    }
    if moment.duration is not None:
        attributes["sidelight.duration"] = moment.duration
    severity = SeverityNumber.INFO
    if error := (moment.details or {}).get("error"):
        severity = SeverityNumber.ERROR
        attributes |= exception_attributes(error) | {"error.type": error[0]}
    attributes |= _identity(moment)
    attributes["sidelight.event.type"] = static.type
    attributes["log.record.uid"] = event_id(occurred, moment.random)
    record = LogRecord(
        timestamp=occurred,
        observed_timestamp=time.time_ns(),
        context=_log_context(moment),
        severity_number=severity,
        severity_text=severity.name,
        body=static.type,
        attributes=_bounded(attributes, limits.log_attributes, limits.log_length),
        event_name=event_name(static),
    )
    return ReadableLogRecord(record, resource, _SCOPE)


def event_name(static: Static) -> str:
    """``artifact_received`` in ``voice_notes.artifacts``: ``voice_notes.artifact.received``."""
    package = static.point.partition(":")[0].partition(".")[0]
    name = (static.type or "").replace("_", ".")
    return name if package in {"", "__main__", "sidelight"} else f"{package}.{name}"


def _log_context(moment: Moment) -> Context:
    span: trace.Span = trace.INVALID_SPAN  # in an empty context the SDK takes the current span
    if moment.trace is not None:
        span = NonRecordingSpan(
            context_of(moment.trace, moment.span_id, moment.flags, None, remote=False)
        )
    return trace.set_span_in_context(span, Context())


def _identity(moment: Moment) -> dict[str, Any]:
    named = {ARTIFACT_KEY: moment.artifact_id, ORGANIZATION_KEY: moment.organization_id}
    identity = {key: _id(value) for key, value in named.items() if value is not None}
    return {**identity, "sidelight.truncated": True} if moment.flags & CUT else identity


def _id(value: Any) -> str:
    """An id as text, equal to the store's."""
    return str(value) if isinstance(value, str | int | float) else to_json(value)


def _bounded(
    attributes: Mapping[str, Any], most: int | None, length: int | None, dropped: int = 0
) -> Mapping[str, Any]:
    """Attributes as OTLP allows them, without None; the newest ``most`` of them."""
    valid = {key: _value(v, length) for key, v in attributes.items() if v is not None}
    if most is not None and len(valid) > most:
        dropped += len(valid) - most
        valid = dict(tuple(valid.items())[len(valid) - most :])
    return attributes_with_dropped(valid, dropped)


def _newest(items: list[Any], most: int | None, dropped: int) -> Sequence[Any]:
    if most is not None and len(items) > most:
        dropped += len(items) - most
        items = items[len(items) - most :]
    return items_with_dropped(items, dropped)


def _value(value: Any, length: int | None) -> Any:
    """A value that every version of the SDK's encoder accepts: no None in a list or mapping."""
    if isinstance(value, str):
        return value if length is None else value[:length]
    if isinstance(value, bool | float | bytes):
        return value
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 63 else str(value)
    if isinstance(value, Mapping):
        return {str(k): _value(v, length) for k, v in value.items() if v is not None}
    if isinstance(value, Sequence):
        return [_value("null" if item is None else item, length) for item in value]
    return str(value)
