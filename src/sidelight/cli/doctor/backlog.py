"""Check the backlog: which records wait for a sink, and why?"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from sidelight.cli.doctor.findings import Finding, State
from sidelight.cli.doctor.processes import is_stopped
from sidelight.cli.spool.segments import Backlog, SegmentReport, read_again
from sidelight.cli.spool.waiting import PATIENCE
from sidelight.exceptions import SinkRefusedError, SinkUnavailableError
from sidelight.record import decode, is_same_store
from sidelight.spool import PAGE, Scanner, Segment
from sidelight.store import StoreSink

_LOOK_AGAIN: Final = 0.5  # seconds in which a relay that works delivers something
_TRIED: Final = 2000  # records of a segment: a rule in the database may concern one of them only


def check_relays(segments: Sequence[SegmentReport]) -> Iterator[Finding]:
    """Find relays that are stopped, and processes that need a relay where none runs."""
    relays = [each for each in segments if each.written and each.meta.get("role") == "relay"]
    for pid, relay in {each.meta.get("pid"): each for each in relays}.items():
        if is_stopped(relay):
            yield Finding(
                "relay",
                "wrong",
                f"{relay.writer} is stopped (SIGSTOP): its segments wait, and no other relay may "
                "read them",
                f"kill -CONT {pid}, or end it: another relay takes over",
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
            f"no relay runs, and {writers} leaves all records to one",
            "start `sidelight relay`",
        )


@dataclass(slots=True)
class _Waiting:
    """The records that wait for one sink in the segments of one writer."""

    backlog: Backlog = field(default_factory=Backlog)
    segments: list[SegmentReport] = field(default_factory=list)


def check_backlog(segments: Sequence[SegmentReport], store: str | None) -> Iterator[Finding]:
    """Find orphaned records, and records of running processes that wait for too long.

    Args:
        segments: of the spool.
        store: the URL of a store that answers.
    """
    waiting: dict[tuple[str, str, bool, bool], _Waiting] = defaultdict(_Waiting)
    for segment in segments:
        for sink, backlog in segment.backlog.items():
            if backlog.records:
                each = waiting[sink, segment.writer, segment.alive, segment.attended]
                each.backlog.add(backlog)
                each.segments.append(segment)
    found = []
    for (sink, writer, alive, attended), each in sorted(waiting.items(), key=lambda item: item[0]):
        if alive or attended:
            if each.backlog.age_ns <= PATIENCE:
                continue
            state, problem, remedy = _why_waiting(sink, each.segments, store)
        else:
            state, problem = "wrong", "which has ended"
            otlp = " --otlp URL" if sink in {"traces", "logs"} else ""
            remedy = f"`sidelight relay --once{otlp}` delivers them"
        found.append(
            Finding("backlog", state, f"{sink}: {each.backlog}, of {writer}, {problem}", remedy)
        )
    yield from found
    if not found:
        yield Finding("backlog", "ok", "records are on their way" if waiting else "no record waits")


def _why_waiting(
    sink: str, segments: Sequence[SegmentReport], store: str | None
) -> tuple[State, str, str]:
    """Return why records wait although they have a relay: state, problem and remedy."""
    first = segments[0]
    if any(map(is_stopped, segments)):
        return "wrong", "which is stopped (SIGSTOP)", f"kill -CONT {first.meta.get('pid')}"
    if any(each.meta.get("relay") == "external" and not each.attended for each in segments):
        return "wrong", "which is running: no relay reads them", "start `sidelight relay`"
    time.sleep(_LOOK_AGAIN)
    writer = "which is running" if first.alive else "which has ended"
    if any(_advances(sink, each) for each in segments):
        remedy = "run `sidelight relay` beside it, if other threads keep the GIL from its relay"
        return "note", f"{writer}: they are delivered late", remedy
    if sink == "store" and store is not None and (problem := _refusal(store, segments)):
        remedy = "correct what refuses them; until then they wait, and nothing is lost"
        return "wrong", f"{writer}: the store does not take them: {problem}", remedy
    remedy = _DOWN if sink == "store" and store is None else _REMEDIES.get(sink, "")
    return "wrong", f"{writer}: no relay brings them to the {sink}", remedy


_DOWN: Final = "see store above: until it answers they wait, and nothing is lost"
_REMEDIES: Final = {
    "store": "correct what is wrong with the store; else restart: the process lost its relay",
    "stream": "see stream above",
    "traces": "see otlp below",
    "logs": "see otlp below",
}


def _advances(sink: str, before: SegmentReport) -> bool:
    """Return whether a sink has taken records of a segment since the report."""
    now = read_again(before)
    if now is None:
        return True
    was, backlog = before.backlog[sink], now.backlog.get(sink, Backlog())
    return (backlog.oldest_ns or 0) > (was.oldest_ns or 0) or backlog.records < was.records


# -- a trial write ---------------------------------------------------------------------------


def _refusal(url: str, segments: Iterable[SegmentReport]) -> str:
    """Try whether the store takes the backlog, and roll back; return why not, or ""."""
    with contextlib.closing(StoreSink(url)) as store:
        for each in segments:
            if not is_same_store(each.meta.get("store"), url):
                continue
            try:
                _rehearse(store, each)
            except (SinkUnavailableError, SinkRefusedError) as error:
                return str(error.facts["problem"])
            except Exception as error:  # noqa: BLE001  # what a relay meets, too
                return repr(error)
    return ""


def _rehearse(store: StoreSink, report: SegmentReport) -> None:
    """Write the backlog of a segment, and roll back.

    Raises:
        SinkUnavailableError: the store takes no record now.
        SinkRefusedError: the store does not take one of them.
    """
    with (
        contextlib.suppress(FileNotFoundError),
        contextlib.closing(Segment.inspect(report.path)) as segment,
    ):
        batch = Scanner(segment, segment.cursors.get(store.name, PAGE)).batch(_TRIED)
        records = []
        for payload in batch.payloads:
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
                records.append(decode(payload))
        store.rehearse(records, report.meta)
