"""Export records over OTLP as spans and log records; every failed request has its cause.

The wire form is written directly: neither the SDK nor its exporters are imported, but for gRPC. The
face loads lazily, because a process that exports nothing needs no HTTP.
"""

from typing import TYPE_CHECKING

from sidelight.host import lazily

if TYPE_CHECKING:
    from sidelight.otlp.endpoint import Endpoint
    from sidelight.otlp.exporter import ExportError, SignalName
    from sidelight.otlp.sink import OtlpSettings, OtlpSink, exporter_class

__all__ = ["Endpoint", "ExportError", "OtlpSettings", "OtlpSink", "SignalName", "exporter_class"]

__getattr__ = lazily(
    __name__,
    {
        "endpoint": "Endpoint",
        "exporter": "ExportError SignalName",
        "sink": "OtlpSettings OtlpSink exporter_class",
    },
)
