"""The SDK's OTLP exporters, with the cause of each failed request.

Over HTTP the SDK's exporter sends through a `DeadlineSession`. Over gRPC the SDK's exporter makes
the channel, credentials and headers from the environment, and this module makes the call, because
the exporter's own loop retries, hides the cause and ignores partial success. (``_channel``,
``_stub`` and ``_headers`` are private; where they are missing, its own `export` is used.)
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeAlias

from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from sidelight.otlp.session import DeadlineSession, RequestFailed

SignalName: TypeAlias = Literal["traces", "logs"]
TIMEOUT: Final = 5.0
"""Seconds for one request, where OTEL_EXPORTER_OTLP_TIMEOUT is not set."""
_MAX_TIMEOUT: Final = 60.0
_PROTOCOLS: Final = frozenset({"http/protobuf", "grpc"})
_RESPONSES: Final[Mapping[str, Any]] = {
    "traces": ExportTraceServiceResponse,
    "logs": ExportLogsServiceResponse,
}
_CLASSES: Final[Mapping[str, tuple[str, str]]] = {
    "traces": ("trace_exporter", "OTLPSpanExporter"),
    "logs": ("_log_exporter", "OTLPLogExporter"),
}
_REJECTED: Final = {"traces": "rejected_spans", "logs": "rejected_log_records"}
_logger: Final = logging.getLogger("sidelight")


class Rejected(NamedTuple):
    """How many items of a request the endpoint rejected (a partial success), and why."""

    number: int = 0
    why: str = ""


class ExportError(Exception):
    """The endpoint has not accepted a request.

    Attributes:
        kind: "refused": it will never accept the request. "failed": an internal error, perhaps
            because of the request. "unsupported": it does not know the signal. "unavailable": a
            retry may succeed.
        retry_after: seconds before the endpoint wants a retry.
    """

    def __init__(self, kind: str, problem: str, retry_after: float = 0.0) -> None:
        super().__init__(problem)
        self.kind = kind
        self.retry_after = retry_after


class Exporter(Protocol):
    """Sends items of one signal to one endpoint."""

    def send(self, items: Sequence[Any], /) -> Rejected:
        """Send items in one request; an empty request probes the endpoint.

        Raises:
            ExportError: the endpoint has not accepted them.
        """
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one signal goes. ``url`` is a base URL; with None, ``OTEL_*`` variables decide."""

    signal: SignalName
    url: str | None
    environment: Mapping[str, str]

    @property
    def protocol(self) -> str:
        """``http/protobuf`` or ``grpc``; any other value logs a warning and means the first."""
        name, value = self._variable("PROTOCOL")
        if value and value not in _PROTOCOLS:
            _logger.warning("sidelight: %s=%s is not supported; http/protobuf is used", name, value)
        return value if value in _PROTOCOLS else "http/protobuf"

    @property
    def timeout(self) -> float:
        """Seconds for one request, as the Python SDK reads the variable; at most 60."""
        _, value = self._variable("TIMEOUT")
        with suppress(ValueError):
            if (seconds := float(value)) > 0:
                return min(seconds, _MAX_TIMEOUT)
        return TIMEOUT

    def _variable(self, name: str) -> tuple[str, str]:
        for each in (
            f"OTEL_EXPORTER_OTLP_{self.signal.upper()}_{name}",
            f"OTEL_EXPORTER_OTLP_{name}",
        ):
            if value := self.environment.get(each, "").strip():
                return each, value
        return "", ""

    def exporter(self) -> Exporter:
        """Make an exporter."""
        return GrpcExporter(self) if self.protocol == "grpc" else HttpExporter(self)

    def sdk(self) -> Any:
        """The class of the SDK's exporter for this signal and protocol; slow to import."""
        package = "grpc" if self.protocol == "grpc" else "http"
        module, name = _CLASSES[self.signal]
        if package == "grpc":
            _import_grpc()
        found = importlib.import_module(f"opentelemetry.exporter.otlp.proto.{package}.{module}")
        return getattr(found, name)


def _import_grpc() -> None:
    """Import gRPC so that its core does not write failed handshakes to standard error."""
    if "grpc" in sys.modules or "GRPC_VERBOSITY" in os.environ:
        return
    os.environ["GRPC_VERBOSITY"] = "ERROR"
    try:
        importlib.import_module("grpc").insecure_channel("localhost:1").close()
    finally:
        del os.environ["GRPC_VERBOSITY"]


