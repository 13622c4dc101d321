"""OpenTelemetry's words for what a record holds: attribute keys, trace flags, exceptions."""

from __future__ import annotations

from typing import Any, Final

from opentelemetry.trace import TraceFlags

from sidelight.record.format import RANDOM, SAMPLED

ARTIFACT_KEY: Final = "sidelight.artifact.id"
"""The attribute of a span or log record that names the artifact."""
ORGANIZATION_KEY: Final = "sidelight.organization.id"
"""The attribute of a span or log record that names the organization."""
STORE_COLUMNS: Final = frozenset(
    {
        *("type", "event_id", "point", "outcome", "duration", "occurred_at", "recorded_at"),
        *("trace_id", "span_id", "attributes"),
    }
)
"""Names that no attribute has, because the store has a column of that name."""
MAX_SPAN_TEXT: Final = 32 * 1024
"""Characters of one text that a function puts on its span; a longer text is cut."""

_W3C_SAMPLED: Final = 1
_W3C_RANDOM: Final = 2


def w3c_flags(flags: int) -> TraceFlags:
    """Convert the flags of a record to those of a traceparent."""
    return TraceFlags(
        (_W3C_SAMPLED if flags & SAMPLED else 0) | (_W3C_RANDOM if flags & RANDOM else 0)
    )


def record_flags(w3c: int) -> int:
    """Convert the flags of a traceparent to those of a record."""
    return (SAMPLED if w3c & _W3C_SAMPLED else 0) | (RANDOM if w3c & _W3C_RANDOM else 0)


def status_description(details: list[Any]) -> str:
    """Describe the status of a failed span, from `error_details`: ``ValueError: message``."""
    return f"{details[0].rpartition('.')[2]}: {details[1]}"


def exception_attributes(details: list[Any]) -> dict[str, str]:
    """Write the attributes of an exception, from `error_details`, without lines of source."""
    kind, message, frames = details
    stack = "".join(f'  File "{file}", line {line}, in {name}\n' for file, line, name in frames)
    return {
        "exception.type": kind,
        "exception.message": message,
        "exception.stacktrace": f"Traceback (most recent call last):\n{stack}{kind}: {message}\n",
    }
