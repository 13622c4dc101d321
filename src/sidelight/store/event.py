"""What the store returns: events, counts, artifacts and losses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta  # pydantic reads the annotations
from typing import Any, Final, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, computed_field

from sidelight.exceptions import in_one_line
from sidelight.record import DEEPEST, Mode, Outcome, is_deep
from sidelight.store.selection import Scan
from sidelight.store.times import from_ns

UNREADABLE: Final = "sidelight.unreadable"
"""Attribute of an event whose row does not have the form that a relay writes: the problem."""


class Event(BaseModel):
    """One event; immutable. Times are nanoseconds since 1970 (UTC), durations nanoseconds.

    Attributes:
        event_id: a UUIDv7; its first digits are the time of the event.
        type: the event type, for example ``artifact_received``.
        artifact_id: the artifact that the event is about.
        organization_id: the organization that the emitter named, else that of the artifact.
        occurred_ns: when the event occurred: the end of the call, or its start (see ``outcome``).
        recorded_ns: when the relay stored the event.
        point: the function that emitted it: ``package.module:Class.method``.
        mode: "scheduled" or "awaited".
        outcome: the state of the call: "started", "succeeded" or "failed"; "emitted" for an event
            without a call; "abandoned" for a start whose process ended before the call did.
        duration_ns: how long the call took; None for a call that has not ended.
        trace_id, span_id: the span that the event belongs to, in hexadecimal.
        attributes: the other fields of the point; a failure has ``error.type`` and
            ``error.message``.
    """

    model_config = ConfigDict(frozen=True)

    event_id: str
    type: str
    artifact_id: str | None
    organization_id: str | None
    occurred_ns: int
    recorded_ns: int
    point: str
    mode: Mode
    outcome: Outcome | Literal["abandoned"]
    duration_ns: int | None
    trace_id: str | None
    span_id: str | None
    attributes: dict[str, Any]

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorator over a property
    @property
    def occurred_at(self) -> datetime:
        """When the event occurred (UTC), cut to the microsecond."""
        return from_ns(self.occurred_ns)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def recorded_at(self) -> datetime:
        """When the relay stored the event (UTC), cut to the microsecond."""
        return from_ns(self.recorded_ns)

    @property
    def duration(self) -> timedelta | None:
        """How long the call took, to the microsecond."""
        return None if self.duration_ns is None else timedelta(microseconds=self.duration_ns / 1000)

    @property
    def started_ns(self) -> int:
        """When the call began."""
        return self.occurred_ns - (self.duration_ns or 0)


def event_from(row: Any) -> Event:
    """Make an event of a row; a row of another form keeps its ids, and says what is wrong."""
    try:
        return Event(
            **_ids(row),
            occurred_ns=row.occurred_at,
            recorded_ns=row.recorded_at,
            mode=row.mode,
            outcome=row.outcome,
            duration_ns=row.duration,
            trace_id=row.trace_id,
            span_id=row.span_id,
            attributes=_attributes(row.attributes),
        )
    except (ValueError, TypeError, RecursionError, msgspec.DecodeError) as error:
        problem = in_one_line(error)
    known: dict[str, Any] = {
        **{name: None if value is None else str(value) for name, value in _ids(row).items()},
        "occurred_ns": row.occurred_at if isinstance(row.occurred_at, int) else 0,
        "recorded_ns": row.recorded_at if isinstance(row.recorded_at, int) else 0,
        "mode": "scheduled",
        "outcome": "emitted",
        "duration_ns": None,
        "trace_id": None,
        "span_id": None,
        "attributes": {
            UNREADABLE: problem,
            "mode": str(row.mode),
            "outcome": str(row.outcome),
            "attributes": str(row.attributes)[:1000],
        },
    }
    return Event.model_construct(**known)


def _attributes(text: str) -> Any:
    attributes = msgspec.json.decode(text)
    if text.count("[") + text.count("{") > DEEPEST and is_deep(attributes):
        raise ValueError(f"the attributes are nested deeper than {DEEPEST} levels")
    return attributes


def _ids(row: Any) -> dict[str, Any]:
    return {
        "event_id": row.event_id,
        "type": row.type,
        "artifact_id": row.artifact_id,
        "organization_id": row.organization_id,
        "point": row.point,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Number of events of one type, organization and day (UTC).

    Attributes:
        organization_id: None for events without an organization.
    """

    organization_id: str | None
    type: str
    day: date
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeUse:
    """One event type of a store.

    Attributes:
        count: how many events there were, since the day that was asked for.
        last_event_at: when the last of all occurred (UTC); None where its row cannot be read.
    """

    type: str
    count: int
    last_event_at: datetime | None


class Events(Iterator[Event]):
    """The events that were asked for; read once, piece by piece."""

    def __init__(self, events: Iterator[Event], scan: Scan) -> None:
        self._events = events
        self._scan = scan

    def __next__(self) -> Event:
        return next(self._events)

    @property
    def left_out(self) -> datetime | None:
        """Where the time limit ended the search; None if it did not, or not yet.

        Events before this time were not examined, or those from this time on, if the search began
        with the oldest. The time is a whole millisecond: a few of these may have been examined.
        """
        return None if self._scan.left_out is None else from_ns(self._scan.left_out)


class Counts(list[Count]):
    """Counts, sorted by organization, type and day.

    Attributes:
        left_out: events before this time were not counted, because the time limit ended the count;
            None if all were.
    """

    def __init__(self, counts: Iterable[Count] = (), left_out: int | None = None) -> None:
        super().__init__(counts)
        self.left_out = None if left_out is None else from_ns(left_out)


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One artifact: its organization, first and last event (UTC), and number of events.

    Attributes:
        organization_id: the one that its events name; None where they name none, or several.
        is_shared: its events name several organizations.
    """

    artifact_id: str
    organization_id: str | None
    is_shared: bool
    first_event_at: datetime
    last_event_at: datetime
    events: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What one process could not record, or only in part, for one reason.

    Attributes:
        process: the instance id of the process, as in the resource of its spans.
        count: how many times since the process began.
        problem: the latest of them in words.
        last_at: when the process reported it last (UTC).
    """

    process: str
    reason: str
    count: int
    problem: str
    last_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process that has emitted; times in ns since 1970.

    Attributes:
        process: its instance id, as in the resource of its spans.
        host: its machine or container.
        service: its ``OTEL_SERVICE_NAME``; None where it has none.
        pid: its number on the host.
        started_ns: when it first emitted; 0 where it never said so.
        last_seen_ns: when the store got its last sign of life. It writes one every 5 s, or every
            20 s while it is idle.
        delivered_until_ns: the store has everything that the process wrote before this time.
        ended: "exited" (it said so), "died" (its lock was found free), or "" while it may live.
    """

    process: str
    host: str
    service: str | None
    pid: int
    started_ns: int
    last_seen_ns: int
    delivered_until_ns: int
    ended: Literal["exited", "died", ""]

    def __str__(self) -> str:
        name = f"{self.service or 'process'} {self.pid}"
        return f"{name} on {self.host}" if self.host else name
