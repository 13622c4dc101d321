"""Judge expectations: which artifacts are overdue, and of which that is unknown.

An artifact is overdue if its time is over and no event ended the wait, although everything that
processes wrote until then has been delivered. Where a process is silent or its delivery is behind,
the missing event may be on its way: the answer is "unknown", with the reason.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, NamedTuple

from sidelight.record import Expectation
from sidelight.store.event import Process
from sidelight.store.journeys import Journey, Journeys
from sidelight.store.selection import Scan
from sidelight.store.times import from_ns

SILENT: Final = 45_000_000_000
"""Nanoseconds without a sign of life, after which a process is silent; one that is idle writes one
every 20 s."""
_BEHIND: Final = 30_000_000_000  # ns; a shorter delay is that of the signs of life
_MARGIN: Final = 1_000_000_000  # ns between a call's clock and the writing of its record
_SECOND: Final = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Overdue:
    """An artifact for which an expectation was not met.

    Attributes:
        state: "overdue"; or "unknown" where the missing event may not have been delivered yet.
        reason: why it is unknown; "" for an overdue artifact.
        after, one_of: of the expectation.
        since: when the event occurred that began the wait (UTC).
        due_at: when the wait should have ended.
        late_ns: how long ago that was (ns).
        last_type, last_at, last_outcome: of the artifact's last event. The outcome "abandoned" says
            that the process ended within a call.
    """

    state: Literal["overdue", "unknown"]
    reason: str
    artifact_id: str
    organization_id: str | None
    after: str
    one_of: tuple[str, ...]
    since: datetime
    due_at: datetime
    late_ns: int
    last_type: str
    last_at: datetime
    last_outcome: str


class Judgement(list[Overdue]):
    """Overdue artifacts and those of which it is unknown, the latest ones first.

    Attributes:
        unknown: the reasons for which something is unknown.
        left_out: artifacts that began before this time were not examined, because the time limit
            ended the search; None if all were.
        large: how many artifacts were left out because they have more than 10,000 events.
    """

    unknown: list[str]
    left_out: datetime | None
    large: int


class Mark(NamedTuple):
    """How far the delivery is.

    Attributes:
        until: what was written before this time (ns) has been delivered.
        reason: why it is not further; "" for a delay as short as that of every delivery.
    """

    until: int
    reason: str


def marks_of(running: Iterable[Process] | None, without: Collection[str], now: int) -> list[Mark]:
    """Return how far the delivery of each process is that has not ended.

    Args:
        running: the processes that have not ended; None where the store knows no process.
        without: the ids of processes from which nothing more is expected.
        now: ns since 1970.
    """
    if running is None:
        return [Mark(0, "no process has told the store that it lives; is a relay running?")]
    return [
        Mark(each.delivered_until_ns - _MARGIN, _why_behind(each, now))
        for each in running
        if each.process not in without
    ]


def _why_behind(process: Process, now: int) -> str:
    silent, behind = now - process.last_seen_ns, now - process.delivered_until_ns
    if silent > SILENT:
        return f"{process} has been silent for {silent // _SECOND} s"
    if behind > _BEHIND:
        return f"{process} delivers what it wrote {behind // _SECOND} s ago"
    return ""


def judge(
    expected: Sequence[tuple[Expectation, Journeys, Scan]], marks: Sequence[Mark], now: int
) -> Judgement:
    """Judge every artifact whose time is over.

    Args:
        expected: each expectation with the journeys that begin its wait.
        marks: how far the delivery is.
        now: ns since 1970.
    """
    answer = Judgement()
    for expectation, journeys, _ in expected:
        answer.extend(_judged(expectation, journeys, marks, now))
    answer.sort(key=lambda each: (-each.late_ns, each.artifact_id))
    answer.unknown = sorted({each.reason for each in answer if each.reason})
    ends = [scan.left_out for *_, scan in expected if scan.left_out is not None]
    answer.left_out = from_ns(max(ends)) if ends else None
    answer.large = sum(journeys.large for _, journeys, _ in expected)
    return answer


def _judged(
    expectation: Expectation, journeys: Iterable[Journey], marks: Sequence[Mark], now: int
) -> Iterator[Overdue]:
    ends = frozenset(expectation.one_of)
    for journey in journeys:
        began = journey.start.occurred_at
        due = began + expectation.within_ns
        if due > now or journey.next_step(journey.at, ends) is not None:
            continue
        behind = [mark for mark in marks if mark.until < due]
        if behind and not any(mark.reason for mark in behind):
            continue  # the next sign of life decides
        last = journey.events[-1]
        yield Overdue(
            state="unknown" if behind else "overdue",
            reason=next((mark.reason for mark in behind if mark.reason), ""),
            artifact_id=journey.start.artifact_id,
            organization_id=journey.start.organization_id,
            after=expectation.after,
            one_of=expectation.one_of,
            since=from_ns(began),
            due_at=from_ns(due),
            late_ns=now - due,
            last_type=last.type,
            last_at=from_ns(last.occurred_at),
            last_outcome=last.outcome,
        )
