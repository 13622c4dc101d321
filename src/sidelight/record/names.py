"""Names that a record may carry: of an event type, of a mode."""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias

Mode: TypeAlias = Literal["scheduled", "awaited"]

_TYPE_NAME: Final = re.compile(r"[A-Za-z][\w.\-]{0,127}")


def is_type_name(value: object) -> bool:
    """Whether an event type can be called so."""
    return isinstance(value, str) and _TYPE_NAME.fullmatch(value) is not None
