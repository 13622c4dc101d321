"""What the system says of a process that holds a segment."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from sidelight.cli.segments import Found

_STATE: Final = re.compile(r"\) ([A-Za-z]) ")


def is_stopped(segment: Found) -> bool:
    """Whether the writer of a segment is stopped (SIGSTOP, a debugger).

    Process ids mean nothing in another namespace: it counts only if the process has the segment
    mapped. Where that cannot be seen, it is not known to be stopped.
    """
    pid = segment.meta.get("pid")
    if not segment.written or not isinstance(pid, int):
        return False
    process = Path(f"/proc/{pid}")
    try:
        state = _STATE.search((process / "stat").read_text(encoding="utf-8", errors="replace"))
        inode = f" {segment.path.stat().st_ino} "
        mapped = inode in (process / "maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return mapped and state is not None and state[1] in "Tt"
