"""What the doctor says of what is in the spool: does it leave it, and what was set aside?"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sidelight.cli.doctor.findings import Finding, State
from sidelight.cli.doctor.free_space import check_place
from sidelight.cli.doctor.processes import check_limits, is_stopped
from sidelight.cli.doctor.trial_write import refusal
from sidelight.cli.output import ago, duration, plural, size, time_of
from sidelight.cli.spool.segments import Behind, Found, look_again, look_at
from sidelight.spool import PAGE, SMALLEST, Entry, Quarantine, filesystem

_PATIENCE: Final = 5_000_000_000
"""Nanoseconds that a record may wait for a relay that works."""
_LOOK_AGAIN: Final = 0.5  # seconds in which a relay that works gets on
_NEARLY: Final = 0.9  # of the limit: from here on spans are left out
_AHEAD: Final = 60_000_000_000  # nanoseconds by which clocks may differ


def check_spool(directory: Path, store: str | None) -> Iterator[Finding]:
    """Is there a place for the records, and do they leave it?

    Args:
        directory: the spool's.
        store: the URL of one that answers; whether it takes what waits, is tried and undone.
    """
    problems = list(check_place(directory))
    yield from problems
    if not directory.is_dir():
        return
    try:
        segments = look_at(directory)
        entries = [entry for _, entry in Quarantine(directory).entries()]
    except OSError as error:
        yield Finding("spool", "wrong", f"cannot read {error.filename}", "ask its owner")
        return
    yield _contents(directory, segments)
    yield from _check_bound(directory, segments)
    yield from _check_clock(segments)
    yield from check_limits(segments)
    yield from _check_relays(segments)
    yield from _check_backlog(segments, store)
    yield from _check_damage(segments)
    yield from _check_quarantine(entries)


def _check_quarantine(entries: Sequence[Entry | None]) -> Iterator[Finding]:
    if not entries:
        return
    readable = [entry for entry in entries if entry is not None]
    told = ", ".join(sorted({entry.reason for entry in readable})) or "their files are damaged"
    latest = time_of(max((entry.at for entry in readable), default=None))
    yield Finding(
        "quarantine",
        "wrong",
        f"{plural(len(entries), 'entry', 'entries')}: {told}"
        f"{'' if latest is None else f'; the latest {ago(latest)}'}",
        "`sidelight spool quarantined` shows what it is, `sidelight spool replay` delivers it",
    )


def _contents(directory: Path, segments: Sequence[Found]) -> Finding:
    kind = filesystem(directory)
    writers = {each.meta.get("instance", str(each.path)) for each in segments if each.written}
    where = f"{directory} on {kind}" if kind else str(directory)
    held = sum(each.size for each in segments)
    holds = f"{plural(len(segments), 'segment')}, {size(held)}" if segments else "empty"
    running = f", of {plural(len(writers), 'running process', 'running processes')}"
    return Finding("spool", "ok", f"{where}: {holds}{running if writers else ''}")


def _check_bound(directory: Path, segments: Sequence[Found]) -> Iterator[Finding]:
    """Does the spool hold what it may? Its writers say in their headers how much that is."""
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
        "bring back the sink that does not take them (see backlog), or raise spool_limit",
    )


def _check_clock(segments: Sequence[Found]) -> Iterator[Finding]:
    now = time.time_ns()
    times = [each.created_ns or 0 for each in segments]
    times += [behind.oldest_ns or 0 for each in segments for behind in each.behind.values()]
    ahead = max(times, default=0) - now
    if ahead > _AHEAD:
        yield Finding(
            "clock",
            "wrong",
            f"the spool holds what was written {duration(ahead // 10**9 * 10**9)} in the future: "
            "a clock was stepped",
            "see that the machine's clock is right; nothing is lost by it, but times are wrong",
        )


# -- who delivers ------------------------------------------------------------------------------


def _check_relays(segments: Sequence[Found]) -> Iterator[Finding]:
    """Relays that are stopped, and processes that leave their records to relays that are not."""
    relays = [each for each in segments if each.written and each.meta.get("role") == "relay"]
    for pid, relay in {each.meta.get("pid"): each for each in relays}.items():
        if is_stopped(relay):
            yield Finding(
                "relay",
                "wrong",
                f"{relay.writer} is stopped (SIGSTOP): what it reads waits, and no other may",
                f"kill -CONT {pid}, or end it: another one takes over",
            )
    left = [
        each
        for each in segments
        if each.written and each.meta.get("relay") == "external" and not each.attended
    ]
    if left and not relays:
        writers = " and ".join(sorted({each.writer for each in left}))
        yield Finding(
            "relay",
            "note",
            f"none runs, and {writers} would leave it all to one",
            "start `sidelight relay`",
        )


@dataclass(slots=True)
class _Waiting:
    """Records that wait for one sink in the segments of one writer."""

    behind: Behind = field(default_factory=Behind)
    segments: list[Found] = field(default_factory=list)


def _check_backlog(segments: Sequence[Found], store: str | None) -> Iterator[Finding]:
    """What the dead have left waits for somebody; that of the living may only wait for a moment."""
    left: dict[tuple[str, str, bool, bool], _Waiting] = defaultdict(_Waiting)
    for segment in segments:
        for sink, behind in segment.behind.items():
            if behind.records:
                waiting = left[sink, segment.writer, segment.alive, segment.attended]
                waiting.behind.add(behind)
                waiting.segments.append(segment)
    found = []
    for (sink, writer, alive, attended), waiting in sorted(left.items(), key=lambda each: each[0]):
        if alive or attended:
            if waiting.behind.age_ns <= _PATIENCE:
                continue
            state, problem, remedy = _why_waiting(sink, waiting.segments, store)
        else:
            state, problem = "wrong", "which has ended"
            otlp = "" if sink == "store" else " --otlp URL"
            remedy = f"`sidelight relay --once{otlp}` delivers them"
        found.append(
            Finding("backlog", state, f"{sink}: {waiting.behind}, of {writer}, {problem}", remedy)
        )
    yield from found
    if not found:
        yield Finding("backlog", "ok", "every sink has what there is" if not left else "on its way")


def _why_waiting(sink: str, segments: Sequence[Found], store: str | None) -> tuple[State, str, str]:
    """Why records wait that somebody should deliver: state, problem and remedy."""
    first = segments[0]
    if any(map(is_stopped, segments)):
        return "wrong", "which is stopped (SIGSTOP)", f"kill -CONT {first.meta.get('pid')}"
    if first.meta.get("relay") == "external" and not first.attended:
        return "wrong", "which is running: no relay reads them", "start `sidelight relay`"
    time.sleep(_LOOK_AGAIN)
    who = "which is running" if first.alive else "which has ended"
    if any(_gets_on(sink, each) for each in segments):
        remedy = "where it is short of the GIL, a relay of its own helps (`sidelight relay`)"
        return "note", f"{who}: they are being delivered, but late", remedy
    if sink == "store" and store is not None and (problem := refusal(store, segments)):
        remedy = "put right what refuses them; until then they wait, and nothing is lost"
        return "wrong", f"{who}: the store does not take them: {problem}", remedy
    return "wrong", f"{who}: no relay brings them to the {sink}", _REMEDIES.get(sink, "")


def _gets_on(sink: str, before: Found) -> bool:
    """Whether a sink has taken something of a segment since it was looked at."""
    now = look_again(before)
    if now is None:
        return True
    was, behind = before.behind[sink], now.behind.get(sink, Behind())
    return (behind.oldest_ns or 0) > (was.oldest_ns or 0) or behind.records < was.records


_REMEDIES: Final = {
    "store": "see above for the store; if that is well, the relay of this process has ended",
    "traces": "see below for otlp",
    "logs": "see below for otlp",
}


def _check_damage(segments: Sequence[Found]) -> Iterator[Finding]:
    damaged = sum(segment.damaged for segment in segments if not segment.written)
    if damaged:
        yield Finding(
            "spool",
            "wrong",
            f"{size(damaged)} of the segments are no records any more",
            "`sidelight relay --once` sets them aside and delivers what is around them",
        )
    nameless = [each for each in segments if not each.meta and each.end > PAGE]
    if nameless:
        yield Finding(
            "spool",
            "wrong",
            f"{plural(len(nameless), 'segment')} whose damaged header does not say whose it is",
            "`sidelight relay --once` delivers what is in it",
        )
