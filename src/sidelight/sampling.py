"""Which traces are kept: ``OTEL_TRACES_SAMPLER``, decided from the trace id and the parent's flag.

The rules are those of the OpenTelemetry specification (Tracing SDK, "Built-in samplers"). They
apply to spans; events are never sampled.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

_ALL: Final = 1 << 64


@dataclass(frozen=True, slots=True)
class Sampling:
    """``root`` decides from the 16 bytes of a trace id; a parent decides where ``parent_based``."""

    root: Callable[[bytes], bool]
    parent_based: bool


def ratio(share: float) -> Callable[[bytes], bool]:
    """Keep the traces whose id's low 64 bits lie in the first ``share`` of their range."""
    bound = round(share * _ALL)
    return lambda trace: int.from_bytes(trace[8:], "big") < bound


def _always(_: bytes) -> bool:
    return True


def _never(_: bytes) -> bool:
    return False


def sampling(environment: Mapping[str, str]) -> Sampling:
    """Read ``OTEL_SDK_DISABLED``, ``OTEL_TRACES_SAMPLER`` and ``OTEL_TRACES_SAMPLER_ARG``."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Sampling(_never, parent_based=False)
    name = environment.get("OTEL_TRACES_SAMPLER", "").strip().lower() or "parentbased_always_on"
    kind = name.removeprefix("parentbased_")
    rules = {"always_on": _always, "always_off": _never}
    if kind == "traceidratio":
        rules[kind] = ratio(_share(environment.get("OTEL_TRACES_SAMPLER_ARG", "")))
    if kind not in rules:
        _warn(f"OTEL_TRACES_SAMPLER={name} is not a sampler that sidelight knows", "all are kept")
        return Sampling(_always, parent_based=True)
    return Sampling(rules[kind], parent_based=name != kind)


def _share(text: str) -> float:
    try:
        share = float(text or 1.0)
    except ValueError:
        share = -1.0
    if 0.0 <= share <= 1.0:
        return share
    _warn(f"OTEL_TRACES_SAMPLER_ARG={text} is not a ratio between 0 and 1", "all are kept")
    return 1.0


def _warn(problem: str, consequence: str) -> None:
    warnings.warn(f"{problem}; {consequence}", RuntimeWarning, stacklevel=4)
