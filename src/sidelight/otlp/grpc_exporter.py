"""OTLP over gRPC: the same encoded requests, through the channel of the SDK's exporter.

The SDK's exporter makes the channel, credentials and headers from the environment. This module
makes the calls, because the exporter's own loop retries, hides the cause and ignores partial
success. (``_channel`` and ``_headers`` are private; a test checks them.)
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

from sidelight.otlp.endpoint import Endpoint
from sidelight.otlp.exporter import ExportError, Rejected
from sidelight.otlp.requests import decode_answer

_CLASSES: Final[Mapping[str, tuple[str, str]]] = {
    "traces": ("trace_exporter", "OTLPSpanExporter"),
    "logs": ("_log_exporter", "OTLPLogExporter"),
}
_METHODS: Final[Mapping[str, str]] = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}
_FAILED: Final = ("INTERNAL", "UNKNOWN", "DATA_LOSS")
_VERBOSITY: Final = "GRPC_VERBOSITY"
_QUIET: Final = "Error"  # gRPC ignores the case; no application writes it so


def _import_grpc() -> Any:
    """Import gRPC so that its core does not write failed handshakes to standard error.

    The core reads the variable when it starts. The application may set or remove the variable
    meanwhile, in another thread; then it stays as the application left it.
    """
    if "grpc" in sys.modules or _VERBOSITY in os.environ:
        return importlib.import_module("grpc")
    os.environ[_VERBOSITY] = _QUIET
    try:
        grpc = importlib.import_module("grpc")
        grpc.insecure_channel("localhost:1").close()
    finally:
        if os.environ.get(_VERBOSITY) == _QUIET:
            os.environ.pop(_VERBOSITY, None)
    return grpc


def _import_sdk(signal: str) -> Any:
    module, name = _CLASSES[signal]
    return getattr(
        importlib.import_module(f"opentelemetry.exporter.otlp.proto.grpc.{module}"), name
    )


_grpc: Final = _import_grpc()
# All of them now, because a fork during a later import breaks the child.
_sdk_classes: Final = {signal: _import_sdk(signal) for signal in _CLASSES}
_RetryInfo: Final = importlib.import_module("google.rpc.error_details_pb2").RetryInfo


class GrpcExporter:
    """Sends requests of one signal over gRPC."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Make the channel; it connects later.

        Raises:
            ValueError: the installed exporter keeps its channel elsewhere.
        """
        self._timeout = endpoint.timeout
        with _silent_sdk():
            self._sdk = _sdk_classes[endpoint.signal](
                endpoint=endpoint.url, timeout=endpoint.timeout
            )
        channel = getattr(self._sdk, "_channel", None)
        if channel is None:
            raise ValueError(
                "this opentelemetry-exporter-otlp-proto-grpc is not supported;"
                " set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"
            )
        self._headers = getattr(self._sdk, "_headers", None) or None
        self._export = _unwrap_channel(channel).unary_unary(_METHODS[endpoint.signal])

    def send(self, request: bytes, /) -> Rejected:
        """See `Exporter`."""
        try:
            answer = self._export(request, metadata=self._headers, timeout=self._timeout)
        except _grpc.RpcError as error:
            raise grpc_error(error) from error
        return decode_answer(answer)

    def close(self) -> None:
        """See `Exporter`."""
        self._sdk.shutdown()


def _unwrap_channel(channel: Any) -> Any:
    """Remove a tracer's interceptors, because the relay's exports are not traced."""
    while type(channel).__module__ == "grpc._interceptor":
        channel = channel._channel  # noqa: SLF001  # gRPC has no public name for it
    return channel


def grpc_error(error: Any) -> ExportError:
    """Return the cause of a failed call."""
    code = error.code().name
    wait = _retry_info(error)
    kinds = {"UNIMPLEMENTED": "unsupported", "INVALID_ARGUMENT": "refused"}
    kinds |= dict.fromkeys(_FAILED, "failed")
    if code == "RESOURCE_EXHAUSTED" and wait is None:
        kinds[code] = "refused"  # the message is too large for the endpoint
    return ExportError(kinds.get(code, "unavailable"), f"{code}: {error.details()}", wait or 0.0)


def _retry_info(error: Any) -> float | None:
    """Return the seconds of a RetryInfo; None if the error has none."""
    for key, value in error.trailing_metadata() or ():
        if key == "google.rpc.retryinfo-bin":
            with suppress(Exception):
                delay = _RetryInfo.FromString(value).retry_delay
                return float(delay.seconds + delay.nanos / 1e9)
    return None


_thread: Final = threading.local()


@contextmanager
def _silent_sdk() -> Iterator[None]:
    """Keep the log lines of the SDK's exporter out of the application's log.

    The relay logs a failure once, and `sidelight doctor` shows it.
    """
    logging.getLogger("opentelemetry.exporter.otlp.proto.grpc.exporter").addFilter(_is_wanted)
    _thread.silent = True
    try:
        yield
    finally:
        _thread.silent = False


def _is_wanted(_: logging.LogRecord) -> bool:
    return not getattr(_thread, "silent", False)