class HttpExporter:
    """OTLP over HTTP, as protobuf."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._signal: SignalName = endpoint.signal
        self._session = DeadlineSession()
        url = endpoint.url
        self._sdk = endpoint.sdk()(
            endpoint=None if url is None else f"{url.rstrip('/')}/v1/{endpoint.signal}",
            timeout=endpoint.timeout,
            session=self._session,
        )

    def send(self, items: Sequence[Any], /) -> Rejected:
        """See `Exporter`."""
        answer = self._session.answer = type(self._session.answer)()
        try:
            is_accepted = self._sdk.export(items).name == "SUCCESS"
        except RequestFailed:
            is_accepted = False
        except Exception as error:  # an item that cannot be encoded
            raise ExportError("refused", f"{type(error).__name__}: {error}") from error
        answer = self._session.answer
        if is_accepted:
            return _rejected(self._signal, answer.body)
        if not answer.sent:
            raise ExportError("refused", "the request cannot be encoded, or is too large")
        raise ExportError(_http_kind(answer.status), answer.problem, answer.retry_after)

    def close(self) -> None:
        """See `Exporter`."""
        self._session.close()


def _http_kind(status: int | None) -> str:
    if status in {400, 413, 422}:
        return "refused"
    if status in {404, 405, 501}:
        return "unsupported"
    return "failed" if status == 500 else "unavailable"


def _rejected(signal: SignalName, body: bytes) -> Rejected:
    try:
        return _partial(signal, _RESPONSES[signal].FromString(body))
    except Exception:  # noqa: BLE001  # an answer without protobuf means full success
        return Rejected()


def _partial(signal: SignalName, response: Any) -> Rejected:
    partial = response.partial_success
    return Rejected(getattr(partial, _REJECTED[signal]), partial.error_message)


class GrpcExporter:
    """OTLP over gRPC."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._signal: SignalName = endpoint.signal
        self._timeout = endpoint.timeout
        self._encode = encode_spans if endpoint.signal == "traces" else encode_logs
        self._sdk = endpoint.sdk()(endpoint=endpoint.url, timeout=endpoint.timeout)
        channel, stub = getattr(self._sdk, "_channel", None), getattr(self._sdk, "_stub", None)
        self._client = (
            stub(_unwrap_channel(channel)) if channel is not None and stub is not None else None
        )

    def send(self, items: Sequence[Any], /) -> Rejected:
        """See `Exporter`."""
        import grpc  # type: ignore[import-untyped]  # noqa: PLC0415

        if self._client is None:
            if self._sdk.export(items).name == "SUCCESS":
                return Rejected()
            raise ExportError("unavailable", "the export failed")
        headers = getattr(self._sdk, "_headers", None)
        try:
            request = self._encode(items)
        except Exception as error:
            raise ExportError("refused", f"{type(error).__name__}: {error}") from error
        try:
            response = self._client.Export(request, metadata=headers or None, timeout=self._timeout)
        except grpc.RpcError as error:
            raise _grpc_error(error) from error
        return _partial(self._signal, response)

    def close(self) -> None:
        """See `Exporter`."""
        self._sdk.shutdown()


def _unwrap_channel(channel: Any) -> Any:
    """Remove a tracer's interceptors, because the relay's exports are not traced."""
    while type(channel).__module__ == "grpc._interceptor":
        channel = channel._channel  # noqa: SLF001  # gRPC has no public name for it
    return channel


def _grpc_error(error: Any) -> ExportError:
    code = error.code().name
    wait = _retry_info(error)
    kinds = {"UNIMPLEMENTED": "unsupported", "INVALID_ARGUMENT": "refused"}
    kinds |= dict.fromkeys(("INTERNAL", "UNKNOWN", "DATA_LOSS"), "failed")
    if code == "RESOURCE_EXHAUSTED" and wait is None:
        kinds[code] = "refused"  # the message is too large for the endpoint
    return ExportError(kinds.get(code, "unavailable"), f"{code}: {error.details()}", wait or 0.0)


def _retry_info(error: Any) -> float | None:
    """The seconds of a RetryInfo; None if the error has none."""
    from google.rpc.error_details_pb2 import (  # type: ignore[import-untyped]  # noqa: PLC0415
        RetryInfo,
    )

    for key, value in error.trailing_metadata() or ():
        if key == "google.rpc.retryinfo-bin":
            with suppress(Exception):
                delay = RetryInfo.FromString(value).retry_delay
                return float(delay.seconds + delay.nanos / 1e9)
    return None


_thread: Final = threading.local()
_LOGGERS: Final = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.http._log_exporter",
    "opentelemetry.exporter.otlp.proto.http._common",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.proto.common._internal",
    "opentelemetry.exporter.otlp.common.http",
    "opentelemetry.attributes",
    "urllib3.connectionpool",
    "urllib3.connection",
)


@contextmanager
def silence_exporters() -> Iterator[None]:
    """Keep the exporters' log lines about the relay's exports out of the application's log.

    The relay logs a failure once, and `sidelight doctor` shows it.
    """
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_is_of_application)  # a filter is added only once
    _thread.exporting = True
    try:
        yield
    finally:
        _thread.exporting = False


def _is_of_application(_: logging.LogRecord) -> bool:
    return not getattr(_thread, "exporting", False)
