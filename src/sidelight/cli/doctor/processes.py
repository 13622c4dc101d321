"""Check the processes that write segments: are they stopped, or at a limit of the system?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from sidelight.cli.doctor.findings import Finding
from sidelight.cli.spool.segments import SegmentReport
from sidelight.spool import SMALLEST
from sidelight.store import plural, size

_STATE: Final = re.compile(r"\) ([A-Za-z]) ")
_SOFT_LIMIT: Final = r"^{} +(\d+)"  # "unlimited" does not match


def is_stopped(segment: SegmentReport) -> bool:
    """Return whether the writer of a segment is stopped (SIGSTOP, a debugger).

    Return False where it is unknown.
    """
    process = _process_of(segment)
    try:
        state = None if process is None else _STATE.search(_read(process / "stat"))
    except OSError:
        return False
    return state is not None and state[1] in "Tt"


def check_limits(segments: Sequence[SegmentReport]) -> Iterator[Finding]:
    """Find writers that cannot make a segment: the size or the number of files is limited."""
    writers = {each.meta.get("pid"): each for each in segments if each.written}
    for segment in writers.values():
        try:
            problems = list(_limits_of(segment))
        except OSError:  # the process has ended meanwhile, or belongs to another user
            continue
        for problem, remedy in problems:
            yield Finding("limits", "wrong", f"{segment.writer} {problem}", remedy)


def _limits_of(segment: SegmentReport) -> Iterator[tuple[str, str]]:
    process = _process_of(segment)
    if process is None:
        return
    limits = _read(process / "limits")
    kept = "its records are kept in memory, and die with it"
    largest = _limit(limits, "Max file size")
    if largest is not None and largest < SMALLEST:
        problem = f"may write no file larger than {size(largest)} (RLIMIT_FSIZE): {kept}"
        yield problem, "raise its limit (prlimit --fsize, ulimit -f)"
    most = _limit(limits, "Max open files")
    if most is not None and sum(1 for _ in (process / "fd").iterdir()) >= most:
        problem = f"has all of the {plural(most, 'file')} open that it may (RLIMIT_NOFILE): {kept}"
        yield problem, "find the files that it does not close, or raise its limit (prlimit -n)"


def _limit(limits: str, name: str) -> int | None:
    found = re.search(_SOFT_LIMIT.format(name), limits, re.MULTILINE)
    return None if found is None else int(found[1])


def _process_of(segment: SegmentReport) -> Path | None:
    """Return the directory in /proc of the writer; None where it cannot be seen.

    A pid means nothing in another namespace, so the process must have mapped the segment.
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
