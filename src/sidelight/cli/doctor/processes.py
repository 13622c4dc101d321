"""Check the processes: are they stopped, silent, or at a limit of the system?"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from sidelight.cli.doctor.findings import Finding
from sidelight.cli.spool.segments import SegmentReport
from sidelight.cli.spool.writers import process_of, read_text
from sidelight.spool import SMALLEST
from sidelight.store import SILENT, Process, plural, size, whole_seconds

_NAMED: Final = 3  # silent processes
_SOFT_LIMIT: Final = r"^{} +(\d+)"  # "unlimited" does not match


def check_stopped(segments: Sequence[SegmentReport]) -> Iterator[Finding]:
    """Find relays and applications that are stopped, whether records wait or not."""
    writers = {each.meta.get("pid"): each for each in segments if each.written}
    for pid, each in writers.items():
        if not each.stopped:
            continue
        remedy = f"kill -CONT {pid}"
        if each.meta.get("role") == "relay":
            yield Finding(
                "relay",
                "wrong",
                f"{each.writer} is stopped (SIGSTOP): its segments wait, and no other relay may "
                "read them",
                f"{remedy}, or end it: another relay takes over",
            )
        elif each.meta.get("relay") == "external":
            yield Finding("process", "note", f"{each.writer} is stopped (SIGSTOP)", remedy)
        else:
            yield Finding(
                "process",
                "wrong",
                f"{each.writer} is stopped (SIGSTOP), and with it its relay: it delivers nothing, "
                "and `sidelight overdue` cannot judge beyond that",
                f"{remedy}, or end it: another relay takes over",
            )


def check_ended(
    ended: Iterable[tuple[Process, str]], segments: Sequence[SegmentReport]
) -> Iterator[Finding]:
    """Find processes that have ended without a noted end; where records wait, the backlog tells.

    Args:
        ended: the processes, with the commands that note their ends; see `ended_in`.
        segments: of the spool.
    """
    waiting = {
        each.meta.get("instance")
        for each in segments
        if any(backlog.records for backlog in each.backlog.values())
    }
    for process, command in ended:
        if process.process not in waiting:
            yield Finding(
                "process",
                "wrong",
                f"{process} has ended, and its end is not noted: `sidelight overdue` says unknown,"
                " and its open calls do not count as abandoned",
                f"`{command}` notes its end",
            )


def check_silent(
    processes: Iterable[Process], segments: Sequence[SegmentReport]
) -> Iterator[Finding]:
    """Find processes that have not ended, as the store knows, and give no sign of life.

    Args:
        processes: that the store knows.
        segments: of the spool of this machine.
    """
    now = time.time_ns()
    here = {each.meta.get("instance"): each for each in segments if each.written}
    absent = []
    for each in processes:
        silent = now - each.last_seen_ns
        if each.ended or silent < SILENT:
            continue
        writer = here.get(each.process)
        if writer is None:
            absent.append(each)
        elif writer.meta.get("relay") != "external" and not writer.stopped:
            yield Finding(
                "process",
                "wrong",
                f"{each} runs, but its last sign of life in the store is {whole_seconds(silent)} "
                "old: its relay does not work",
                "see store and backlog; else restart the process: its relay hangs",
            )
    if absent:
        some = ", ".join(f"{each} (instance {each.process})" for each in absent[:_NAMED])
        yield Finding(
            "process",
            "note",
            f"{plural(len(absent), 'process', 'processes')} silent for more than "
            f"{whole_seconds(SILENT)}, without a noted end: {some}"
            f"{', …' if len(absent) > _NAMED else ''}; `sidelight overdue` says unknown",
            "a relay with the spool of such a process notes its end; if the spool is gone: "
            "`sidelight overdue --without INSTANCE`",
        )


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
    process = process_of(segment.path, segment.meta)
    if process is None:
        return
    limits = read_text(process / "limits")
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
