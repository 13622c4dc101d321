"""Check the OTLP endpoints: does each take an empty request?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from msgspec.structs import replace

from sidelight.cli.doctor.findings import Finding
from sidelight.otlp import Endpoint, ExportError, SignalName, exporter_class
from sidelight.settings import Settings, without_password

_TIMEOUT: Final = "3"  # seconds


def check_endpoints(settings: Settings) -> Iterator[Finding]:
    """Send an empty request to each configured endpoint, with the relay's own exporter."""
    signals: tuple[tuple[SignalName, bool], ...] = (
        ("traces", settings.otlp_traces),
        ("logs", settings.otlp_logs),
    )
    if not any(wanted for _, wanted in signals):
        yield Finding("otlp", "ok", "nothing is exported: OTEL_EXPORTER_OTLP_ENDPOINT is not set")
    for signal, wanted in signals:
        if wanted:
            yield _check(Endpoint(signal, settings.otlp_endpoint, settings.environment))


def _check(endpoint: Endpoint) -> Finding:
    timeout = f"OTEL_EXPORTER_OTLP_{endpoint.signal.upper()}_TIMEOUT"
    hurried = replace(endpoint, environment={**endpoint.environment, timeout: _TIMEOUT})
    target = f"{endpoint.signal} to {without_password(_url(endpoint))} by {endpoint.protocol}"
    try:
        exporter = exporter_class(hurried)(hurried)
        try:
            exporter.send(b"")
        finally:
            exporter.close()
    except ExportError as error:
        problem, unsupported = without_password(str(error)), error.kind == "unsupported"
    except Exception as error:  # noqa: BLE001  # a certificate or a header that cannot be read
        problem, unsupported = without_password(f"{type(error).__name__}: {error}"), False
    else:
        return Finding("otlp", "ok", f"{target}: accepted")
    if unsupported and endpoint.signal == "logs":
        return Finding(
            "otlp",
            "note",
            f"{target}: it takes no log records ({problem}); spans and store are not affected",
            "OTEL_LOGS_EXPORTER=none sends none",
        )
    return Finding(
        "otlp",
        "wrong",
        f"{target}: {problem}",
        "start the Collector, or correct OTEL_EXPORTER_OTLP_ENDPOINT; until then the records stay "
        "in the spool",
    )


def _url(endpoint: Endpoint) -> str:
    own = endpoint.environment.get(f"OTEL_EXPORTER_OTLP_{endpoint.signal.upper()}_ENDPOINT")
    return endpoint.url or own or endpoint.environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
