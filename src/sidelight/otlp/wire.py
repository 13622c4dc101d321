"""The protobuf wire format of OTLP's values and attributes, written by hand.

The generated protobuf messages cost four times as much, and the SDK's encoder eight times.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

_INT64: Final = range(-(1 << 63), 1 << 63)
_MASK: Final = (1 << 64) - 1
_MAX_KEYS: Final = 500  # or texts of one key, whose encoded form is kept
_SHORT: Final = 64  # bytes of a text
_USUAL: Final = 2048  # bytes of a message
_double: Final = struct.Struct("<cd").pack

#: Small numbers, each as one byte.
BYTE: Final = tuple(bytes((n,)) for n in range(128))


_MORE: Final = tuple(bytes((n | 0x80,)) for n in range(128))  # a byte that another follows


def varint(number: int) -> bytes:
    """Encode a number from 0 to 2**64 - 1."""
    if number < 0x80:
        return BYTE[number]
    if number < 0x4000:
        return _MORE[number & 0x7F] + BYTE[number >> 7]
    if number < 0x20_0000:
        return _MORE[number & 0x7F] + _MORE[number >> 7 & 0x7F] + BYTE[number >> 14]
    written = b""
    while number > 0x7F:
        written += _MORE[number & 0x7F]
        number >>= 7
    return written + BYTE[number]


def message(tag: bytes, content: bytes) -> bytes:
    """Write a field of variable length, also an empty one."""
    return tag + varint(len(content)) + content


class Heads(dict[int, bytes]):
    """The tag of a field of variable length and its length, by the length."""

    def __init__(self, tag: bytes) -> None:
        super().__init__()
        self._tag = tag

    def __missing__(self, length: int) -> bytes:
        head = self._tag + varint(length)
        if length < _USUAL:
            self[length] = head
        return head


def text_field(tag: bytes, text: str | None) -> bytes:
    """Write a text; an empty one is left out, because it is the default."""
    return message(tag, text.encode()) if text else b""


def number_field(tag: bytes, number: int) -> bytes:
    """Write a number; 0 is left out, because it is the default."""
    return tag + varint(number) if number else b""


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
    dict: lambda value: message(b"\x32", _members.of(value)),
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


class _Prefixes(dict[int, bytes]):
    """The bytes before the short values of one key.

    Before a text by its length in bytes, before an integer by its length with a minus.
    """

    def __init__(self, tag: bytes, key: str) -> None:
        super().__init__()
        self.tag = tag
        self.head = message(b"\x0a", key.encode()) + b"\x12"

    def __missing__(self, length: int) -> bytes:
        inner = b"\x0a" + BYTE[length] if length >= 0 else b"\x18"
        value = BYTE[len(inner) + abs(length)] + inner
        size = varint(len(self.head) + len(value) + abs(length))
        prefix = self[length] = self.tag + size + self.head + value
        return prefix


class Attributes(dict[str, _Prefixes]):
    """Writes attributes as fields of one kind of message; keeps the bytes before short values."""

    def __init__(self, tag: bytes, any_value: Callable[[Any], bytes | None] = plain_value) -> None:
        """Make a writer.

        Args:
            tag: the tag of each `KeyValue`.
            any_value: writes a value that is neither a short text nor a positive integer; an
                attribute whose value it makes None is left out.
        """
        super().__init__()
        self.tag = tag
        self._any_value = any_value

    def __missing__(self, key: str) -> _Prefixes:
        if len(self) >= _MAX_KEYS:
            self.clear()
        prefixes = self[key] = _Prefixes(self.tag, key)
        return prefixes

    def add(self, parts: list[bytes], given: Iterable[tuple[str, Any]]) -> None:
        """Write attributes to ``parts``."""
        for key, value in given:
            prefixes = self[key]
            kind = type(value)
            if kind is str:
                text = value.encode()
                if (length := len(text)) < _SHORT:
                    parts += prefixes[length], text
                    continue
            elif kind is int and 0 <= value < 1 << 63:
                number = varint(value)
                parts += prefixes[-len(number)], number
                continue
            encoded = self._any_value(value)
            if encoded is not None:
                parts.append(message(self.tag, prefixes.head + message(b"", encoded)))

    def of(self, given: Mapping[str, Any]) -> bytes:
        """Write attributes."""
        parts: list[bytes] = []
        self.add(parts, given.items())
        return b"".join(parts)


class ReservedKeyError(KeyError):
    """The key of an attribute is one that sidelight writes itself."""


class GivenAttributes(Attributes):
    """Writes the attributes that an application has given, unless one has a reserved key."""

    def __init__(self, tag: bytes, reserved: frozenset[str]) -> None:
        """Make a writer whose `add` raises `ReservedKeyError`."""
        super().__init__(tag)
        self._reserved = reserved

    def __missing__(self, key: str) -> _Prefixes:
        if key in self._reserved:
            raise ReservedKeyError(key)
        return super().__missing__(key)


class Texts(dict[str, bytes]):
    """Writes one attribute whose values are texts, and keeps the latest short ones.

    The ids of artifacts and organizations come again and again.
    """

    def __init__(self, attributes: Attributes, key: str) -> None:
        super().__init__()
        self._attributes, self._key = attributes, key
        self._prefixes = _Prefixes(attributes.tag, key)

    def __missing__(self, value: str) -> bytes:
        text = value.encode()
        if len(text) >= _SHORT:
            return self._attributes.of({self._key: value})
        if len(self) >= _MAX_KEYS:
            self.clear()
        written = self[value] = self._prefixes[len(text)] + text
        return written


_members: Final[Attributes] = Attributes(b"\x0a", any_value)
