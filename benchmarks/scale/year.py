"""A simulated year of a voice-note pipeline, as frames of the spool, in the order of delivery."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from sidelight.record.format import (
    SAMPLED,
    SPAN,
    Moment,
    Outcome,
    Static,
    encode,
    encode_static,
    frame,
)

DAY: Final = 86_400_000_000_000
_AT_ONCE: Final = 50
"""Artifacts that are in the machine at the same time; their events come mixed."""
_WAITING: Final = 2_000
"""Artifacts with drafts that wait for a person, all equally long on the average."""
_LATE: Final = 0.002
"""Share of the events that are delivered up to `_LATE_BY` after they occurred."""
_LATE_BY: Final = 14 * DAY

_PATH: Final[tuple[tuple[str, str, str, Outcome], ...]] = (
    ("artifact_received", "artifacts:create_artifact", "scheduled", "succeeded"),
    ("transcription_started", "actions.voice_notes:transcribe_audio", "awaited", "started"),
    ("transcription_completed", "transcripts:create_transcript", "scheduled", "succeeded"),
    ("claims_extraction_started", "actions.claims:extract_claims", "awaited", "started"),
    ("claims_extracted", "claims:store_claims", "scheduled", "succeeded"),
    ("entity_resolution_started", "actions.entities:resolve_entities", "awaited", "started"),
    ("entity_resolution_completed", "entities:store_resolutions", "scheduled", "succeeded"),
    ("draft_generation_started", "actions.drafts:generate_drafts", "awaited", "started"),
    ("drafts_generated", "drafts:create_drafts", "scheduled", "succeeded"),
    ("draft_confirmed", "drafts:confirm_draft", "scheduled", "succeeded"),
)
TYPES: Final = tuple(type_ for type_, _, _, _ in _PATH)


@dataclass(slots=True)
class _Artifact:
    key: str
    organization: str
    trace: bytes
    step: int = 0


@dataclass
class Year:
    """Events evenly over ``days`` that end today, each artifact with ten of them.

    Nine come close together, the tenth when a person confirms the drafts. Only the first names the
    organization, as in the pipeline; a few organizations have most of the artifacts.

    Attributes:
        written: how many events there have been.
        known: some of the artifacts, to be asked for.
    """

    events: int
    days: int = 365
    organizations: int = 200
    seed: int = 20_261_123
    written: int = 0
    known: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.end = time.time_ns() // DAY * DAY
        self.begin = self.end - self.days * DAY
        self._now = self.begin
        self._chance = random.Random(self.seed)
        self._heads = [
            encode_static(Static(type_, f"voice_notes.{point}", mode, outcome, type_))
            for type_, point, mode, outcome in _PATH
        ]
        self._active = [self._artifact() for _ in range(_AT_ONCE)]
        self._waiting: list[_Artifact] = []

    def organization(self, chance: random.Random) -> str:
        """One of them, the large ones oftener."""
        return f"organization-{int(self.organizations * chance.random() ** 3):04}"

    def frames(self, count: int) -> Iterator[bytes]:
        """The next so many events."""
        chance, heads = self._chance, self._heads
        pace = (self.end - self.begin) / self.events
        for number in range(self.written, self.written + count):
            self._now = at = self.begin + int(number * pace)
            artifact = self._next(chance)
            if chance.random() < _LATE:
                at -= int(chance.random() * _LATE_BY)
            yield frame(heads[artifact.step] + encode(self._moment(artifact, at)))
            artifact.step += 1
        self.written += count

    def _next(self, chance: random.Random) -> _Artifact:
        """The one to which something happens next."""
        waiting = self._waiting
        if len(waiting) > _WAITING:
            place = int(chance.random() * len(waiting))
            waiting[place], waiting[-1] = waiting[-1], waiting[place]
            return waiting.pop()
        place = int(chance.random() * _AT_ONCE)
        artifact = self._active[place]
        if artifact.step == len(_PATH) - 1:
            waiting.append(artifact)
            artifact = self._active[place] = self._artifact()
        return artifact

    def _moment(self, artifact: _Artifact, at: int) -> Moment:
        bits = self._chance.getrandbits
        step = artifact.step
        attributes: dict[str, Any] = {"model": "tiny-en", "step": step, "seconds": bits(10) / 16}
        return Moment(
            time=at,
            random=bits(64),
            artifact_id=artifact.key,
            organization_id=artifact.organization if step == 0 else None,
            duration=None if step % 2 else bits(30),
            trace=artifact.trace,
            span_id=bits(64),
            parent_id=0,
            flags=SPAN | SAMPLED,
            attributes=attributes,
            details=None,
        )

    def _artifact(self) -> _Artifact:
        bits = self._chance.getrandbits
        key = str(uuid.UUID(int=bits(128), version=4))
        if len(self.known) < 10_000:
            self.known.append(key)
        elif bits(8) == 0:  # a few of the later ones as well
            self.known[bits(13)] = key
        # The first half of a trace id follows the clock, as the emitter makes it.
        trace = self._now.to_bytes(8) + bits(64).to_bytes(8)
        return _Artifact(key, self.organization(self._chance), trace)
