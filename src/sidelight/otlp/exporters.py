"""The exporter for an endpoint's protocol."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from sidelight.otlp.endpoint import Endpoint
from sidelight.otlp.exporter import Exporter
from sidelight.otlp.http_exporter import HttpExporter


def exporter_class(endpoint: Endpoint) -> Callable[[Endpoint], Exporter]:
    """Import the exporter for the endpoint's protocol; gRPC and the SDK are slow to import."""
    if endpoint.protocol == "http/protobuf":
        return HttpExporter
    found: Callable[[Endpoint], Exporter] = importlib.import_module(
        "sidelight.otlp.grpc_exporter"
    ).GrpcExporter
    return found
