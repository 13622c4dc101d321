"""Requests of both signals in protobuf: encoded records grouped by resource and scope; answers."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any, Final, NamedTuple, TypeAlias

from opentelemetry.sdk.version import __version__ as sdk_version

from sidelight.otlp.exporter import Rejected
from sidelight.otlp.wire import Attributes, any_value, message, text_field, varint
from sidelight.record import Origin
from sidelight.version import __version__

#: A record's `Origin` (None for what sidelight itself has made), and its encoded span or log.
Item: TypeAlias = tuple[Origin | None, bytes]

_attributes: Final = Attributes(b"\x0a", any_value)
_scope_attributes: Final = Attributes(b"\x1a", any_value)


class _Group(NamedTuple):
    """The encoded fields around the items of one tracer: of its resource, and of its scope."""

    resource: bytes
    resource_schema_url: bytes
    scope: bytes
    scope_schema_url: bytes


_SCOPE: Final = message(
    b"\x0a", text_field(b"\x0a", "sidelight") + text_field(b"\x12", __version__)
)


def encode_resource(writer: Mapping[str, Any]) -> bytes:
    """Write the resource of the process that wrote a segment."""
    described = {
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.version": sdk_version,
        "telemetry.distro.name": "sidelight",
        "telemetry.distro.version": __version__,
        **writer.get("resource", {}),
    }
    return message(b"\x0a", _attributes.of(described))


def encode_request(items: Iterable[Item], resource: bytes) -> bytes:
    """Write a request.

    Args:
        items: what to send; one group for each resource and scope, in the order of the first item.
        resource: of the items that have no `Origin`.
    """
    by_origin: dict[Origin | None, list[bytes]] = {}
    for origin, encoded in items:
        by_origin.setdefault(origin, []).append(encoded)
    by_resource: dict[tuple[bytes, bytes], dict[tuple[bytes, bytes], list[bytes]]] = {}
    for origin, encoded_items in by_origin.items():
        group = _Group(resource, b"", _SCOPE, b"") if origin is None else _group_of(origin)
        scopes = by_resource.setdefault(group[:2], {})
        scopes.setdefault(group[2:], []).extend(encoded_items)
    parts: list[bytes] = []
    for (described, url), scopes in by_resource.items():
        of_scopes = [
            _headed(b"\x12", [scope, *written, scope_url])
            for (scope, scope_url), written in scopes.items()
        ]
        parts += _headed(b"\x0a", [described, *chain.from_iterable(of_scopes), url])
    return b"".join(parts)


def _headed(tag: bytes, parts: list[bytes]) -> list[bytes]:
    """Put tag and length before the parts of a message, and copy none of them."""
    return [tag + varint(sum(map(len, parts))), *parts]


@functools.lru_cache(maxsize=1000)
def _group_of(origin: Origin) -> _Group:
    scope = (
        text_field(b"\x0a", origin.name)
        + text_field(b"\x12", origin.version)
        + _scope_attributes.of(origin.attributes)
    )
    return _Group(
        message(b"\x0a", _attributes.of(origin.resource)),
        text_field(b"\x1a", origin.resource_schema_url),
        message(b"\x0a", scope),
        text_field(b"\x1a", origin.schema_url),
    )


def decode_answer(body: bytes) -> Rejected:
    """Read the partial success of an answer; other bytes than protobuf mean full success."""
    try:
        fields = _fields(_fields(body).get(1, b""))
        number, why = fields.get(1, 0), fields.get(2, b"")
        return Rejected(number if number < 1 << 63 else 0, why.decode())  # it may be negative
    except (LookupError, TypeError, ValueError, AttributeError):
        return Rejected()


def _fields(body: Any) -> dict[int, Any]:
    """Read the fields of a message: numbers and bytes by the numbers of their fields."""
    found: dict[int, Any] = {}
    at = 0
    while at < len(body):
        tag, at = _number(body, at)
        kind = tag & 7
        if kind == 0:
            found[tag >> 3], at = _number(body, at)
            continue
        length, at = _number(body, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
        if at + length > len(body):
            raise ValueError("a field is incomplete")
        found[tag >> 3], at = body[at : at + length], at + length
    return found


def _number(body: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while (byte := body[at]) & 0x80:
        number |= (byte & 0x7F) << shift
        shift, at = shift + 7, at + 1
    return number | byte << shift, at + 1
