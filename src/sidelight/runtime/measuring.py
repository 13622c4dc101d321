"""Metrics begin once the application has imported OpenTelemetry's metrics API.

Without that import there is no MeterProvider. The import would take a process that only emits some
milliseconds and a thousand objects.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from sidelight.host import Turns, guarded

if TYPE_CHECKING:
    from sidelight.spool import Health

_API: Final = "opentelemetry.metrics"


def offer_metrics(
    health: Callable[[], Mapping[str, Health]], usage: Callable[[], int], starting: Turns
) -> None:
    """Make the instruments of sidelight's own metrics, once: see `metrics.register`.

    Args:
        health: returns the state of each sink.
        usage: returns the bytes in the spool's directory.
        starting: the turn that a fork takes. An import during a fork breaks the child, so a later
            call does it.
    """
    if _API not in sys.modules:
        return
    ticket = object()
    try:
        if starting.take(ticket, 0.0):
            with guarded():  # the application's MeterProvider
                from sidelight.runtime.metrics import register  # noqa: PLC0415

                register(health, usage)
    finally:
        starting.pop(ticket, None)


def observe_stored(rows: Sequence[Sequence[Any]]) -> None:
    """Make metrics of events that were stored; without the metrics API, which is no import."""
    if _API in sys.modules:
        from sidelight.runtime.event_metrics import observe_events  # noqa: PLC0415

        observe_events(rows)
