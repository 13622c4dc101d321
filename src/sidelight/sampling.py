"""Which spans are kept, and how much of each: the rules that ``OTEL_*`` variables set for tracing.

Sampling follows the OpenTelemetry specification (Tracing SDK, "Built-in samplers") and is decided
from the trace id and the parent's flag. It applies to spans; events are never sampled.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

_ALL: Final = 1 << 64
_MOST: Final = 128  # the specification's default for attributes, events and links
_logger: Final = logging.getLogger("sidelight")


class Sampling(NamedTuple):
    """``root`` decides from the 16 bytes of a trace id; a parent decides where ``parent_based``.

    Where ``disabled`` there are no spans at all, and the context stays as it was found.
    """

    root: Callable[[bytes], bool]
    parent_based: bool
    disabled: bool = False


def ratio(share: float) -> Callable[[bytes], bool]:
    """Keep the traces whose id's low 64 bits lie in the first ``share`` of their range."""
    bound = round(share * _ALL)
    return lambda trace: int.from_bytes(trace[8:], "big") < bound


def _always(_: bytes) -> bool:
    return True


def _never(_: bytes) -> bool:
    return False


def sampling(environment: Mapping[str, str]) -> Sampling:
    """Read ``OTEL_SDK_DISABLED``, ``OTEL_TRACES_SAMPLER`` and ``OTEL_TRACES_SAMPLER_ARG``.

    What cannot be understood keeps everything, and is logged.
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Sampling(_never, parent_based=True, disabled=True)
    name = environment.get("OTEL_TRACES_SAMPLER", "").strip().lower() or "parentbased_always_on"
    kind = name.removeprefix("parentbased_")
    rules: dict[str, Callable[[bytes], bool]] = {"always_on": _always, "always_off": _never}
    if kind == "traceidratio":
        rules[kind] = ratio(_share(environment.get("OTEL_TRACES_SAMPLER_ARG", "")))
    if kind not in rules:
        _logger.warning(
            "sidelight: OTEL_TRACES_SAMPLER=%s is not a sampler that it knows; all are kept", name
        )
        return Sampling(_always, parent_based=True)
    return Sampling(rules[kind], parent_based=name != kind)


def _share(text: str) -> float:
    try:
        share = float(text.strip() or 1.0)
    except ValueError:
        share = -1.0
    if 0.0 <= share <= 1.0:
        return share
    _logger.warning(
        "sidelight: OTEL_TRACES_SAMPLER_ARG=%s is not a ratio between 0 and 1; all are kept", text
    )
    return 1.0


class Limits(NamedTuple):
    """How much one span or log record may hold; None is no limit.

    ``attributes``, ``events`` and ``links`` count what a span has; ``event_attributes`` and
    ``link_attributes`` what each of those has, ``log_attributes`` what a log record has. The
    lengths are characters of a text value: ``length`` in events and links, ``span_length`` in
    spans, ``log_length`` in log records.
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


def limits(environment: Mapping[str, str]) -> Limits:
    """Read ``OTEL_ATTRIBUTE_*_LIMIT`` and its kin for spans, events, links and log records.

    As with the SDK an empty value is no limit; what is no number is logged, and the default holds.
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
        _logger.warning("sidelight: OTEL_%s_LIMIT=%s is not a number; it is not used", name, text)
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
    """The limits of the process that wrote a segment, as its header has them."""
    try:
        return Limits(*writer["limits"])
    except (KeyError, TypeError):
        return DEFAULT_LIMITS
