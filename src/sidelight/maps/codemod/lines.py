"""A file as lines, each with the end that it has there."""

from __future__ import annotations

import io
from collections.abc import Sequence


def lines_of(text: str) -> list[str]:
    """The lines as Python counts them, which is not as `str.splitlines` does."""
    return list(io.StringIO(text, newline=""))


def newline_of(lines: Sequence[str]) -> str:
    """How lines end in a file: as the first one does."""
    return "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
