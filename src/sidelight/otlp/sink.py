"""The sinks that export over OTLP: one for spans, one for events as log records.

Each sink has its own cursor, so that a back end without logs, or a dead endpoint of one signal,
does not block the other signal. Timeouts are short, because the relay retries.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec
from opentelemetry import context as otel_context

from sidelight.exceptions import SinkRefusedError, SinkUnavailableError, SinkUnsupportedError
from sidelight.host import monotonic, sleep, suppressed
from sidelight.otlp.endpoint import Endpoint
from sidelight.otlp.exporter import Exporter, ExportError, SignalName
from sidelight.otlp.http_exporter import HttpExporter
from sidelight.otlp.logs import log_encoder
from sidelight.otlp.requests import encode_request, encode_resource
from sidelight.otlp.spans import span_encoder
from sidelight.record import Limits, limits_of
from sidelight.spool import Record

_REQUEST: Final = 1000  # records of one request …
_REQUEST_BYTES: Final = 1024 * 1024  # … and their bytes; gRPC servers refuse more than 4 MiB
_ENCODED_AT_ONCE: Final = 128  # records between two offers of the GIL
_MAX_FAILURES: Final = 8  # internal errors of the endpoint before the records are the suspects
_UNSUPPORTED_RETRY: Final = 600.0  # seconds until a back end without logs is asked again

Count: TypeAlias = Callable[[str, str], None]
"""Counts a loss: called with reason and problem."""
_ENCODERS: Final = {"traces": span_encoder, "logs": log_encoder}
_WORDS: Final[Mapping[SignalName, str]] = {"traces": "spans", "logs": "log records"}


def exporter_class(endpoint: Endpoint) -> Callable[[Endpoint], Exporter]:
    """Import the exporter for the endpoint's protocol; gRPC and the SDK are slow to import."""
    if endpoint.protocol == "http/protobuf":
        return HttpExporter
    from sidelight.otlp.grpc_exporter import GrpcExporter  # noqa: PLC0415

    return GrpcExporter


class OtlpSettings(msgspec.Struct, frozen=True):
    """Which signals go where. With endpoint None, ``OTEL_*`` variables decide."""

    traces: bool = True
    logs: bool = True
    endpoint: str | None = None
    environment: Mapping[str, str] = msgspec.field(default_factory=lambda: dict(os.environ))

    def sinks(
        self, count: Count = lambda _reason, _problem: None, *, lossless: bool = False
    ) -> list[OtlpSink]:
        """Make the sinks of the signals that are on.

        Args:
            count: gets what a back end rejects.
            lossless: see `OtlpSink`.
        """
        signals: dict[SignalName, bool] = {"traces": self.traces, "logs": self.logs}
        return [
            OtlpSink(Endpoint(signal, self.endpoint, self.environment), count, lossless=lossless)
            for signal, is_on in signals.items()
            if is_on
        ]


