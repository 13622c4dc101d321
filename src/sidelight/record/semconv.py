"""Semantic conventions: the keys and texts under which OpenTelemetry finds what a record holds."""

from __future__ import annotations

from typing import Any, Final

from opentelemetry.trace import (
    TraceFlags,
)

from sidelight.record.format import RANDOM, SAMPLED

ARTIFACT_KEY: Final = "sidelight.artifact.id"

ORGANIZATION_KEY: Final = "sidelight.organization.id"

LONGEST: Final = 32 * 1024
"""Characters of one text that a function puts on its span; what is longer is cut."""


def w3c_flags(flags: int) -> TraceFlags:
    """The flags of a record as a traceparent has them."""
    return TraceFlags((1 if flags & SAMPLED else 0) | (2 if flags & RANDOM else 0))


def failure(details: list[Any]) -> str:
    """The description of a failed span's status, from `error_details`: ``ValueError: why``."""
    return f"{details[0].rpartition('.')[2]}: {details[1]}"


def exception_attributes(details: list[Any]) -> dict[str, str]:
    """The attributes of an exception, from `error_details`; the stack is without source lines."""
    kind, message, frames = details
    stack = "".join(f'  File "{file}", line {line}, in {name}\n' for file, line, name in frames)
    return {
        "exception.type": kind,
        "exception.message": message,
        "exception.stacktrace": f"Traceback (most recent call last):\n{stack}{kind}: {message}\n",
    }
