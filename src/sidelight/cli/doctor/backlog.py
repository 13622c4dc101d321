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
from sidelight.cli.spool.commands import relay_command
from sidelight.cli.spool.segments import Backlog, SegmentReport, read_again
from sidelight.cli.spool.waiting import PATIENCE
from sidelight.exceptions import SinkRefusedError, SinkUnavailableError
from sidelight.record import decode, is_same_store, is_same_stream
from sidelight.settings import Settings, sqlite_path
from sidelight.spool import PAGE, Scanner, Segment
from sidelight.store import StoreSink

_LOOK_AGAIN: Final = 0.5  # seconds in which a relay that works delivers something
_WRITERS: Final = 20  # with more, trial writes would take too long
_TRIED: Final = 2000  # records of a segment: a rule in the database may concern one of them only


def _relays_in(segments: Sequence[SegmentReport]) -> list[SegmentReport]:
    return [each for each in segments if each.written and each.meta.get("role") == "relay"]


def check_relays(segments: Sequence[SegmentReport], settings: Settings) -> Iterator[Finding]:
    """Find processes that need a relay where none runs."""
    left = [
        each
        for each in segments
        if each.written and each.meta.get("relay") == "external" and not each.attended
    ]
    if left and not _relays_in(segments):
        writers = " and ".join(sorted({each.writer for each in left}))
        yield Finding(
            "relay",
            "note",
            f"no relay runs, and {writers} leaves all records to one",
            _start(settings),
        )


def _start(settings: Settings) -> str:
    places = settings.spool, settings.named_store, settings.stream
    return f"start `{relay_command(*places, once=False)}`"


@dataclass(slots=True)
class _Waiting:
    """The records that wait for one sink in the segments of one writer."""

    backlog: Backlog = field(default_factory=Backlog)
    segments: list[SegmentReport] = field(default_factory=list)


def check_backlog(
    segments: Sequence[SegmentReport], settings: Settings, *, answers: bool
) -> Iterator[Finding]:
    """Find orphaned records, and records of running processes that wait for too long.

    Args:
        segments: of the spool.
        settings: name the sinks.
        answers: whether the store does.
    """
    store = settings.store if answers else None
    file = sqlite_path(settings.store or "")
    is_down = not answers and (file is None or file.exists())  # a relay makes a missing file
    stopped = next((each for each in _relays_in(segments) if each.stopped), None)
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
            state, problem, remedy = _why_waiting(sink, each.segments, settings, store, stopped)
        else:
            tries = store if len(waiting) <= _WRITERS else None
            problem, remedy = _why_orphaned(sink, each.segments, settings, tries)
            if sink == "store" and is_down:
                remedy = f"see store above; when it answers, {remedy}"
            state = "wrong" if problem or each.backlog.is_wanted(sink) else "note"
            problem = f"which has ended{problem}"
        found.append(
            Finding("backlog", state, f"{sink}: {each.backlog}, of {writer}, {problem}", remedy)
        )
    yield from found
    if not found:
        yield Finding("backlog", "ok", "records are on their way" if waiting else "no record waits")


def _why_orphaned(
    sink: str, segments: Sequence[SegmentReport], settings: Settings, store: str | None
) -> tuple[str, str]:
    """Return why a relay would not deliver the records of an ended process, and what helps.

    Args:
        sink: that has not taken them.
        segments: of the process.
        settings: name the sinks.
        store: the URL of a store that answers, to try whether it takes the records.
    """
    meta = segments[0].meta
    is_telemetry = sink in {"traces", "logs"}
    places = {
        "store": meta.get("store") or settings.named_store,
        "stream": meta.get("stream"),
        "otlp": settings.otlp_endpoint if is_telemetry else None,
    }
    if sink not in settings.sinks:
        place = "otlp" if is_telemetry else sink
        places[place] = places.get(place) or "URL"
    command = relay_command(settings.spool, places["store"], places["stream"], otlp=places["otlp"])
    deliver = f"`{command}` delivers them"
    is_here = is_same_store(meta.get("store") or None, settings.named_store) and is_same_stream(
        meta.get("stream"), settings.stream
    )
    tried = store if sink == "store" and is_here else None
    if tried is not None and (problem := _refusal(tried, segments)):
        return f": the store does not take them: {problem}", f"correct what refuses them; {deliver}"
    return "", deliver


def _why_waiting(
    sink: str,
    segments: Sequence[SegmentReport],
    settings: Settings,
    store: str | None,
    relay: SegmentReport | None,
) -> tuple[State, str, str]:
    """Return why records wait although they have a relay: state, problem and remedy.

    Args:
        sink: that has not taken them.
        segments: of one writer.
        settings: name the places that a relay must reach.
        store: the URL of a store that answers.
        relay: one that is stopped.
    """
    first = segments[0]
    if any(each.stopped for each in segments):
        return "wrong", "which is stopped (SIGSTOP)", f"kill -CONT {first.meta.get('pid')}"
    left = [each for each in segments if each.meta.get("relay") == "external"]
    if relay is not None and (left or not first.alive):
        remedy = f"kill -CONT {relay.meta.get('pid')}, or end it and start another"
        return "wrong", f"which waits for {relay.writer}: that is stopped (SIGSTOP)", remedy
    if any(not each.attended for each in left):
        return "wrong", "which is running: no relay reads them", _start(settings)
    time.sleep(_LOOK_AGAIN)
    writer = "which is running" if first.alive else "which has ended"
    if any(_advances(sink, each) for each in segments):
        remedy = f"{_start(settings)} beside it, if other threads keep the GIL from its relay"
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
