"""The sink that exports spans and events over OTLP, with the SDK's own encoders and exporters.

What the exporters hide (which status came back, what of a request was rejected) is read by a
`requests.Session` of ours; retrying is the relay's, so that timeouts here are short.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import requests
from opentelemetry import context as otel_context
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.resources import Resource

from sidelight import adapter
from sidelight.exceptions import ConfigurationError, SinkRefusedError, SinkUnavailableError
from sidelight.record import Moment, Static
from sidelight.sinks.telemetry import log_of, resource_of, span_of

TIMEOUT: Final = 5.0
"""Seconds for one request, where OTEL_EXPORTER_OTLP_TIMEOUT does not say otherwise."""
_PIECE: Final = 128  # records of one request: encoding them must not hold the GIL for long
_REFUSED: Final = frozenset({400, 413, 422})
_MAX_BODY: Final = 64 * 1024


@dataclass(slots=True)
class Answer:
    """What came back for one request."""

    status: int | None = None
    body: bytes = b""
    problem: str = ""


class DeadlineSession(requests.Session):
    """A session that keeps what it was answered, and a deadline for the whole of an answer."""

    def __init__(self, deadline: float) -> None:
        super().__init__()
        self.deadline = deadline
        self.answer = Answer()

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Send, without following redirects, and read the answer until the deadline."""
        self.answer = answer = Answer()
        until = time.monotonic() + self.deadline
        kwargs.update(stream=True, allow_redirects=False)
        try:
            response = super().request(*args, **kwargs)
            answer.status = response.status_code
            body = bytearray()
            for chunk in response.iter_content(chunk_size=None):
                body += chunk
                if time.monotonic() > until or len(body) > _MAX_BODY:
                    response.close()
                    raise requests.ReadTimeout(f"the answer took longer than {self.deadline} s")
            response._content = answer.body = bytes(body)  # noqa: SLF001  # read already
        except requests.RequestException as error:
            answer.problem = _cause(error)
            raise _GivenUp(answer.problem) from error
        if not 200 <= response.status_code < 300:
            answer.problem = f"it answered {response.status_code} {response.reason}"
            raise _GivenUp(answer.problem)
        return response


class _GivenUp(Exception):  # noqa: N818  # not an error of ours: it ends the exporter's own retries
    """The exporter must not retry: the relay does."""


def _cause(error: BaseException) -> str:
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return f"{type(error).__name__}: {error}"


@dataclass(slots=True)
class Signal:
    """Spans or logs on their way to one endpoint."""

    name: str
    exporter: Any
    session: DeadlineSession | None
    build: Callable[[Static, Moment, Resource], Any]
    rejected: Callable[[bytes], tuple[int, str]]
    sent: int = 0

    def send(self, items: Sequence[Any]) -> tuple[int, str]:
        """Export some; answers how many of them were rejected, and why.

        Raises:
            SinkUnavailableError: try again later.
            SinkRefusedError: these will never be taken.
        """
        outcome = self.exporter.export(items)
        answer = self.session.answer if self.session is not None else Answer()
        if outcome.name == "SUCCESS":
            return self.rejected(answer.body)
        problem = answer.problem or "the export failed"
        if answer.status in _REFUSED:
            raise SinkRefusedError(sink=f"OTLP {self.name}", problem=problem)
        raise SinkUnavailableError(sink=f"OTLP {self.name}", problem=problem)


