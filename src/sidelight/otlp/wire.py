"""The protobuf wire format of OTLP's values and attributes, written by hand.

The generated protobuf messages cost four times as much, and the SDK's encoder eight times.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

_INT64: Final = range(-(1 << 63), 1 << 63)
_MASK: Final = (1 << 64) - 1
_MAX_KEYS: Final = 10_000  # whose encoded form is kept
_double: Final = struct.Struct("<cd").pack

#: A message's number as one byte, where it is small enough for that.
BYTE: Final = tuple(bytes((n,)) for n in range(128))
#: In front of a short text in an `AnyValue`: length of the value, tag, length of the text.
_TEXT_HEADS: Final = tuple(bytes((n + 2, 0x0A, n)) for n in range(126))


def varint(number: int) -> bytes:
    """Encode a number from 0 to 2**64 - 1."""
    if number < 0x80:
        return BYTE[number]
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def message(tag: bytes, content: bytes) -> bytes:
    """Write a field of variable length, also an empty one."""
    return tag + varint(len(content)) + content


def text_field(tag: bytes, text: str | None) -> bytes:
    """Write a text; an empty one is left out, because it is the default."""
    return message(tag, text.encode()) if text else b""


def number_field(tag: bytes, number: int) -> bytes:
    """Write a number; 0 is left out, because it is the default."""
    return tag + varint(number) if number else b""


class _Heads(dict[str, bytes]):
    """The bytes before a value in a `KeyValue`: the key, and the tag of the value."""

    def __missing__(self, key: str) -> bytes:
        if len(self) >= _MAX_KEYS:
            self.clear()
        head = self[key] = message(b"\x0a", key.encode()) + b"\x12"
        return head


_heads: Final = _Heads()


def any_value(value: Any) -> bytes:
    """Write the content of an `AnyValue`; an integer beyond 64 bits becomes text."""
    return _WRITERS.get(type(value), _text)(value)


def _text(value: Any) -> bytes:
    return message(b"\x0a", str(value).encode())


def _integer(value: int) -> bytes:
    return b"\x18" + varint(value & _MASK) if value in _INT64 else _text(value)


def _array(values: Iterable[Any]) -> bytes:
    return message(b"\x2a", b"".join(message(b"\x0a", any_value(item)) for item in values))


_WRITERS: Final[Mapping[type, Callable[[Any], bytes]]] = {
    bool: lambda value: b"\x10\x01" if value else b"\x10\x00",
    int: _integer,
    float: lambda value: _double(b"\x21", value),
    type(None): lambda _: b"",
    list: _array,
    tuple: _array,
    dict: lambda value: message(b"\x32", attributes(b"\x0a", value, any_value)),
    bytes: lambda value: message(b"\x3a", value),
}


def plain_value(value: Any) -> bytes | None:
    """Write a value that a function has given: without None, which many back ends refuse."""
    return None if value is None else any_value(bounded_value(value, None))


def bounded_value(value: Any, length: int | None) -> Any:
    """Copy a value without None, its texts cut to ``length`` characters."""
    if isinstance(value, str):
        return value if length is None else value[:length]
    if isinstance(value, dict):
        return {k: bounded_value(v, length) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [bounded_value("null" if item is None else item, length) for item in value]
    return value


def attributes(
    tag: bytes,
    given: Mapping[str, Any],
    any_value: Callable[[Any], bytes | None] = plain_value,
) -> bytes:
    """Write attributes, each as a `KeyValue` under ``tag``."""
    parts: list[bytes] = []
    add_attributes(parts, tag, given.items(), any_value)
    return b"".join(parts)


def add_attributes(
    parts: list[bytes],
    tag: bytes,
    given: Iterable[tuple[str, Any]],
    any_value: Callable[[Any], bytes | None] = plain_value,
) -> None:
    """Write attributes to ``parts``.

    Args:
        parts: what is written before them.
        tag: the tag of each `KeyValue`.
        given: keys and values.
        any_value: writes a value that is neither a short text nor a small number; an attribute
            whose value it makes None is left out.
    """
    for key, value in given:
        head = _heads[key]
        kind = type(value)
        if kind is str:
            text = value.encode()
            length = len(text)
            size = len(head) + length + 3
            if size < 0x80:
                parts += tag, BYTE[size], head, _TEXT_HEADS[length], text
                continue
        elif kind is int and 0 <= value < 0x4000:
            number = varint(value)
            rest = len(number) + 1
            parts += tag, varint(len(head) + 1 + rest), head, BYTE[rest], b"\x18", number
            continue
        encoded = any_value(value)
        if encoded is not None:
            inner = message(b"", encoded)
            parts += tag, varint(len(head) + len(inner)), head, inner
