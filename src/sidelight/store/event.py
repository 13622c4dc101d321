"""`Event`: what happened, as the store hands it out; `Catalogue`: what can happen."""

from __future__ import annotations

from datetime import datetime, timedelta  # pydantic reads the annotations
from typing import Any

from pydantic import BaseModel, ConfigDict, computed_field

from sidelight.record import Mode, Outcome
from sidelight.store.times import from_ns


class Event(BaseModel):
    """One event, unchangeable. Times are nanoseconds since 1970 (UTC).

    Attributes:
        event_id: a UUIDv7: it begins with the time at which the event occurred.
        type: what happened: ``artifact_received``.
        artifact_id: what it is about.
        organization_id: whose it is; its artifact's, where the emitter named none.
        occurred_ns: when it happened: when the call ended, or began (``outcome`` says which).
        recorded_ns: when the relay put it into the store.
        point: the function that it comes from: ``package.module:Class.method``.
        mode: how it was emitted: "scheduled" or "awaited".
        outcome: what the call had come to: "started", "succeeded", "failed", "closed" (a generator
            that its consumer did not finish); "emitted" where there was no call.
        duration_ns: how long the call took; None where it has not ended.
        trace_id, span_id: where it belongs in a trace, in hexadecimal.
        attributes: what else the point captured; of a failure ``error.type`` and ``error.message``.
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
    outcome: Outcome
    duration_ns: int | None
    trace_id: str | None
    span_id: str | None
    attributes: dict[str, Any]

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorator over a property
    @property
    def occurred_at(self) -> datetime:
        """When it happened (UTC), to the microsecond."""
        return from_ns(self.occurred_ns)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def recorded_at(self) -> datetime:
        """When it came into the store (UTC), to the microsecond."""
        return from_ns(self.recorded_ns)

    @property
    def duration(self) -> timedelta | None:
        """How long the call took, to the microsecond."""
        return None if self.duration_ns is None else timedelta(microseconds=self.duration_ns / 1000)

    @property
    def started_ns(self) -> int:
        """When the call began."""
        return self.occurred_ns - (self.duration_ns or 0)
