"""Records to OTLP: spans and log records to a Collector; every cause of failure is told.

Loaded lazily, because the SDK and its exporters are slow to import.
"""

from typing import TYPE_CHECKING

from sidelight.host import lazily

if TYPE_CHECKING:
    from sidelight.otlp.exporters import Endpoint, ExportError, SignalName, quiet
    from sidelight.otlp.sink import OtlpSettings, OtlpSink

__all__ = ["Endpoint", "ExportError", "OtlpSettings", "OtlpSink", "SignalName", "quiet"]

__getattr__ = lazily(
    __name__,
    {
        "exporters": "Endpoint ExportError SignalName quiet",
        "sink": "OtlpSettings OtlpSink",
    },
)
