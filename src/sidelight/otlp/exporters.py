"""The SDK's OTLP exporters, made to tell what became of a request.

Over HTTP the SDK's exporter sends, through a session of ours. Over gRPC the SDK's exporter makes
channel, credentials and headers from the environment, and the call is made here: its own loop
retries, hides the cause and ignores what was rejected. (``_channel``, ``_stub`` and ``_headers``
are private in it; where they are missing, its own `export` is used.)
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

from sidelight.otlp.session import DeadlineSession, GivenUp

SignalName: TypeAlias = Literal["traces", "logs"]
TIMEOUT: Final = 5.0
"""Seconds for one request, where OTEL_EXPORTER_OTLP_TIMEOUT does not say otherwise."""
_LONGEST_TIMEOUT: Final = 60.0
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
    """How many of the items of a request were not taken (a partial success), and why."""

    number: int = 0
    why: str = ""


class ExportError(Exception):
    """The endpoint has not taken a request.

    Attributes:
        kind: "refused" says that it will never take it; "failed" that something went wrong inside
            (which may be the request's doing); "unsupported" that it knows no such signal;
            "unavailable" that it cannot now.
        retry_after: seconds that it wants to be left alone.
    """

    def __init__(self, kind: str, problem: str, retry_after: float = 0.0) -> None:
        super().__init__(problem)
        self.kind = kind
        self.retry_after = retry_after


class Exporter(Protocol):
    """Sends items of one signal to one endpoint."""

    def send(self, items: Sequence[Any], /) -> Rejected:
        """Send some in one request; none at all asks whether the endpoint answers.

        Raises:
            ExportError: they have not arrived.
        """
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one signal goes. ``url`` is a base URL; None leaves it to the ``OTEL_*`` variables."""

    signal: SignalName
    url: str | None
    environment: Mapping[str, str]

    @property
    def protocol(self) -> str:
        """``http/protobuf`` or ``grpc``; another one is logged, and the first is used."""
        name, value = self._variable("PROTOCOL")
        if value and value not in _PROTOCOLS:
            _logger.warning("sidelight: %s=%s is not supported; http/protobuf is used", name, value)
        return value if value in _PROTOCOLS else "http/protobuf"

    @property
    def timeout(self) -> float:
        """Seconds for one request, as the SDK for Python reads the variable; 60 at the most."""
        _, value = self._variable("TIMEOUT")
        with suppress(ValueError):
            if (seconds := float(value)) > 0:
                return min(seconds, _LONGEST_TIMEOUT)
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
        """Make the exporter."""
        return GrpcExporter(self) if self.protocol == "grpc" else HttpExporter(self)

    def sdk(self) -> Any:
        """The SDK's exporter of this signal and protocol, a class; importing it is slow."""
        package = "grpc" if self.protocol == "grpc" else "http"
        module, name = _CLASSES[self.signal]
        if package == "grpc":
            _import_grpc()
        found = importlib.import_module(f"opentelemetry.exporter.otlp.proto.{package}.{module}")
        return getattr(found, name)


def _import_grpc() -> None:
    """Its core writes each failed handshake to standard error, unless told before it is loaded."""
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
            taken = self._sdk.export(items).name == "SUCCESS"
        except GivenUp:
            taken = False
        except Exception as error:  # an item that cannot be encoded
            raise ExportError("refused", f"{type(error).__name__}: {error}") from error
        answer = self._session.answer
        if taken:
            return _rejected(self._signal, answer.body)
        if not answer.sent:
            raise ExportError("refused", "it cannot be encoded, or is too large")
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
    except Exception:  # noqa: BLE001  # an answer without our protobuf is a plain yes
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
        self._client = stub(_bare(channel)) if channel is not None and stub is not None else None

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


def _bare(channel: Any) -> Any:
    """A channel as it is, and not what a tracer has put around it: our exports are none of its."""
    while type(channel).__module__ == "grpc._interceptor":
        channel = channel._channel  # noqa: SLF001  # there is no other way to it
    return channel


def _grpc_error(error: Any) -> ExportError:
    code = error.code().name
    wait = _retry_info(error)
    kinds = {"UNIMPLEMENTED": "unsupported", "INVALID_ARGUMENT": "refused"}
    kinds |= dict.fromkeys(("INTERNAL", "UNKNOWN", "DATA_LOSS"), "failed")
    if code == "RESOURCE_EXHAUSTED" and wait is None:
        kinds[code] = "refused"  # the message is larger than it takes
    return ExportError(kinds.get(code, "unavailable"), f"{code}: {error.details()}", wait or 0.0)


def _retry_info(error: Any) -> float | None:
    """The seconds of a RetryInfo; None where there is none."""
    from google.rpc.error_details_pb2 import (  # type: ignore[import-untyped]  # noqa: PLC0415
        RetryInfo,
    )

    for key, value in error.trailing_metadata() or ():
        if key == "google.rpc.retryinfo-bin":
            with suppress(Exception):
                delay = RetryInfo.FromString(value).retry_delay
                return float(delay.seconds + delay.nanos / 1e9)
    return None


_here: Final = threading.local()
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
def quiet() -> Iterator[None]:
    """Keep what the exporters log about our exports out of the application's log.

    The relay tells what is wrong, once, and `sidelight doctor` does.
    """
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_not_ours)  # the same one twice is one
    _here.exporting = True
    try:
        yield
    finally:
        _here.exporting = False


def _not_ours(_: logging.LogRecord) -> bool:
    return not getattr(_here, "exporting", False)
