"""Metrics of a consumer through OpenTelemetry's metrics API, under ``sidelight.consumer.*``.

All instruments are observable, and the callbacks ask no broker: the consumer's own thread does.
Without a MeterProvider no callback ever runs.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Final

from opentelemetry.metrics import CallbackOptions, Meter, Observation, get_meter

from sidelight.stream.consumer import Progress
from sidelight.version import __version__

_OUTCOME: Final = "sidelight.outcome"
_SIDE: Final = "sidelight.consumer.side"
_PARTITION: Final = "messaging.destination.partition.id"  # as in the semantic conventions


def register(progress: Progress, meter: Meter | None = None) -> None:
    """Make the instruments of one consumer.

    Args:
        progress: of the consumer.
        meter: by default one of the process's MeterProvider, even if that is set later.
    """
    meter = meter or get_meter("sidelight", __version__)

    def events(_: CallbackOptions) -> Iterable[Observation]:
        for outcome in ("stored", "set_aside", "pruned", "erased"):
            yield Observation(getattr(progress, outcome), {_OUTCOME: outcome})

    def lag(_: CallbackOptions) -> Iterable[Observation]:
        for partition, behind in progress.lag.items():
            yield Observation(behind, {_PARTITION: str(partition)})

    def failing(_: CallbackOptions) -> Iterator[Observation]:
        for side, health in (("store", progress.store), ("stream", progress.stream)):
            since = health.failing_since
            seconds = 0.0 if since is None else max(0.0, time.time() - since)
            yield Observation(seconds, {_SIDE: side})

    meter.create_observable_counter(
        "sidelight.consumer.events", [events], "{event}", "Events, by what became of them."
    )
    meter.create_observable_gauge(
        "sidelight.consumer.lag", [lag], "{message}", "Messages that the group has not stored."
    )
    meter.create_observable_gauge(
        "sidelight.consumer.failing", [failing], "s", "How long a side has been failing."
    )
