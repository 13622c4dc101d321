"""Values as JSON text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from sidelight.record.format import blank

_json_into: Final[Callable[[object, bytearray], None]] = msgspec.json.Encoder(
    enc_hook=repr
).encode_into


def to_json(value: object) -> str:
    """A value as JSON."""
    buffer = blank()
    _json_into(value, buffer)
    return buffer.decode()
