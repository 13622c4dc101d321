"""HTTP connections to an endpoint: direct or through a proxy, with TLS, and with a deadline.

A timeout of a socket starts anew with each byte; here the whole answer must arrive in time.
"""

from __future__ import annotations

import base64
import io
import ipaddress
import os
import select
import socket
import ssl
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from importlib import import_module, util
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

from sidelight.host import monotonic
from sidelight.otlp.endpoint import Endpoint
from sidelight.settings import public_url

import_module("encodings.idna")  # `connect` uses it; a fork during a later import breaks the child

_PORTS: Final = {"http": 80, "https": 443}


class Route:
    """The way to an endpoint.

    Attributes:
        target: what a request line names: a path, or a whole URL where a proxy reads it.
        headers: ``host``, and the credentials of a proxy that reads the request.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        """Read addresses and certificates; connect to nothing yet.

        Raises:
            ValueError: an address, a certificate or a proxy cannot be used.
        """
        url = endpoint.address
        self._to = to = _address(url, "the OTLP endpoint")
        self._context = _context(endpoint) if to.scheme == "https" else None
        self._proxy = proxy = _proxy_for(to, endpoint.environment)
        path = to.path or "/"
        self.target = f"{path}?{to.query}" if to.query else path
        self.headers = {"host": to.netloc.rpartition("@")[2]}
        if proxy is not None and self._context is None:
            self.target = f"http://{self.headers['host']}{self.target}"
            self.headers |= _proxy_credentials(proxy)

    def connect(self, until: float) -> HTTPConnection:
        """Connect.

        Args:
            until: the deadline, on the monotonic clock (s).

        Raises:
            OSError, http.client.HTTPException: there is no connection.
        """
        at = self._proxy or self._to
        host, port, timeout = at.hostname, at.port or _PORTS[at.scheme], time_left(until)
        connection = (
            HTTPConnection(host or "", port, timeout=timeout)
            if self._context is None
            else HTTPSConnection(host or "", port, timeout=timeout, context=self._context)
        )
        if self._proxy is not None and self._context is not None:
            to = self._to
            connection.set_tunnel(
                to.hostname or "", to.port or 443, _proxy_credentials(self._proxy)
            )
        try:
            connection.connect()
        except BaseException:
            connection.close()
            raise
        return connection


def _address(url: str, what: str) -> SplitResult:
    parts = urlsplit(url)
    try:
        is_usable = parts.scheme in _PORTS and parts.hostname and (parts.port or 1)
    except ValueError:  # the port
        is_usable = False
    if not is_usable or not url.isascii() or any(c <= " " for c in url):
        raise ValueError(
            f"{what}: {public_url(url)!r} is no URL with http:// or https:// and a host"
        )
    return parts


def _context(endpoint: Endpoint) -> ssl.SSLContext:
    """Return the TLS context: it trusts the configured certificate alone, else the system's."""
    name, path = endpoint.variable("CERTIFICATE")
    try:
        is_directory = os.path.isdir(path)  # noqa: PTH112
        context = ssl.create_default_context(
            cafile=None if is_directory else path or None, capath=path if is_directory else None
        )
        if not path and util.find_spec("certifi"):
            context.load_verify_locations(import_module("certifi").where())
        name, path = endpoint.variable("CLIENT_CERTIFICATE")
        if path:
            context.load_cert_chain(path, endpoint.variable("CLIENT_KEY")[1] or None)
    except OSError as error:
        raise ValueError(f"{name}={path}: {error}") from error
    context.set_alpn_protocols(["http/1.1"])
    return context


def _proxy_for(to: SplitResult, environment: Mapping[str, str]) -> SplitResult | None:
    """Return the proxy of an address by ``http_proxy``, ``https_proxy`` and ``no_proxy``."""

    def read(name: str) -> str:
        return environment.get(name, "") or environment.get(name.upper(), "")

    name = f"{to.scheme}_proxy" if read(f"{to.scheme}_proxy") else "all_proxy"
    given = read(name)
    if not given or any(_is_within(to, each) for each in read("no_proxy").split(",")):
        return None
    proxy = _address(given if "://" in given else f"http://{given}", f"{name} in the environment")
    if proxy.scheme != "http":
        raise ValueError(f"{name} in the environment: the way to a proxy must be http://")
    return proxy


def _is_within(to: SplitResult, excepted: str) -> bool:
    """Return whether an entry of ``no_proxy`` covers an address: a name, a domain or a network."""
    host, excepted = (to.hostname or "").lower(), excepted.strip().lower().lstrip(".")
    if excepted == "*" or excepted in {host, f"{host}:{to.port}"}:
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(excepted, strict=False)
    except ValueError:  # one of them is a name
        return bool(excepted) and host.endswith(f".{excepted}")


def _proxy_credentials(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"proxy-authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def is_stale(connection: HTTPConnection) -> bool:
    """Return whether the peer has closed a connection that nothing is awaited from."""
    if connection.sock is None:
        return True
    if not hasattr(select, "poll"):  # Windows, where no descriptor is too large for `select`
        return bool(select.select([connection.sock], [], [], 0)[0])
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))


def time_left(until: float) -> float:
    """Return the seconds until a deadline.

    Raises:
        TimeoutError: it has passed.
    """
    left = until - monotonic()
    if left <= 0:
        raise TimeoutError("the answer was not whole in time")
    return left


class _TimedFile(io.RawIOBase):
    """The reading side of a socket, until a deadline."""

    def __init__(self, connection: socket.socket, until: float) -> None:
        self._socket = connection
        self._file = connection.makefile("rb", buffering=0)
        self._until = until

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        self._socket.settimeout(time_left(self._until))
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()


class TimedResponse(HTTPResponse):
    """An answer that must be whole before a deadline."""

    def __init__(self, connection: socket.socket, until: float) -> None:
        super().__init__(connection, method="POST")
        self.fp.close()
        self.fp = io.BufferedReader(_TimedFile(connection, until))
