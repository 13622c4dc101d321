"""Where one signal goes, and how: what the ``OTEL_EXPORTER_OTLP_*`` variables mean to the SDK."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import msgspec
from opentelemetry.util.re import parse_env_headers

from sidelight.host import log_warning
from sidelight.otlp.exporter import SignalName

TIMEOUT: Final = 5.0
"""Seconds for one request, where OTEL_EXPORTER_OTLP_TIMEOUT is not set."""
_MAX_TIMEOUT: Final = 60.0
_DEFAULT: Final = "http://localhost:4318"
_PROTOCOLS: Final = frozenset({"http/protobuf", "grpc"})
_COMPRESSIONS: Final = frozenset({"gzip", "deflate"})
_HEADER: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+: [^\r\n\0]*")


class Endpoint(msgspec.Struct, frozen=True):
    """Where one signal goes. ``url`` is a base URL; with None, ``OTEL_*`` variables decide."""

    signal: SignalName
    url: str | None
    environment: Mapping[str, str]

    def variable(self, name: str) -> tuple[str, str]:
        """Name and value of a variable: the signal's own, else the common one, else nothing."""
        for each in (
            f"OTEL_EXPORTER_OTLP_{self.signal.upper()}_{name}",
            f"OTEL_EXPORTER_OTLP_{name}",
        ):
            if value := self.environment.get(each, "").strip():
                return each, value
        return "", ""

    @property
    def address(self) -> str:
        """The URL that requests over HTTP go to. The variable of one signal is taken as it is."""
        own = self.environment.get(f"OTEL_EXPORTER_OTLP_{self.signal.upper()}_ENDPOINT", "")
        if self.url is None and own.strip():
            return own.strip()
        base = self.url or self.variable("ENDPOINT")[1] or _DEFAULT
        return f"{base.rstrip('/')}/v1/{self.signal}"

    @property
    def protocol(self) -> str:
        """``http/protobuf`` or ``grpc``; any other value logs a warning and means the first."""
        name, value = self.variable("PROTOCOL")
        if value and value not in _PROTOCOLS:
            log_warning("sidelight: %s=%s is not supported; http/protobuf is used", name, value)
        return value if value in _PROTOCOLS else "http/protobuf"

    @property
    def timeout(self) -> float:
        """Seconds for one request, as the Python SDK reads the variable; at most 60."""
        _, value = self.variable("TIMEOUT")
        with suppress(ValueError):
            if (seconds := float(value)) > 0:
                return min(seconds, _MAX_TIMEOUT)
        return TIMEOUT

    @property
    def compression(self) -> str | None:
        """``gzip``, ``deflate`` or None; any other value logs a warning and means None."""
        name, value = self.variable("COMPRESSION")
        value = value.lower()
        if value and value not in _COMPRESSIONS and value != "none":
            log_warning("sidelight: %s=%s is not supported; nothing is compressed", name, value)
        return value if value in _COMPRESSIONS else None

    def headers(self) -> dict[str, str]:
        """Return the headers of every request over HTTP, with names in lower case.

        Raises:
            ValueError: HTTP cannot carry a header.
        """
        name, value = self.variable("HEADERS")
        found = dict(parse_env_headers(value, liberal=True)) if value else {}
        for header, content in found.items():
            is_latin = content.encode("latin-1", "replace").decode("latin-1") == content
            if not (is_latin and _HEADER.fullmatch(f"{header}: {content}")):  # it may be a secret
                raise ValueError(f"{name}: HTTP cannot carry the name or the value of {header!r}")
        return found
