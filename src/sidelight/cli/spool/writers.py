"""The processes that write segments, as the system shows them: are they stopped?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

_STATE: Final = re.compile(r"\) ([A-Za-z]) ")


def process_of(segment: Path, meta: Mapping[str, Any]) -> Path | None:
    """Return the directory in /proc of a segment's living writer; None where it cannot be seen.

    A pid means nothing in another namespace, so the process must have mapped the segment.
    """
    pid = meta.get("pid")
    if not isinstance(pid, int):
        return None
    process = Path(f"/proc/{pid}")
    try:
        mapped = f" {segment.stat().st_ino} " in read_text(process / "maps")
    except OSError:
        return None
    return process if mapped else None


def is_stopped(segment: Path, meta: Mapping[str, Any]) -> bool:
    """Return whether the living writer of a segment is stopped (SIGSTOP, a debugger).

    Return False where it is unknown.
    """
    process = process_of(segment, meta)
    try:
        state = None if process is None else _STATE.search(read_text(process / "stat"))
    except OSError:
        return False
    return state is not None and state[1] in "Tt"


def read_text(path: Path) -> str:
    """Read a file of /proc."""
    return path.read_text(encoding="utf-8", errors="replace")
