"""Metrics made of events, through OpenTelemetry's metrics API: how many, and how long they took.

The relay that stores an event counts it, and only when the store did not have it: so an event
counts once, though several relays may deliver it. Attributes are its type and its outcome, never
its artifact. Without a MeterProvider nothing is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from opentelemetry.metrics import Meter, get_meter, get_meter_provider

from sidelight.host import guarded, keeps_metrics
from sidelight.version import __version__

EVENT_TYPE: Final = "sidelight.event.type"
EVENT_OUTCOME: Final = "sidelight.event.outcome"
_TYPE, _OUTCOME, _DURATION = 1, 8, 9  # positions in a row of `events`
_BUCKETS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0),
)
"""Seconds: from a function in memory to a job of an hour."""


class EventMetrics:
    """The instruments.

    Args:
        meter: of a MeterProvider.
    """

    def __init__(self, meter: Meter) -> None:
        self._events = meter.create_counter(
            "sidelight.events", "{event}", "Events that a relay has stored."
        )
        self._durations = meter.create_histogram(
            "sidelight.event.duration",
            "s",
            "How long the calls took whose events a relay has stored.",
            explicit_bucket_boundaries_advisory=_BUCKETS,
        )

    def observe(self, rows: Sequence[Sequence[Any]]) -> None:
        """Count rows of `events` that were not stored before."""
        counts = Counter((row[_TYPE], row[_OUTCOME]) for row in rows)
        for (type_, outcome), count in counts.items():
            self._events.add(count, {EVENT_TYPE: type_, EVENT_OUTCOME: outcome})
        for row in rows:
            if row[_DURATION] is not None:
                named = {EVENT_TYPE: row[_TYPE], EVENT_OUTCOME: row[_OUTCOME]}
                self._durations.record(row[_DURATION] / 1e9, named)


@cache
def _metrics() -> EventMetrics:
    return EventMetrics(get_meter("sidelight", __version__))


def observe_events(rows: Sequence[Sequence[Any]]) -> None:
    """Count events that this process has stored, if the process has a MeterProvider."""
    with guarded():  # the application's MeterProvider
        if rows and keeps_metrics(get_meter_provider()):
            _metrics().observe(rows)
