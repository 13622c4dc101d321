"""Check the spool's content: its size, its clock, damage and quarantine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from sidelight.cli.doctor.backlog import check_backlog, check_relays
from sidelight.cli.doctor.directory import check_directory
from sidelight.cli.doctor.findings import Finding
from sidelight.cli.doctor.processes import (
    check_ended,
    check_limits,
    check_silent,
    check_stopped,
)
from sidelight.cli.output import time_of
from sidelight.cli.spool.commands import relay_command
from sidelight.cli.spool.ended import ended_in
from sidelight.cli.spool.segments import SegmentReport, read_spool, writer_of
from sidelight.host import HAS_FILE_LOCKS, is_directory
from sidelight.settings import Settings
from sidelight.spool import (
    NAME,
    PAGE,
    SMALLEST,
    Entry,
    Quarantine,
    filesystem,
    strays_of,
    unseen_hot,
)
from sidelight.store import Process, ago, plural, size, whole_seconds

_NEARLY: Final = 0.9  # of the limit: from here on spans are left out
_AHEAD: Final = 60_000_000_000  # ns by which clocks may differ


def check_spool(
    settings: Settings, processes: Sequence[Process], *, answers: bool
) -> Iterator[Finding]:
    """Check the spool's directory, and that its records are being delivered.

    Args:
        settings: name the spool and its sinks.
        processes: whose end the store does not know.
        answers: whether the store does; the check tries whether it takes the backlog, and rolls
            back.
    """
    directory = settings.spool
    if HAS_FILE_LOCKS:  # else a finding about the system says what is not kept
        yield from check_directory(directory)
    yield from _check_strays(directory)
    if not is_directory(directory):
        yield from (each.located(settings) for each in check_silent(processes, []))
        return
    try:
        segments = read_spool(directory)
        entries = [entry for _, entry in Quarantine(directory).entries()]
    except OSError as error:
        yield Finding("spool", "wrong", f"cannot read {error.filename}", "ask the owner for access")
        return
    yield _content(directory, segments)
    yield from _check_hot(directory, segments)
    yield from _check_bound(directory, segments)
    yield from _check_clock(segments)
    yield from check_limits(segments)
    yield from check_stopped(segments)
    ended = ended_in(directory, settings.named_store, processes)
    yield from check_ended(ended, segments)
    told = {process for process, _ in ended}
    others = [each for each in processes if each not in told]
    yield from (each.located(settings) for each in check_silent(others, segments))
    yield from check_relays(segments, settings)
    yield from check_backlog(segments, settings, answers=answers)
    deliver = relay_command(directory, settings.named_store, settings.stream)
    yield from _check_damage(segments, deliver)
    yield from (each.located(settings) for each in _check_quarantine(entries))


def quarantined_in(directory: Path) -> set[str]:
    """Return the reasons of the entries in a spool's quarantine; "" where it cannot be read."""
    try:
        entries = [entry for _, entry in Quarantine(directory).entries()]
    except OSError:
        return {""}
    return {"" if entry is None else entry.reason for entry in entries}


def _check_strays(directory: Path) -> Iterator[Finding]:
    """Find living writers whose segments were moved out of the spool, or deleted."""
    for stray in strays_of(directory):
        if stray.meta.get("relay") != "external":  # else the process notices within a second
            continue
        writer, path = writer_of(stray.meta), stray.path
        remedy = "end it in order, without SIGKILL: it then writes its records into the spool anew"
        if stray.is_deleted:
            problem = f"{writer} writes to {path}, which was deleted: its records die with it"
        else:
            problem = (
                f"{writer} writes to {path}, which was moved out of {directory}: no relay there"
                " sees its records"
            )
            command = relay_command(path.parent, stray.meta.get("store"), stray.meta.get("stream"))
            remedy += f"; `{command}` delivers them now"
        yield Finding("spool", "wrong", problem, remedy)


def _content(directory: Path, segments: Sequence[SegmentReport]) -> Finding:
    kind = filesystem(directory)
    writers = {each.meta.get("instance", str(each.path)) for each in segments if each.written}
    where = f"{directory} on {kind}" if kind else str(directory)
    held = sum(each.size for each in segments)
    holds = f"{plural(len(segments), 'segment')}, {size(held)}" if segments else "empty"
    running = f", of {plural(len(writers), 'running process', 'running processes')}"
    return Finding("spool", "ok", f"{where}: {holds}{running if writers else ''}")


