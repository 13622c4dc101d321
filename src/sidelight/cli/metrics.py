"""Export metrics over OTLP from a command that has no MeterProvider of an application."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any, Final

from sidelight.cli.output import remark
from sidelight.record import random_bits

_EXPORTERS: Final = "OTEL_METRICS_EXPORTER"


@contextlib.contextmanager
def exporting_metrics() -> Iterator[None]:
    """Export metrics while the block runs, where ``OTEL_METRICS_EXPORTER=otlp``.

    The other variables are OpenTelemetry's: endpoint, protocol, headers, interval. Each process has
    an instance id of its own, because counters of two processes must not be taken for one.
    """
    wanted = os.environ.get(_EXPORTERS, "none").strip() or "none"
    if wanted != "otlp":
        if wanted != "none":  # an application beside may have set it
            remark(f"no metrics: {_EXPORTERS}={wanted} is not supported here; set otlp or none")
        yield
        return
    provider = _provider()
    try:
        yield
    finally:
        provider.shutdown()


def _provider() -> Any:
    """Install a MeterProvider of the SDK, which is slow to import."""
    from opentelemetry.metrics import set_meter_provider  # noqa: PLC0415
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415

    resource = Resource.create({"service.instance.id": f"{random_bits(64):016x}"})
    provider = MeterProvider([PeriodicExportingMetricReader(_exporter())], resource)
    set_meter_provider(provider)
    return provider


def _exporter() -> Any:
    general = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    if os.environ.get("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", general) == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import (  # noqa: PLC0415
            OTLPMetricExporter as GrpcExporter,
        )

        return GrpcExporter()
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import (  # noqa: PLC0415
        OTLPMetricExporter,
    )

    return OTLPMetricExporter()
