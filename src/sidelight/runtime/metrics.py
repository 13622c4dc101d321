"""Self-metrics through OpenTelemetry's metrics API, under ``sidelight.*``.

All instruments are observable, so that the caller's path counts nothing extra. Without a
MeterProvider no callback ever runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeAlias

from opentelemetry.metrics import CallbackOptions, Meter, Observation, get_meter

from sidelight.emission import EMITTER
from sidelight.version import __version__

if TYPE_CHECKING:
    from sidelight.spool import Health

#: Attribute keys: a point's path; a sink ("store", "stream", …); a reason for loss.
_POINT, _SINK, _REASON = "sidelight.point", "sidelight.sink", "sidelight.loss.reason"
_Values: TypeAlias = Callable[[], Iterable[tuple[float, str]]]
_meters: list[Meter] = []


def register(
    health: Callable[[], Mapping[str, Health]],
    usage: Callable[[], int],
    meter: Meter | None = None,
) -> None:
    """Make the instruments once per process.

    Args:
        health: returns the state of each sink.
        usage: returns the bytes in the spool's directory.
        meter: by default one of the application's MeterProvider, even if that is set later.
    """
    if meter is None:
        if _meters:
            return
        meter = get_meter("sidelight", __version__)
    _meters.append(meter)

    def deliveries() -> Iterator[tuple[float, str]]:
        return ((state.delivered, sink) for sink, state in health().items())

    def failing() -> Iterator[tuple[float, str]]:
        return ((_seconds_since(state.failing_since), sink) for sink, state in health().items())

    def spool() -> Iterator[tuple[float, str]]:
        yield usage(), ""

    counter, gauge = meter.create_observable_counter, meter.create_observable_gauge
    for make, name, values, key, unit, description in (
        (counter, "emissions", _emissions, _POINT, "{emission}", "Calls that were recorded."),
        (counter, "budget.breaches", _breaches, _POINT, "{emission}", "Emissions over 10 ms."),
        (counter, "losses", _losses, _REASON, "{loss}", "Records that were lost or cut."),
        (
            counter,
            "sink.deliveries",
            deliveries,
            _SINK,
            "{record}",
            "Records that a sink accepted.",
        ),
        (gauge, "sink.failing", failing, _SINK, "s", "How long a sink has been failing."),
        (gauge, "spool.usage", spool, "", "By", "Bytes in the spool directory."),
    ):
        make(f"sidelight.{name}", [_observed(values, key)], unit, description)


def _observed(values: _Values, key: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def callback(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(value, {key: named} if key else {}) for value, named in values()]

    return callback


def _emissions() -> Iterator[tuple[float, str]]:
    for point, costs in EMITTER.costs.copy().items():
        yield costs.count(), point


def _breaches() -> Iterator[tuple[float, str]]:
    return ((costs.over_budget, point) for point, costs in EMITTER.costs.copy().items())


def _losses() -> Iterator[tuple[float, str]]:
    return ((number, reason) for reason, number in EMITTER.losses.copy().items())


def _seconds_since(moment: float | None) -> float:
    return 0.0 if moment is None else max(time.time() - moment, 0.0)
