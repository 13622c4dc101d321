"""From records to the SDK's spans and log records: the telemetry projection of the spool."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context.context import Context
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.sdk.version import __version__ as sdk_version
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

from sidelight.record import (
    REMOTE_PARENT,
    SAMPLED,
    SPAN,
    Moment,
    Static,
    event_id,
    occurred_at,
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


def span_of(static: Static, moment: Moment, resource: Resource) -> ReadableSpan | None:
    """The span that a record carries; None where it carries none."""
    if not moment.flags & SPAN or moment.trace is None or static.span_name is None:
        return None
    details = moment.details or {}
    state = TraceState.from_header([details["trace_state"]]) if "trace_state" in details else None
    parent = None
    if moment.parent_id:
        parent = _context_of(
            moment.trace, moment.parent_id, moment.flags, state, remote=moment.flags & REMOTE_PARENT
        )
    attributes = {
        "code.function.name": static.point.replace(":", "."),
        **_about(moment),
        **_valid(moment.attributes),
        **_valid(details.get("attributes")),
    }
    events = [Event(n, _valid(a), at) for n, at, a in details.get("events", ())]
    status = Status(StatusCode.UNSET)
    if error := details.get("error"):
        attributes["error.type"] = error[0]
        events.append(Event("exception", _exception(error), occurred_at(moment)))
        status = Status(StatusCode.ERROR, f"{error[0]}: {error[1]}")
    if "status" in details:
        code, description = details["status"]
        status = Status(StatusCode(code), description)
    return ReadableSpan(
        name=details.get("name") or static.span_name,
        context=_context_of(moment.trace, moment.span_id, moment.flags, state, remote=False),
        parent=parent,
        resource=resource,
        attributes=attributes,
        events=events,
        links=[
            Link(_context_of(t, i, SAMPLED if f & 1 else 0, None, remote=True), _valid(a))
            for t, i, f, a in details.get("links", ())
        ],
        status=status,
        start_time=moment.time,
        end_time=occurred_at(moment),
        instrumentation_scope=_SCOPE,
    )


def log_of(static: Static, moment: Moment, resource: Resource) -> ReadableLogRecord | None:
    """The event that a record carries, as a log record with a name; None where it carries none."""
    if static.type is None:
        return None
    occurred = occurred_at(moment)
    attributes = {
        "log.record.uid": event_id(occurred, moment.random),
        "code.function.name": static.point.replace(":", "."),
        "sidelight.event.type": static.type,
        "sidelight.mode": static.mode,
        "sidelight.outcome": static.outcome,
        **_about(moment),
        **_valid(moment.attributes),
    }
    if moment.duration is not None:
        attributes["sidelight.duration"] = moment.duration
    severity = SeverityNumber.INFO
    if error := (moment.details or {}).get("error"):
        severity = SeverityNumber.ERROR
        attributes |= _exception(error) | {"error.type": error[0]}
    record = LogRecord(
        timestamp=occurred,
        observed_timestamp=time.time_ns(),
        context=_log_context(moment),
        severity_number=severity,
        severity_text=severity.name,
        body=static.type,
        attributes=attributes,
        event_name=event_name(static),
    )
    return ReadableLogRecord(record, resource, _SCOPE)


def event_name(static: Static) -> str:
    """``artifact_received`` of ``voice_notes.artifacts`` is ``voice_notes.artifact.received``."""
    package = static.point.partition(":")[0].partition(".")[0]
    name = (static.type or "").replace("_", ".")
    return name if package in {"", "__main__", "sidelight"} else f"{package}.{name}"


def _log_context(moment: Moment) -> Context:
    span: trace.Span = trace.INVALID_SPAN  # an empty context would take the current span
    if moment.trace is not None:
        span = NonRecordingSpan(
            _context_of(moment.trace, moment.span_id, moment.flags, None, remote=False)
        )
    return trace.set_span_in_context(span, Context())


def _context_of(
    trace_id: bytes, span_id: int, flags: int, state: TraceState | None, *, remote: int | bool
) -> SpanContext:
    return SpanContext(
        trace_id=int.from_bytes(trace_id, "big"),
        span_id=span_id,
        is_remote=bool(remote),
        trace_flags=TraceFlags(TraceFlags.SAMPLED if flags & SAMPLED else 0),
        trace_state=state,
    )


def _about(moment: Moment) -> dict[str, str]:
    named = {
        "sidelight.artifact.id": moment.artifact_id,
        "sidelight.organization.id": moment.organization_id,
    }
    return {key: str(value) for key, value in named.items() if value is not None}


def _exception(error: list[Any]) -> dict[str, str]:
    kind, message, frames = error
    stack = "".join(f'  File "{file}", line {line}, in {name}\n' for file, line, name in frames)
    return {
        "exception.type": kind,
        "exception.message": message,
        "exception.stacktrace": f"Traceback (most recent call last):\n{stack}{kind}: {message}",
    }


def _valid(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    """Attributes as OTLP takes them: None left out, what is nested as JSON."""
    return {key: _value(value) for key, value in (attributes or {}).items() if value is not None}


def _value(value: Any) -> Any:
    if isinstance(value, str | bool | float):
        return value
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 63 else str(value)
    if isinstance(value, list) and len({type(item) for item in value}) <= 1:
        if all(isinstance(item, str | bool | int | float) for item in value):
            return [_value(item) for item in value]
    return msgspec.json.encode(value).decode()