class OtlpSink:
    """Exports one signal of the records. One thread at a time uses it.

    A relay must go on, so its sink counts what an endpoint does not accept as lost. A command that
    sends records again must say what it did not send, so its sink is lossless.

    Args:
        endpoint: of the signal.
        count: counts the items that the endpoint rejects.
        lossless: raise where the endpoint takes no log records, or rejects a whole request. An
            endpoint does not tell which items of a request it rejects, so the others are counted.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        count: Count = lambda _reason, _problem: None,
        *,
        lossless: bool = False,
    ) -> None:
        """Import the exporter; open nothing yet."""
        self.name: SignalName = endpoint.signal
        self._is_lossless = lossless
        # Import here, because a fork during a later import breaks the child.
        self._connect = exporter_class(endpoint)
        self._endpoint = endpoint
        self._count = count
        self._exporter: Exporter | None = None
        self._batch: object = None
        self._sent = 0
        self._failures = 0
        self._refused: list[Record] = []
        self._refusal = ""
        self._problem = ""
        self._not_before = 0.0
        self._unsupported_until = 0.0
        self._resources: dict[str, bytes] = {}

    def write(self, records: Sequence[Record], writer: dict[str, Any]) -> None:
        """Export a batch. A retry of the same batch continues after the accepted records.

        Raises:
            SinkUnavailableError: the endpoint does not answer, or asks for a later retry.
            SinkUnsupportedError: the endpoint does not know the signal, and the sink is lossless.
            SinkRefusedError: the endpoint will never accept the records in ``facts["records"]``;
                it has accepted all others.
        """
        batch = (records[0][1].random, len(records)) if records else None
        if batch != self._batch:
            self._batch, self._sent, self._failures, self._refused = batch, 0, 0, []
        now = monotonic()
        if now < self._unsupported_until:
            return
        if now < self._not_before:
            raise self._unavailable(f"{self._problem}; the endpoint asked for a later retry")
        token = otel_context.attach(suppressed())
        try:
            self._send_all(records, self._resource(writer), limits_of(writer))
        except ExportError as error:
            self._postpone(error)
        finally:
            otel_context.detach(token)
        refused, self._refused = self._refused, []
        if refused:
            raise SinkRefusedError(sink=self._title, problem=self._refusal, records=refused)

    def sync(self) -> None:
        """Do nothing: the endpoint is responsible for what it has acknowledged."""

    def close(self) -> None:
        """Close the connection; the next write opens another."""
        exporter, self._exporter = self._exporter, None
        if exporter is not None:
            exporter.close()

    def disown(self, *, busy: bool) -> bool:  # noqa: ARG002  # the protocol of sinks
        """Leave the connection alone in a forked child, which makes a new sink."""
        return True

    # -- one batch ---------------------------------------------------------------------------

    def _send_all(self, records: Sequence[Record], resource: bytes, limits: Limits) -> None:
        exporter = self._open()
        while self._sent < len(records):
            upto, pairs = self._encode(records, limits)
            if pairs:
                self._send(exporter, pairs, resource)
            self._sent = upto
            self._failures = 0

    def _encode(
        self, records: Sequence[Record], limits: Limits
    ) -> tuple[int, list[tuple[Record, bytes]]]:
        """Encode the records of the next request; also return the index of the first one after."""
        encode = _ENCODERS[self.name](limits, time.time_ns())
        pairs: list[tuple[Record, bytes]] = []
        end, size = self._sent, 0
        while len(pairs) < _REQUEST and size < _REQUEST_BYTES and end < len(records):
            for record in records[end : end + min(_ENCODED_AT_ONCE, _REQUEST)]:
                end += 1
                static, moment = record
                try:
                    encoded = encode(static, moment)
                except Exception as error:  # noqa: BLE001  # a record of unexpected shape
                    self._refuse(record, f"{type(error).__name__}: {error}")
                    continue
                if encoded is not None:
                    size += len(encoded)
                    pairs.append((record, encoded))
                    if size >= _REQUEST_BYTES:
                        break
            sleep(0)
        return end, pairs

    def _send(
        self,
        exporter: Exporter,
        pairs: Sequence[tuple[Record, bytes]],
        resource: bytes,
        *,
        suspect: bool = True,
    ) -> None:
        """Send one request; halve a refused one until the poison records are found."""
        try:
            rejected = exporter.send(
                encode_request(((static.origin, item) for (static, _), item in pairs), resource)
            )
        except ExportError as error:
            self._failures += suspect and error.kind == "failed"
            is_suspect = error.kind == "failed" and self._failures >= _MAX_FAILURES
            if not is_suspect and error.kind != "refused":
                raise
            if suspect:
                self._probe(exporter, error)
            if len(pairs) == 1:
                self._refuse(pairs[0][0], str(error))
                return
            half = len(pairs) // 2
            self._send(exporter, pairs[:half], resource, suspect=False)
            self._send(exporter, pairs[half:], resource, suspect=False)
            return
        if self._is_lossless and rejected.number >= len(pairs):
            for record, _ in pairs:
                self._refuse(
                    record, f"the endpoint rejected it: {rejected.why or 'without a reason'}"
                )
            return
        for _ in range(min(rejected.number, len(pairs))):
            self._count(f"{_WORDS[self.name]} rejected by the OTLP endpoint", rejected.why)

    def _probe(self, exporter: Exporter, refusal: ExportError) -> None:
        """Treat an endpoint that refuses an empty request as well as unavailable."""
        try:
            exporter.send(b"")
        except ExportError as error:
            raise ExportError("unavailable", str(refusal), error.retry_after) from refusal

    def _refuse(self, record: Record, problem: str) -> None:
        if not any(record is known for known in self._refused):  # a retry finds it again
            self._refused.append(record)
        self._refusal = problem

    # -- the endpoint ------------------------------------------------------------------------

    @property
    def _title(self) -> str:
        return f"OTLP {_WORDS[self.name]}"

    def _open(self) -> Exporter:
        if self._exporter is None:
            try:
                self._exporter = self._connect(self._endpoint)
            except Exception as error:  # an invalid variable, or a missing certificate file
                raise ExportError("unavailable", f"{type(error).__name__}: {error}") from error
        return self._exporter

    def _postpone(self, error: ExportError) -> None:
        if self._is_lossless and error.kind == "unsupported":
            raise SinkUnsupportedError(sink=self._title, problem=str(error)) from error
        if error.kind == "unsupported" and self.name == "logs":  # many back ends accept only spans
            self._unsupported_until = monotonic() + _UNSUPPORTED_RETRY
            self._count(
                "the OTLP endpoint takes no log records",
                f"{error}; OTEL_LOGS_EXPORTER=none sends none",
            )
            return
        self._problem = str(error)
        self._not_before = monotonic() + error.retry_after
        self.close()  # a gRPC channel reconnects late
        raise self._unavailable(self._problem) from error

    def _unavailable(self, problem: str) -> SinkUnavailableError:
        return SinkUnavailableError(sink=self._title, problem=problem)

    def _resource(self, writer: dict[str, Any]) -> bytes:
        key = str(writer.get("instance", ""))
        if key not in self._resources:
            if len(self._resources) > 100:
                self._resources.clear()
            self._resources[key] = encode_resource(writer)
        return self._resources[key]
