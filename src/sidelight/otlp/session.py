"""The HTTP session of the OTLP exporters: keeps the answer, and has a deadline for all of it.

The SDK's exporters hide the cause of a failure, count a redirect as success, and retry. A timeout
of `requests` starts anew with each byte; here the whole answer must arrive within the timeout.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPResponse
from typing import Any, Final

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from sidelight.host import monotonic

_MAX_BODY: Final = 64 * 1024
_MAX_WAIT: Final = 300.0
_DEFAULT_TIMEOUT: Final = 60.0


@dataclass(slots=True)
class Answer:
    """The answer to one request; ``retry_after`` in seconds."""

    sent: bool = False
    status: int | None = None
    body: bytes = b""
    problem: str = ""
    retry_after: float = 0.0


class RequestFailed(Exception):  # noqa: N818
    """Ends the exporter's own retries, because the relay retries."""


def _as_configured(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Leave the request as it is; without this, requests takes credentials from ``.netrc``."""
    return request


class DeadlineSession(requests.Session):
    """A session for one exporter: no redirects, no retries; keeps the last answer."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = Answer()
        self.auth = _as_configured
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter())

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request and read the answer.

        Raises:
            RequestFailed: no answer, or not a success; `answer` holds the cause.
        """
        self.answer = answer = Answer(sent=True)
        kwargs.update(stream=True, allow_redirects=False)
        if kwargs.get("verify") is None:
            kwargs["verify"] = self.verify  # else requests uses the application's CA bundle
        try:
            response = super().request(*args, **kwargs)
            answer.status = response.status_code
            body = response.raw.read(_MAX_BODY, decode_content=True)
            response._content = answer.body = body  # noqa: SLF001
            if response.raw.read(1):
                response.close()
        except Exception as error:
            answer.problem = _cause(error)
            raise RequestFailed(answer.problem) from error
        if not 200 <= response.status_code < 300:
            answer.problem = f"it answered {response.status_code} {response.reason}"
            answer.retry_after = _seconds(response.headers.get("Retry-After", ""))
            raise RequestFailed(answer.problem)
        return response

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Send without a tracer's wrapper: not every tracer honours the suppression key."""
        response: requests.Response = inspect.unwrap(requests.Session.send)(self, *args, **kwargs)
        return response


def _cause(error: BaseException) -> str:
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return f"{type(error).__name__}: {error}"


def _seconds(text: str) -> float:
    """The seconds of a Retry-After header, which holds a number or a date."""
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return min(max(float(text), 0.0), _MAX_WAIT)
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return min(max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0), _MAX_WAIT)
    return 0.0


class _TimedFile(io.RawIOBase):
    """The reading side of a socket, until a time of the monotonic clock."""

    def __init__(self, connection: socket.socket, until: float) -> None:
        self._socket = connection
        self._file = connection.makefile("rb", buffering=0)
        self._until = until

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        left = self._until - monotonic()
        if left <= 0:
            raise TimeoutError("the answer was not whole in time")
        self._socket.settimeout(left)
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()


class _TimedResponse(HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, until: float, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self.fp = io.BufferedReader(_TimedFile(sock, until))


def _response_class(connection: Any) -> Callable[..., HTTPResponse]:
    """Make the connection's timeout one for the whole answer."""
    timeout = connection.timeout
    seconds = timeout if isinstance(timeout, int | float) else _DEFAULT_TIMEOUT
    return functools.partial(_TimedResponse, until=monotonic() + seconds)


class _Http(HTTPConnection):
    response_class = property(_response_class)  # pyright: ignore[reportAssignmentType]


class _Https(HTTPSConnection):
    response_class = property(_response_class)  # pyright: ignore[reportAssignmentType]


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _Http  # pyright: ignore[reportAssignmentType]


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _Https  # pyright: ignore[reportAssignmentType]


class _Adapter(HTTPAdapter):
    """Makes connections with a deadline, also through a proxy."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        if not args[0].startswith("socks"):
            manager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
        return manager