@dataclass(frozen=True, slots=True)
class OtlpSettings:
    """Which signals go where. An endpoint None leaves it to the exporter and its variables."""

    traces: bool = True
    logs: bool = True
    endpoint: str | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def protocol(self, signal: str) -> str:
        """``http/protobuf`` or ``grpc``.

        Raises:
            ConfigurationError: the variable names another.
        """
        for name in (f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
            value = self.environment.get(name, "").strip()
            if value in {"http/protobuf", "grpc"}:
                return value
            if value:
                raise ConfigurationError(
                    setting=name, problem=f"{value} is not supported", remedy="use http/protobuf or grpc"
                )
        return "http/protobuf"

    def timeout(self, signal: str) -> float:
        """Seconds for one request."""
        for name in (f"OTEL_EXPORTER_OTLP_{signal}_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"):
            with contextlib.suppress(ValueError):
                return float(self.environment.get(name, ""))
        return TIMEOUT

    def endpoint_of(self, signal: str, protocol: str) -> str | None:
        """The explicit endpoint of a signal, None to let the variables decide."""
        if self.endpoint is None or protocol == "grpc":
            return self.endpoint
        return f"{self.endpoint.rstrip('/')}/v1/{signal.lower()}"


class OtlpSink:
    """Exports what records carry: spans as spans, events as log records."""

    name: Final = "otlp"

    def __init__(self, settings: OtlpSettings) -> None:
        self.settings = settings
        self.rejected: dict[str, int] = {}
        self._signals: list[Signal] | None = None
        self._batch: object = None
        self._resources: dict[str, Resource] = {}

    def write(self, records: Sequence[tuple[Static, Moment]], writer: dict[str, Any]) -> None:
        """Export a batch. A retry of the same batch goes on behind what was taken already.

        Raises:
            SinkUnavailableError: the endpoint does not answer, or says that it cannot now.
            SinkRefusedError: it says that it will never take one of these.
        """
        if self._signals is None:
            self._signals = _signals(self.settings)
        batch = (records[0][1].random, len(records)) if records else None
        if batch != self._batch:
            self._batch = batch
            for signal in self._signals:
                signal.sent = 0
        resource = self._resource(writer)
        token = otel_context.attach(adapter.suppressed())
        try:
            for signal in self._signals:
                self._send(signal, records, resource)
        finally:
            otel_context.detach(token)

    def _send(
        self, signal: Signal, records: Sequence[tuple[Static, Moment]], resource: Resource
    ) -> None:
        for start in range(signal.sent, len(records), _PIECE):
            piece = records[start : start + _PIECE]
            items = [item for s, m in piece if (item := signal.build(s, m, resource)) is not None]
            if items:
                count, problem = signal.send(items)
                if count:
                    reason = f"{signal.name} rejected by the OTLP endpoint ({problem})"
                    self.rejected[reason] = self.rejected.get(reason, 0) + count
            signal.sent = start + len(piece)
            time.sleep(0)  # let the application have the GIL between pieces
        signal.sent = len(records)

    def _resource(self, writer: dict[str, Any]) -> Resource:
        key = str(writer.get("instance", ""))
        if key not in self._resources:
            if len(self._resources) > 100:
                self._resources.clear()
            self._resources[key] = resource_of(writer)
        return self._resources[key]

    def close(self) -> None:
        """Let go of the connections."""
        signals, self._signals = self._signals, None
        for signal in signals or ():
            if signal.session is not None:
                signal.session.close()


def _signals(settings: OtlpSettings) -> list[Signal]:
    signals = []
    if settings.traces:
        signals.append(_signal("spans", "TRACES", settings, span_of, ExportTraceServiceResponse))
    if settings.logs:
        signals.append(_signal("logs", "LOGS", settings, log_of, ExportLogsServiceResponse))
    _quieten()
    return signals


def _signal(
    name: str, variable: str, settings: OtlpSettings, build: Callable[..., Any], response: Any
) -> Signal:
    protocol = settings.protocol(variable)
    timeout = settings.timeout(variable)
    endpoint = settings.endpoint_of(variable, protocol)
    if protocol == "grpc":
        exporter = _grpc_exporter(variable)(endpoint=endpoint, timeout=timeout)
        return Signal(name, exporter, None, build, lambda _: (0, ""))
    session = DeadlineSession(timeout)
    exporter = _http_exporter(variable)(endpoint=endpoint, timeout=timeout, session=session)

    def rejected(body: bytes) -> tuple[int, str]:
        try:
            partial = response.FromString(body).partial_success
        except Exception:  # noqa: BLE001  # an answer without our protobuf is a plain yes
            return 0, ""
        return getattr(partial, f"rejected_{'log_records' if name == 'logs' else name}"), (
            partial.error_message
        )

    return Signal(name, exporter, session, build, rejected)


def _http_exporter(variable: str) -> Any:
    if variable == "TRACES":
        from opentelemetry.exporter.otlp.proto.http import trace_exporter  # noqa: PLC0415

        return trace_exporter.OTLPSpanExporter
    from opentelemetry.exporter.otlp.proto.http import _log_exporter  # noqa: PLC0415

    return _log_exporter.OTLPLogExporter


def _grpc_exporter(variable: str) -> Any:
    if variable == "TRACES":
        from opentelemetry.exporter.otlp.proto.grpc import trace_exporter  # noqa: PLC0415

        return trace_exporter.OTLPSpanExporter
    from opentelemetry.exporter.otlp.proto.grpc import _log_exporter  # noqa: PLC0415

    return _log_exporter.OTLPLogExporter


def _quieten() -> None:
    """The exporters log each failure; ours are told by the relay, once, and by `doctor`."""
    for name in _exporter_loggers():
        logger = logging.getLogger(name)
        if _not_ours not in logger.filters:
            logger.addFilter(_not_ours)


def _exporter_loggers() -> Iterable[str]:
    for protocol, module in (("http", "trace_exporter"), ("http", "_log_exporter")):
        yield f"opentelemetry.exporter.otlp.proto.{protocol}.{module}"
    yield "opentelemetry.exporter.otlp.proto.grpc.exporter"
    yield "opentelemetry.exporter.otlp.common.http"


def _not_ours(_: logging.LogRecord) -> bool:
    return not threading.current_thread().name.startswith("sidelight")
