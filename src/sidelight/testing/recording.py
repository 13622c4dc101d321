"""`capture`, and the events and spans that it records."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Final

from msgspec.structs import replace

from sidelight.emission import EMITTER
from sidelight.host import imported
from sidelight.record import (
    FRAME,
    SPAN,
    Moment,
    Static,
    alike,
    decode,
    event_id,
    occurred_at,
    plain,
    reseed,
)
from sidelight.store import attributes_text, from_ns, id_text

_IDS: Final = frozenset({"artifact_id", "organization_id"})
_SECOND: Final = 1_000_000_000
_START: Final = 1_767_225_600 * _SECOND  # 2026 begins
_SEED: Final = 2026


def _id(value: Any) -> str | None:
    """Return an id as the store has it: as text."""
    return None if value is None else id_text(plain(value))


@dataclass(frozen=True, kw_only=True, repr=False)
class _Recorded:
    """The fields that events and spans have in common; `repr` omits empty ones."""

    point: str
    outcome: str
    occurred_at: datetime
    duration_ns: int | None
    trace_id: str | None
    span_id: str | None
    error_type: str | None
    error_message: str | None

    def __repr__(self) -> str:
        shown = {each.name: getattr(self, each.name) for each in fields(self)}
        pairs = ", ".join(f"{name}={value!r}" for name, value in shown.items() if value)
        return f"{type(self).__name__.removeprefix('Recorded')}({pairs})"


@dataclass(frozen=True, kw_only=True, repr=False)
class RecordedEvent(_Recorded):
    """An emitted event, with the values that the store would have.

    The store has the error among the attributes, as ``error.type`` and ``error.message``. Only the
    relay gives an event without an organization its artifact's.

    Attributes:
        point: the path of the point, ``package.module:function``.
        outcome: "started", "succeeded", "failed" or "emitted".
        occurred_at: the end of the call, or its start where it had not ended (UTC).
        duration_ns: of the call (ns); None where it had not ended.
        trace_id, span_id: of the span around the event, in hexadecimal.
        error_type, error_message: of the exception that the call raised.
    """

    type: str
    artifact_id: str | None
    organization_id: str | None
    attributes: dict[str, Any]
    mode: str
    event_id: str


_FIELDS: Final = tuple(each.name for each in fields(RecordedEvent) if each.name != "type")


@dataclass(frozen=True, kw_only=True, repr=False)
class RecordedSpan(_Recorded):
    """A span that ended; ``details`` holds what the function added to it."""

    name: str
    parent_id: str | None
    details: dict[str, Any] = field(default_factory=dict)


class Recorded:
    """Everything that was emitted so far, oldest first."""

    def __init__(self, *, strict: bool = False, deterministic: bool = False) -> None:
        self._frames: list[bytes] = []
        self._strict = strict
        self._deterministic = deterministic
        self._losses_before = dict(EMITTER.losses)
        self._losses: dict[str, int] | None = None

    # The emitter's side: see `emission.emitter.Destination`.

    def write(self, frame: bytes, /) -> None:
        """Keep a record; in strict mode, only if it agrees with the catalogue."""
        if self._strict and (event_types := imported("sidelight.record.event_types")) is not None:
            event_types.validate_frame(frame)
        self._frames.append(frame)

    append = write

    def position(self) -> tuple[int, int]:
        """Return a position that every store has reached, because then no emission waits."""
        return (0, 0)

    # The test's side.

    @property
    def records(self) -> list[tuple[Static, Moment]]:
        """The records, decoded."""
        return [decode(frame[FRAME.size :]) for frame in self._frames]

    @property
    def events(self) -> list[RecordedEvent]:
        """The events."""
        numbered = enumerate(self.records)
        return [self._event(n, static, moment) for n, (static, moment) in numbered if static.type]

    @property
    def spans(self) -> list[RecordedSpan]:
        """The sampled spans that ended."""
        numbered = enumerate(self.records)
        return [self._span(n, *record) for n, record in numbered if record[1].flags & SPAN]

    @property
    def types(self) -> list[str]:
        """The types of the events."""
        return [static.type for static, _ in self.records if static.type]

    @property
    def losses(self) -> dict[str, int]:
        """The number of records that were lost or cut, by reason."""
        if self._losses is not None:  # after the block
            return self._losses
        before = self._losses_before
        counts = {reason: n - before.get(reason, 0) for reason, n in EMITTER.losses.items()}
        return {reason: count for reason, count in counts.items() if count}

    def of(self, type: str | None = None, **having: Any) -> list[RecordedEvent]:  # noqa: A002
        """Select the events of a type (None: of any type) whose fields have these values.

        Raises:
            TypeError: events have no such field.
        """
        for name in having:
            if name not in _FIELDS:
                close = alike(name, _FIELDS)
                meant = f"did you mean {close}? If not, " if close else ""
                raise TypeError(
                    f"events have no field {name}; {meant}compare an attribute of the event:"
                    f" .attributes[{name!r}]"
                )
        wanted = {n: _id(value) if n in _IDS else value for n, value in having.items()}
        return [
            event
            for event in self.events
            if type in {None, event.type}
            and all(getattr(event, name) == value for name, value in wanted.items())
        ]

    def one(self, type: str | None = None, **having: Any) -> RecordedEvent:  # noqa: A002
        """Return the only event of a type with these values.

        Raises:
            AssertionError: there is none, or more than one.
        """
        found = self.of(type, **having)
        if len(found) != 1:
            raise AssertionError(f"{self._mismatch(found, type, having)}; emitted:{self._seen()}")
        return found[0]

    def none(self, type: str | None = None, **having: Any) -> None:  # noqa: A002
        """Assert that there is no event of a type with these values.

        Raises:
            AssertionError: there is one.
        """
        if found := self.of(type, **having):
            raise AssertionError(f"{self._mismatch(found, type, having)}; emitted:{self._seen()}")

    def in_order(self, *types: str) -> list[RecordedEvent]:
        """Return the first events of these types in this order; others may lie between them.

        Raises:
            AssertionError: the events are not there, or in another order.
        """
        found: list[RecordedEvent] = []
        for event in self.events:
            if len(found) < len(types) and event.type == types[len(found)]:
                found.append(event)
        if len(found) < len(types):
            before = f" after {', '.join(types[: len(found)])}" if found else ""
            raise AssertionError(f"no {types[len(found)]}{before}; emitted:{self._seen()}")
        return found

    def _mismatch(
        self, found: list[RecordedEvent], type_: str | None, having: dict[str, Any]
    ) -> str:
        wanted = ", ".join([repr(type_), *(f"{n}={v!r}" for n, v in having.items())])
        return f"{len(found)} events match {wanted}"

    def _seen(self) -> str:
        return "".join(f"\n  {event}" for event in self.events) or "\n  nothing"

    def clear(self) -> None:
        """Forget everything that was recorded so far."""
        self._frames.clear()

    def __iter__(self) -> Iterator[RecordedEvent]:
        return iter(self.events)

    def __len__(self) -> int:
        return len(self.events)

    def __repr__(self) -> str:
        return f"<{', '.join(self.types) or 'nothing'}>"

    def _occurred(self, number: int, moment: Moment) -> int:
        return _START + number * _SECOND if self._deterministic else occurred_at(moment)

    def _trace_id(self, trace: bytes) -> str:
        """Return a trace id in hexadecimal; its first half comes from a clock."""
        return (bytes(8) + trace[8:] if self._deterministic else trace).hex()

    def _common(self, number: int, static: Static, moment: Moment) -> dict[str, Any]:
        error = (moment.details or {}).get("error", (None, None))
        duration = moment.duration
        if duration is not None:
            duration = 0 if self._deterministic else duration
        return {
            "point": static.point,
            "outcome": static.outcome,
            "occurred_at": from_ns(self._occurred(number, moment)),
            "duration_ns": duration,
            "trace_id": self._trace_id(moment.trace) if moment.trace else None,
            "span_id": f"{moment.span_id:016x}" if moment.span_id else None,
            "error_type": error[0],
            "error_message": error[1] and error[1].replace("\0", "␀"),
        }

    def _event(self, number: int, static: Static, moment: Moment) -> RecordedEvent:
        return RecordedEvent(
            **self._common(number, static, moment),
            type=static.type or "",
            artifact_id=_id(moment.artifact_id),
            organization_id=_id(moment.organization_id),
            attributes=json.loads(attributes_text(replace(moment, details=None))),
            mode=static.mode,
            event_id=event_id(self._occurred(number, moment), moment.random),
        )

    def _span(self, number: int, static: Static, moment: Moment) -> RecordedSpan:
        details: Mapping[str, Any] = moment.details or {}
        return RecordedSpan(
            **self._common(number, static, moment),
            name=details.get("name", static.span_name),
            parent_id=f"{moment.parent_id:016x}" if moment.parent_id else None,
            details={name: value for name, value in details.items() if name != "error"},
        )


@contextmanager
def capture(*, strict: bool = True, deterministic: bool = False) -> Iterator[Recorded]:
    """Record in memory what this process emits while the block runs.

    An event of ``transaction=`` is recorded at the commit, and needs no outbox table. Where the
    application calls `configure` inside the block, its settings are checked and kept; nothing is
    opened before the block ends.

    Args:
        strict: raise errors of the instrumentation (InstrumentationError) instead of counting them
            as in production.
        deterministic: give the same ids in every run, and times that count seconds from the start
            of 2026, so that a test can compare the recording with a file.
    """
    with recording(strict=strict, deterministic=deterministic, always=True) as recorded:
        yield recorded


@contextmanager
def recording(*, strict: bool, deterministic: bool, always: bool) -> Iterator[Recorded]:
    """Record as `capture` does; unless ``always``, only until the process is configured."""
    recorded = Recorded(strict=strict, deterministic=deterministic)
    losses, problems = dict(EMITTER.losses), dict(EMITTER.problems)
    if deterministic:
        reseed(_SEED)
    try:
        with EMITTER.recorded_by(recorded, always=always, strict=strict):
            yield recorded
    finally:
        recorded._losses = recorded.losses  # noqa: SLF001  # keep them
        EMITTER.losses.clear()
        EMITTER.losses.update(losses)
        EMITTER.problems.clear()
        EMITTER.problems.update(problems)
        if deterministic:
            reseed()
