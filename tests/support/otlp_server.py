"""A small OTLP receiver in this process, over HTTP or gRPC, that refuses what a test calls poison.

::

    with OtlpServer("grpc") as server:
        ...                       # send to server.endpoint
        server.numbers            # attribute ``n`` of each span that it accepted, in order
        server.stop()             # its port refuses connections until start()

The Collector judges what is sent; this receiver only says yes or no, and needs no Go.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from tests.support.ports import LOOPBACK, free_ports

POISON = -1
"""A request with a span of this number is refused for good."""


class OtlpServer:
    """Receives spans on one port.

    Attributes:
        numbers: attribute ``n`` of each accepted span.
    """

    def __init__(self, protocol: str) -> None:
        """``protocol`` is ``http/protobuf`` or ``grpc``."""
        self.numbers: list[int] = []
        self._protocol = protocol
        self._port = free_ports(1)[0]
        self._server: Any = None

    @property
    def endpoint(self) -> str:
        """For OTEL_EXPORTER_OTLP_ENDPOINT."""
        return f"http://{LOOPBACK}:{self._port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen."""
        self._server = (_grpc if self._protocol == "grpc" else _http)(self._port, self._accepts)

    def stop(self) -> None:
        """Close the port."""
        server, self._server = self._server, None
        if isinstance(server, ThreadingHTTPServer):
            server.shutdown()
            server.server_close()
        elif server is not None:
            server.stop(None).wait()

    def _accepts(self, request: ExportTraceServiceRequest) -> bool:
        spans = (s for r in request.resource_spans for scope in r.scope_spans for s in scope.spans)
        attributes = [{pair.key: pair.value.int_value for pair in s.attributes} for s in spans]
        numbers = [each["n"] for each in attributes]
        if POISON in numbers:
            return False
        self.numbers += numbers
        return True


def _http(port: int, accepts: Any) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            is_accepted = accepts(ExportTraceServiceRequest.FromString(body))
            self.send_response(200 if is_accepted else 400)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer((LOOPBACK, port), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server


def _grpc(port: int, accepts: Any) -> grpc.Server:
    class Servicer(TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> ExportTraceServiceResponse:
            if not accepts(request):
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "poison")
            return ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(Servicer(), server)
    server.add_insecure_port(f"{LOOPBACK}:{port}")
    server.start()
    return server
