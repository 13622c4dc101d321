"""Sampling: the rules of the ``OTEL_*`` variables for which spans are kept.

They follow the OpenTelemetry specification (Tracing SDK, "Built-in samplers") and depend only on
the trace id and on the parent's flag. They apply to spans; events are never sampled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from sidelight.host import log_warning

_ALL: Final = 1 << 64


class Sampling(NamedTuple):
    """The rules for one process.

    Attributes:
        root: decides from the 16 bytes of a trace id.
        parent_based: whether a span that has a parent follows it instead.
        disabled: make no spans, and leave the context unchanged.
    """

    root: Callable[[bytes], bool]
    parent_based: bool
    disabled: bool = False


def ratio(share: float) -> Callable[[bytes], bool]:
    """Keep a trace if the low 64 bits of its id lie in the first ``share`` of their range."""
    bound = round(share * _ALL)
    return lambda trace: int.from_bytes(trace[8:], "big") < bound


def _always(_: bytes) -> bool:
    return True


def _never(_: bytes) -> bool:
    return False


def sampling(environment: Mapping[str, str]) -> Sampling:
    """Read ``OTEL_SDK_DISABLED``, ``OTEL_TRACES_SAMPLER`` and ``OTEL_TRACES_SAMPLER_ARG``.

    An unknown value is logged, and all spans are kept.
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Sampling(_never, parent_based=True, disabled=True)
    name = environment.get("OTEL_TRACES_SAMPLER", "").strip().lower() or "parentbased_always_on"
    kind = name.removeprefix("parentbased_")
    rules: dict[str, Callable[[bytes], bool]] = {"always_on": _always, "always_off": _never}
    if kind == "traceidratio":
        rules[kind] = ratio(_share(environment.get("OTEL_TRACES_SAMPLER_ARG", "")))
    if kind not in rules:
        log_warning(
            "sidelight: OTEL_TRACES_SAMPLER=%s is not a known sampler; all spans are kept", name
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
    log_warning(
        "sidelight: OTEL_TRACES_SAMPLER_ARG=%s is not a ratio between 0 and 1; all spans are kept",
        text,
    )
    return 1.0
