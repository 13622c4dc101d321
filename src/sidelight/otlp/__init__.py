"""Export records over OTLP as spans and log records; every failed request has its cause.

The face loads lazily, because the SDK and its exporters are slow to import.
"""

from typing import TYPE_CHECKING

from sidelight.host import lazily

if TYPE_CHECKING:
    from sidelight.otlp.exporters import Endpoint, ExportError, SignalName, silence_exporters
    from sidelight.otlp.sink import OtlpSettings, OtlpSink

__all__ = ["Endpoint", "ExportError", "OtlpSettings", "OtlpSink", "SignalName", "silence_exporters"]

__getattr__ = lazily(
    __name__,
    {
        "exporters": "Endpoint ExportError SignalName silence_exporters",
        "sink": "OtlpSettings OtlpSink",
    },
)
