"""Encode plain values as msgpack and as JSON.

Both encoders write into a buffer that sidelight has allocated. msgspec's own `encode` allocates and
enlarges one itself, and where no memory is left it crashes the process (seen in 0.22).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import msgspec

_NUL: Final = re.compile(r"\\(\\|u0000)")  # or an escaped backslash, which may stand before "u0000"
#: Make an empty buffer for `encode_into`.
new_buffer: Final[Callable[[], bytearray]] = bytearray(256).copy
#: Replace the contents of a buffer by a value as msgpack.
encode_into: Final[Callable[[object, bytearray], None]] = msgspec.msgpack.Encoder().encode_into
_json_into: Final[Callable[[object, bytearray], None]] = msgspec.json.Encoder(
    enc_hook=repr
).encode_into


def encode(value: object) -> bytes:
    """Encode a plain value as msgpack.

    Raises:
        TypeError, ValueError, OverflowError: msgpack has no form for the value.
    """
    buffer = new_buffer()
    encode_into(value, buffer)
    return bytes(buffer)


def to_json(value: object) -> str:
    """Encode a value as JSON text.

    A value that JSON has no form for becomes its `repr`. NUL becomes "␀", because PostgreSQL reads
    no text with a NUL out of JSON.
    """
    buffer = new_buffer()
    _json_into(value, buffer)
    written = buffer.decode()
    return written if "\\u0000" not in written else _NUL.sub(_shown_nul, written)


def _shown_nul(escape: re.Match[str]) -> str:
    return "␀" if escape[1] == "u0000" else escape[0]
