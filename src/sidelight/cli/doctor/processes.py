"""What the system says of the processes that hold segments."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from sidelight.cli.doctor.findings import Finding
from sidelight.cli.output import plural, size
from sidelight.cli.spool.segments import Found
from sidelight.spool import SMALLEST

_STATE: Final = re.compile(r"\) ([A-Za-z]) ")
_LIMIT: Final = r"^{} +(\d+)"  # the soft one; none where it is unlimited


def is_stopped(segment: Found) -> bool:
    """Whether the writer of a segment is stopped (SIGSTOP, a debugger).

    Where that cannot be seen, it is not known to be stopped.
    """
    process = _writer_of(segment)
    try:
        state = None if process is None else _STATE.search(_read(process / "stat"))
    except OSError:
        return False
    return state is not None and state[1] in "Tt"


def check_limits(segments: Sequence[Found]) -> Iterator[Finding]:
    """Writers that may make no segment: files may not grow so far, or no more can be opened."""
    writers = {each.meta.get("pid"): each for each in segments if each.written}
    for segment in writers.values():
        try:
            problems = list(_limits_of(segment))
        except OSError:  # it has ended meanwhile, or is another user's
            continue
        for problem, remedy in problems:
            yield Finding("limits", "wrong", f"{segment.writer} {problem}", remedy)


def _limits_of(segment: Found) -> Iterator[tuple[str, str]]:
    process = _writer_of(segment)
    if process is None:
        return
    limits = _read(process / "limits")
    kept = "what it emits is kept in memory, and dies with it"
    largest = _limit(limits, "Max file size")
    if largest is not None and largest < SMALLEST:
        problem = f"may write no file larger than {size(largest)} (RLIMIT_FSIZE): {kept}"
        yield problem, "raise its limit (prlimit --fsize, ulimit -f)"
    most = _limit(limits, "Max open files")
    if most is not None and sum(1 for _ in (process / "fd").iterdir()) >= most:
        problem = f"has all of the {plural(most, 'file')} open that it may (RLIMIT_NOFILE): {kept}"
        yield problem, "find what it does not close, or raise its limit (prlimit --nofile)"


def _limit(limits: str, name: str) -> int | None:
    found = re.search(_LIMIT.format(name), limits, re.MULTILINE)
    return None if found is None else int(found[1])


def _writer_of(segment: Found) -> Path | None:
    """Where the system tells of the process that writes to a segment; None where it does not.

    Process ids mean nothing in another namespace: it must have the segment mapped.
    """
    pid = segment.meta.get("pid")
    if not segment.written or not isinstance(pid, int):
        return None
    process = Path(f"/proc/{pid}")
    try:
        mapped = f" {segment.path.stat().st_ino} " in _read(process / "maps")
    except OSError:
        return None
    return process if mapped else None


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")
