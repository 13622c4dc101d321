"""OTLP over HTTP: posts encoded requests over a kept connection.

The whole exchange has a deadline. No redirect is followed, nothing is retried, and no credentials
but the configured ones are sent. Requests are written here, not by the methods of `http.client`,
because tracers wrap those.
"""

from __future__ import annotations

import contextlib
import time
import zlib
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection
from typing import Final

from sidelight.host import Descriptor, monotonic, socket_descriptor
from sidelight.otlp.connection import Route, TimedResponse, is_stale, time_left
from sidelight.otlp.endpoint import Endpoint
from sidelight.otlp.exporter import ExportError, Rejected
from sidelight.otlp.requests import decode_answer
from sidelight.version import __version__

_MAX_BODY: Final = 64 * 1024
_MAX_WAIT: Final = 300.0
_LEVEL: Final = 1  # of zlib: a quarter of the default's time for a few more bytes
_WINDOWS: Final = {"gzip": 31, "deflate": 15}


class HttpExporter:
    """Sends requests of one signal over HTTP, as protobuf."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Read addresses, headers and certificates; connect to nothing yet.

        Raises:
            ValueError: a variable cannot be used.
        """
        self._timeout = endpoint.timeout
        self._route = Route(endpoint)
        self._connection: HTTPConnection | None = None
        self._socket: Descriptor | None = None  # of the connection
        compression = endpoint.compression
        self._window = _WINDOWS[compression] if compression else None
        headers = {
            **self._route.headers,
            "user-agent": f"sidelight/{__version__}",
            "content-type": "application/x-protobuf",
            **({"content-encoding": compression} if compression else {}),
            **endpoint.headers(),
        }
        lines = [f"POST {self._route.target} HTTP/1.1", *map(": ".join, headers.items())]
        self._head = "\r\n".join(lines).encode("latin-1")

    def send(self, request: bytes, /) -> Rejected:
        """See `Exporter`."""
        if self._window is not None:
            request = zlib.compress(request, _LEVEL, self._window)
        try:
            answer, body = self._exchange(request)
        except Exception as error:
            self.close()
            raise ExportError("unavailable", f"{type(error).__name__}: {error}") from error
        if 200 <= answer.status < 300:
            return decode_answer(body)
        raise ExportError(
            kind_of_status(answer.status),
            f"it answered {answer.status} {answer.reason}",
            seconds_of(answer.headers.get("Retry-After", "")),
        )

    def close(self) -> None:
        """See `Exporter`."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._is_lost():
            connection.sock.detach()
        connection.close()

    def _is_lost(self) -> bool:
        """Return whether other code has closed the socket; its number may be another socket's."""
        return self._socket is not None and not self._socket.is_own()

    def _exchange(self, request: bytes) -> tuple[TimedResponse, bytes]:
        until = monotonic() + self._timeout
        if self._connection is None or self._is_lost() or is_stale(self._connection):
            self.close()
            self._connection = self._route.connect(until)
            self._socket = socket_descriptor(self._connection.sock.fileno())
        sock = self._connection.sock
        sock.settimeout(time_left(until))
        sock.sendall(b"%b\r\ncontent-length: %d\r\n\r\n%b" % (self._head, len(request), request))
        with TimedResponse(sock, until) as answer:
            answer.begin()
            body = answer.read(_MAX_BODY)
            is_reusable = answer.isclosed() and not answer.will_close
        if not is_reusable:
            self.close()
        return answer, body


def kind_of_status(status: int) -> str:
    """Return the kind of an `ExportError` for a status of HTTP."""
    if status in {400, 413, 422}:
        return "refused"
    if status in {404, 405, 501}:
        return "unsupported"
    return "failed" if status == 500 else "unavailable"


def seconds_of(text: str) -> float:
    """Return the seconds of a Retry-After header, which holds a number or a date."""
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return min(max(float(text), 0.0), _MAX_WAIT)
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return min(max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0), _MAX_WAIT)
    return 0.0