def _check_hot(directory: Path, segments: Sequence[SegmentReport]) -> Iterator[Finding]:
    """Say what a crash would take of the hot segments, and whether they can be seen."""
    for hot in unseen_hot(directory):
        yield Finding(
            "spool",
            "note",
            f"hot segments in {hot} cannot be seen from here, if there are any",
            "let the relay see that tmpfs at the same path, or remove the link in the spool",
        )
    hot_ones = [each for each in segments if each.path.parent != directory]
    if hot_ones:
        yield Finding(
            "spool",
            "note",
            f"{plural(len(hot_ones), 'hot segment')} in {hot_ones[0].path.parent}: a crash of the"
            " machine or the end of the container takes what is younger than 50 ms",
        )


def _check_bound(directory: Path, segments: Sequence[SegmentReport]) -> Iterator[Finding]:
    """Compare the spool's size with the limit in the headers of its writers."""
    limits = [
        limit
        for each in segments
        if isinstance(limit := each.meta.get("limit"), int) and each.meta.get("role") != "relay"
    ]
    held = sum(each.size for each in segments)
    if not limits or held < _NEARLY * min(limits):
        return
    limit = min(limits)
    lost = "spans are left out"
    if held + SMALLEST > limit:
        lost = "when its last segments are full, events are lost"
    yield Finding(
        "spool",
        "wrong",
        f"{directory} holds {size(held)} of the {size(limit)} that it may: {lost}",
        "bring back the sink that does not take records (see backlog), or raise spool_limit",
    )


def _check_clock(segments: Sequence[SegmentReport]) -> Iterator[Finding]:
    now = time.time_ns()
    times = [each.created_ns or 0 for each in segments]
    times += [backlog.oldest_ns or 0 for each in segments for backlog in each.backlog.values()]
    ahead = max(times, default=0) - now
    if ahead > _AHEAD:
        yield Finding(
            "clock",
            "wrong",
            f"the spool holds records from {whole_seconds(ahead)} in the future: "
            "a clock was stepped",
            "correct the machine's clock; no event is lost, but times are wrong",
        )


def _check_damage(segments: Sequence[SegmentReport], deliver: str) -> Iterator[Finding]:
    """Find what is no record.

    Args:
        segments: of the spool.
        deliver: the command that delivers the records around it.
    """
    strange = [each for each in segments if not each.meta and not NAME.fullmatch(each.path.name)]
    if strange:
        yield Finding(
            "spool",
            "wrong",
            f"{plural(len(strange), 'file')} with the name of a segment, which sidelight has not"
            f" made: no relay reads {strange[0].path}",
            "move it out of the spool, and find the program that writes there",
        )
    segments = [each for each in segments if each not in strange]
    damaged = sum(segment.damaged for segment in segments if not segment.written)
    if damaged:
        yield Finding(
            "spool",
            "wrong",
            f"{size(damaged)} in the segments are damaged: they are no records",
            f"`{deliver}` quarantines them, and delivers the records around them",
        )
    foreign = sum(segment.foreign for segment in segments)
    if foreign:
        yield Finding(
            "spool",
            "wrong",
            f"{plural(foreign, 'record')} in the segments cannot be read: sidelight writes no such"
            " records",
            f"`{deliver}` quarantines them, and delivers the others",
        )
    nameless = [each for each in segments if not each.meta and each.end > PAGE]
    if nameless:
        yield Finding(
            "spool",
            "wrong",
            f"{plural(len(nameless), 'segment')} with a damaged header, which names no writer",
            f"`{deliver}` delivers the records",
        )


def _check_quarantine(entries: Sequence[Entry | None]) -> Iterator[Finding]:
    if not entries:
        return
    readable = [entry for entry in entries if entry is not None]
    reasons = ", ".join(sorted({entry.reason for entry in readable})) or "their files are damaged"
    latest = time_of(max((entry.at for entry in readable), default=None))
    yield Finding(
        "quarantine",
        "wrong",
        f"{plural(len(entries), 'entry', 'entries')}: {reasons}"
        f"{'' if latest is None else f'; the latest {ago(latest)}'}",
        "`sidelight spool quarantined` lists the entries, `sidelight spool replay` delivers them",
    )
