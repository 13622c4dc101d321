"""A pipeline's events of known truth: so many stuck, so many abandoned, known latencies.

The same arguments give the same events. The truth is written down while the events are made, not
computed from them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from tests.support.stored import NOON, SECOND, record

from sidelight.record import CALL, SAMPLED, SPAN, event_id
from sidelight.spool import Record

MINUTE = 60 * SECOND
POINTS = {"mail": "shop.inbox:receive_mail", "phone": "shop.calls:receive_call"}
#: Fate → how many of twenty artifacts.
FATES = {
    "completed": 10,
    "failed": 2,  # in transcription
    "failed_late": 1,  # after it
    "stuck": 2,  # received, and nothing else
    "stuck_late": 1,  # transcribed, and nothing else
    "abandoned": 1,  # its process died in transcription
    "rerun": 2,  # failed, received again, completed
    "tie": 1,  # every event in the same nanosecond
}
_STARTED = SAMPLED | CALL
_ENDED = SAMPLED | CALL | SPAN


@dataclass(frozen=True, slots=True)
class Told:
    """One event as it was emitted; ``at`` in ns."""

    event_id: str
    type: str
    at: int
    outcome: str
    point: str
    attributes: dict[str, object]

    @property
    def day(self) -> date:
        return datetime.fromtimestamp(self.at // SECOND, UTC).date()


@dataclass(slots=True)
class Life:
    """The life of one artifact; times in ns."""

    artifact: str
    organization: str | None
    kind: str
    words: int
    fate: str
    received: int
    transcribed: int | None = None
    completed: int | None = None
    failed: int | None = None
    failures: int = 0
    """How many of its events have the outcome "failed"."""
    last: str = "received"
    events: int = 0
    records: list[Record] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)

    @property
    def day(self) -> date:
        return datetime.fromtimestamp(self.received // SECOND, UTC).date()

    def emit(self, type: str, at: int, **named: object) -> int:
        named.setdefault("point", f"shop.work:{type}")
        bits = hash_of(self.artifact, self.events)
        self.records.append(
            record(
                type,
                at,
                artifact=self.artifact,
                organization=self.organization,
                bits=bits,
                **named,
            )
        )
        key = event_id(at, bits)
        outcome, attributes = named.get("outcome", "succeeded"), named.get("attributes") or {}
        self.told.append(Told(key, type, at, outcome, named["point"], attributes))
        self.events += 1
        self.last = type
        return at

    def call(self, outcome: str) -> dict[str, object]:
        """The transcription, as a call whose start and end are recorded."""
        return {
            "outcome": outcome,
            "flags": _STARTED if outcome == "started" else _ENDED,
            "trace": hash_of(self.artifact, -1).to_bytes(16),
            "span": self.words + 1,
        }


def hash_of(artifact: str, number: int) -> int:
    """Random bits that depend on the arguments alone."""
    return random.Random(f"{artifact}/{number}").getrandbits(64)


def simulate(
    artifacts: int = 200, *, seed: int = 1, begin: int = NOON, spacing: int = 7 * MINUTE
) -> list[Life]:
    """Live through so many artifacts, of which one begins after the other."""
    chance = random.Random(seed)
    fates = [fate for fate, share in FATES.items() for _ in range(share)]
    lives = []
    for number in range(artifacts):
        kind = chance.choice(sorted(POINTS))
        life = Life(
            artifact=f"a{number:05}",
            organization=chance.choice(["north", "south", None]),
            kind=kind,
            words=chance.randrange(1000),
            fate=fates[number % len(fates)],
            received=begin + number * spacing,
        )
        live(life, chance)
        lives.append(life)
    return lives


def live(life: Life, chance: random.Random) -> None:
    def later(most: int = 20 * MINUTE) -> int:
        return 0 if life.fate == "tie" else chance.randrange(1, most)

    def receive(at: int) -> int:
        return life.emit(
            "received",
            at,
            point=POINTS[life.kind],
            attributes={"kind": life.kind, "words": life.words},
        )

    now = receive(life.received)
    if life.fate == "stuck":
        return
    now += later()
    life.emit("transcription_started", now, **life.call("started"))
    if life.fate == "abandoned":
        return
    if life.fate in {"failed", "rerun"}:
        now += later()
        took = now - life.received
        call, error = life.call("failed"), ("ValueError", "no sound")
        life.emit("failed", now, duration=took, error=error, **call)
        life.failed, life.failures = now, 1
        if life.fate == "failed":
            return
        now = receive(now + later())
    now += later()
    life.transcribed = life.emit(
        "transcribed", now, duration=later(SECOND), **life.call("succeeded")
    )
    if life.fate == "stuck_late":
        return
    now += later()
    if life.fate == "failed_late":
        life.failed = life.emit("failed", now, outcome="failed", error=("OSError", "disk"))
        life.failures = 1
    else:
        life.completed = life.emit("completed", now)


def records_of(lives: list[Life]) -> list[Record]:
    """The events of all artifacts."""
    return [each for life in lives for each in life.records]


def with_fate(lives: list[Life], *fates: str) -> Iterator[Life]:
    """The artifacts of these fates."""
    return (life for life in lives if life.fate in fates)
