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
from sidelight.store.words import whole_seconds

SILENT: Final = 45_000_000_000
"""Nanoseconds without a sign of life, after which a process is silent; one that is idle writes one
every 20 s."""
_BEHIND: Final = 30_000_000_000  # ns; a shorter delay is that of the signs of life
_MARGIN: Final = 1_000_000_000  # ns between a call's clock and the writing of its record
_REASONS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Overdue:
    """An artifact for which an expectation was not met.

    Attributes:
        state: "overdue"; or "unknown" where the missing event may not have been delivered yet.
        reason: why it is unknown; "" for an overdue artifact.
        process: the instance id of the process that is silent or behind, as ``without`` of
            `Store.overdue` takes it; "" where none is.
        after, one_of: of the expectation.
        since: when the event occurred that began the wait (UTC).
        due_at: when the wait should have ended.
        late_ns: how long ago that was (ns).
        last_type, last_at, last_outcome: of the artifact's last event. The outcome "abandoned" says
            that the process ended within a call.
    """

    state: Literal["overdue", "unknown"]
    reason: str
    process: str
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
        unknown: the reasons for which something is unknown; at most ten.
        not_judged: how many waits are over in time, and not judged yet: what was written until then
            is about to be delivered.
        awaited: the conditions that decide these, in words; at most ten.
        left_out: artifacts that began before this time were not examined, because the time limit
            ended the search; None if all were.
        large: how many artifacts were left out because they have more than 10,000 events.
    """

    unknown: list[str]
    not_judged: int
    awaited: list[str]
    left_out: datetime | None
    large: int


class Mark(NamedTuple):
    """How far the delivery is.

    Attributes:
        until: what was written before this time (ns) has been delivered.
        reason: why it is not further; "" for a delay as short as that of every delivery.
        awaited: the condition for the delivery to be further, in words.
        process: the instance id of the process; "" for another limit.
    """

    until: int
    reason: str
    awaited: str = ""
    process: str = ""

    @classmethod
    def of(cls, process: Process, reason: str) -> Mark:
        """Return how far the delivery of a process is."""
        awaited = f"{process} gives its next sign of life"
        return cls(process.delivered_until_ns - _MARGIN, reason, awaited, process.process)


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
        Mark.of(each, _why_behind(each, now)) for each in running if each.process not in without
    ]


def _why_behind(process: Process, now: int) -> str:
    silent, behind = now - process.last_seen_ns, now - process.delivered_until_ns
    name = f"{process} (instance {process.process})"
    if silent > SILENT:
        return f"{name} has been silent for {whole_seconds(silent)}"
    if behind > _BEHIND:
        return f"{name} delivers what it wrote {whole_seconds(behind)} ago"
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
    answer.not_judged, awaited, unknown = 0, set[str](), set[str]()
    for expectation, journeys, _ in expected:
        for due, journey in _due(expectation, journeys, now):
            behind = [mark for mark in marks if mark.until < due]
            reasons = [mark for mark in behind if mark.reason]
            if behind and not reasons:
                answer.not_judged += 1
                awaited.update(mark.awaited for mark in behind)
                continue
            unknown.update(mark.reason for mark in reasons)
            answer.append(_overdue(expectation, journey, reasons, now))
    answer.sort(key=lambda each: (-each.late_ns, each.artifact_id))
    answer.unknown, answer.awaited = _shortened(unknown), _shortened(awaited)
    ends = [scan.left_out for *_, scan in expected if scan.left_out is not None]
    answer.left_out = from_ns(max(ends)) if ends else None
    answer.large = sum(journeys.large for _, journeys, _ in expected)
    return answer


def _shortened(reasons: Collection[str]) -> list[str]:
    shown = sorted(reasons)[:_REASONS]
    return shown if len(reasons) <= _REASONS else [*shown, f"{len(reasons) - _REASONS} more"]


def _due(
    expectation: Expectation, journeys: Iterable[Journey], now: int
) -> Iterator[tuple[int, Journey]]:
    """Yield the journeys whose wait is over in time and was ended by no event, and when it was."""
    ends = frozenset(expectation.one_of)
    for journey in journeys:
        due = journey.start.occurred_at + expectation.within_ns
        if due <= now and journey.next_step(journey.at, ends) is None:
            yield due, journey


def _overdue(
    expectation: Expectation, journey: Journey, reasons: Sequence[Mark], now: int
) -> Overdue:
    """Judge a wait; where there are reasons, it is unknown."""
    began, last = journey.start.occurred_at, journey.events[-1]
    due = began + expectation.within_ns
    return Overdue(
        state="unknown" if reasons else "overdue",
        reason=reasons[0].reason if reasons else "",
        process=reasons[0].process if reasons else "",
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
