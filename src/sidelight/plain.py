"""Values made plain at capture: what goes into a record is a copy that nothing can change later."""

from __future__ import annotations

import datetime
import decimal
import enum
import math
import uuid
from collections.abc import Mapping
from typing import Any, Final

MAX_TEXT: Final = 4096
"""Characters of one text value; what is longer is cut and ends in an ellipsis."""
MAX_ITEMS: Final = 64
MAX_DEPTH: Final = 4
SCALARS: Final = frozenset({int, float, bool, type(None)})
"""Types that the encoder takes as they are (int within 64 bits; see `plain`)."""
_INT_RANGE: Final = range(-(1 << 63), 1 << 64)


def plain(value: Any, depth: int = 0) -> Any:
    """A value that msgpack can carry, of bounded size.

    str, int, float, bool and None stay; dates, UUIDs, Decimals and paths become text, Enum members
    their value, small lists and mappings are copied. For everything else a `repr`, cut short. What
    a value raises while it is looked at costs a placeholder, never more.
    """
    kind = type(value)
    if kind is str:
        return _text(value)
    if kind is int:
        return value if value in _INT_RANGE else _huge(value)
    if kind is float:
        return value if math.isfinite(value) else repr(value)
    if kind in SCALARS:
        return value
    try:
        return _converted(value, depth)
    except Exception as error:  # noqa: BLE001  # a stranger's __repr__ or __iter__
        return f"<{kind.__name__}: {type(error).__name__} while it was captured>"


def _converted(value: Any, depth: int) -> Any:
    kind = type(value)
    if issubclass(kind, enum.Enum):
        return plain(value.value, depth + 1)
    if issubclass(kind, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if issubclass(kind, uuid.UUID | decimal.Decimal):
        return str(value)
    if issubclass(kind, str):
        return _text(str.__str__(value))
    if issubclass(kind, bool | int):
        return plain(int.__index__(value), depth)
    if issubclass(kind, float):
        return plain(float.__float__(value), depth)
    if kind in {bytes, bytearray}:
        return f"<{len(value)} bytes>"
    if depth < MAX_DEPTH:
        if kind in {list, tuple, set, frozenset}:
            return [plain(item, depth + 1) for item in tuple(value)[:MAX_ITEMS]]
        if kind is dict or isinstance(value, Mapping):
            items = tuple(value.items())[:MAX_ITEMS]
            return {_text(str(key)): plain(item, depth + 1) for key, item in items}
    return _text(repr(value)) if depth < MAX_DEPTH else f"<{kind.__name__}>"


def _text(value: str) -> str:
    if len(value) > MAX_TEXT:
        value = value[: MAX_TEXT - 1] + "…"
    if value.isascii():
        return value
    return value.encode("utf-8", "backslashreplace").decode("utf-8")


def _huge(value: int) -> str:
    bits = value.bit_length()
    return hex(value) if bits <= 512 else f"<int of {bits} bits>"  # decimal would be quadratic


def error_type(error: BaseException) -> str:
    """The exception's class by its full name, as `error.type` wants it (builtins bare)."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def error_details(error: BaseException) -> list[Any]:
    """Type, message and frames of an exception; nothing is formatted, frames are only walked."""
    try:
        message = _text(str(error))
    except Exception as problem:  # noqa: BLE001  # a stranger's __str__
        message = f"<{type(problem).__name__} while it was captured>"
    frames: list[list[Any]] = []
    traceback = error.__traceback__
    while traceback is not None and len(frames) < MAX_ITEMS:
        code = traceback.tb_frame.f_code
        if not code.co_filename.startswith("<sidelight "):  # the generated wrapper
            frames.append([_text(code.co_filename), traceback.tb_lineno, code.co_qualname])
        traceback = traceback.tb_next
    return [error_type(error), message, frames]
