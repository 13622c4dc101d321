"""The limits of spans and log records that the OTEL_* variables set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from sidelight.host import log_warning

_MOST: Final = 128  # the specification's default for attributes, events and links


class Limits(NamedTuple):
    """How much one span or log record may hold; None means no limit.

    Attributes:
        attributes, events, links: numbers for one span.
        event_attributes, link_attributes: attributes of one event, of one link.
        log_attributes: attributes of one log record.
        length: characters of a text value in events and links.
        span_length: characters of a text value in span attributes.
        log_length: characters of a text value in log records.
    """

    attributes: int | None = _MOST
    events: int | None = _MOST
    links: int | None = _MOST
    event_attributes: int | None = _MOST
    link_attributes: int | None = _MOST
    log_attributes: int | None = _MOST
    length: int | None = None
    span_length: int | None = None
    log_length: int | None = None


DEFAULT_LIMITS: Final = Limits()


def limits_from(environment: Mapping[str, str]) -> Limits:
    """Read the ``OTEL_*_LIMIT`` variables for spans, events, links and log records.

    An empty value means no limit, as in the SDK. A value that is not a number is logged, and the
    default applies.
    """

    def read(name: str, default: int | None) -> int | None:
        text = environment.get(f"OTEL_{name}_LIMIT")
        if text is None:
            return default
        text = text.strip()
        if not text:
            return None
        if text.isascii() and text.isdigit():
            return int(text)
        log_warning("sidelight: OTEL_%s_LIMIT=%s is not a number; the default applies", name, text)
        return default

    given = read("ATTRIBUTE_COUNT", _MOST)
    count = _MOST if given is None else given
    length = read("ATTRIBUTE_VALUE_LENGTH", None)
    return Limits(
        attributes=read("SPAN_ATTRIBUTE_COUNT", count),
        events=read("SPAN_EVENT_COUNT", _MOST),
        links=read("SPAN_LINK_COUNT", _MOST),
        event_attributes=read("EVENT_ATTRIBUTE_COUNT", count),
        link_attributes=read("LINK_ATTRIBUTE_COUNT", count),
        log_attributes=read("LOGRECORD_ATTRIBUTE_COUNT", count),
        length=length,
        span_length=read("SPAN_ATTRIBUTE_VALUE_LENGTH", length),
        log_length=read("LOGRECORD_ATTRIBUTE_VALUE_LENGTH", length),
    )


def limits_of(writer: Mapping[str, Any]) -> Limits:
    """Read the limits of the process that wrote a segment, from the segment's header."""
    try:
        return Limits(*writer["limits"])
    except (KeyError, TypeError):
        return DEFAULT_LIMITS
