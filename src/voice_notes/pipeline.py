"""The pipeline: process a voice note, from its arrival to the last verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import voice_notes.events  # noqa: F401  # declares the event types
from voice_notes.actions.claims_extraction import extract_claims
from voice_notes.actions.draft_generation import generate_drafts
from voice_notes.actions.entity_resolution import resolve_entities
from voice_notes.actions.voice_notes import transcribe_audio
from voice_notes.artifacts import create_artifact, update_artifact_status
from voice_notes.claims import store_claims
from voice_notes.drafts import confirm_draft, create_drafts, reject_draft
from voice_notes.entity_resolutions import store_resolutions
from voice_notes.models import ArtifactStatus
from voice_notes.review import standing_policy
from voice_notes.transcripts import create_transcript

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy.orm import Session, sessionmaker

    from voice_notes.audio import Recording
    from voice_notes.directory import OrganizationCandidate, Person
    from voice_notes.matching import Match
    from voice_notes.models import (
        Artifact,
        Claim,
        Draft,
        EntityResolution,
        RejectionReason,
        Resolutions,
        Transcript,
    )

    Reviewer = Callable[[Draft, EntityResolution], RejectionReason | None]


class Listener:
    """Receives each step of the pipeline. Subclasses override the steps that they need."""

    def received(self, artifact: Artifact) -> None:
        """A note has arrived."""

    def hearing(self, heard: int, passages: int) -> None:
        """`heard` of the `passages` of the recording are transcribed."""

    def transcribed(self, transcript: Transcript) -> None:
        """The transcript is stored."""

    def claimed(self, claims: Sequence[Claim]) -> None:
        """The claims are stored."""

    def resolved(self, resolutions: Resolutions, matches: Mapping[str, Match]) -> None:
        """The resolutions are stored."""

    def drafted(self, drafts: Sequence[Draft]) -> None:
        """The drafts are stored."""

    def decided(self, draft: Draft) -> None:
        """A draft has its verdict."""


@dataclass(frozen=True)
class Pipeline:
    """Processes notes. Each step commits its own transaction."""

    sessions: sessionmaker[Session]
    people: Sequence[Person]
    reviewer: Reviewer = standing_policy
    listener: Listener = field(default_factory=Listener)

    async def process(
        self, recording: Recording, organizations: Sequence[OrganizationCandidate] = ()
    ) -> Artifact:
        """Process one note, and return its artifact. An error sets its status to failed."""
        with self.sessions.begin() as session:
            artifact = create_artifact(
                session, audio=recording, org_context_candidates=organizations
            )
        self.listener.received(artifact)
        try:
            self._set_status(artifact.id, ArtifactStatus.PROCESSING)
            await self._make_drafts(artifact.id, recording)
        except BaseException:  # an interrupted note has failed like any other
            self._set_status(artifact.id, ArtifactStatus.FAILED)
            raise
        return self._set_status(artifact.id, ArtifactStatus.COMPLETED)

    async def _make_drafts(self, artifact_id: str, recording: Recording) -> None:
        text = await transcribe_audio(artifact_id, recording, on_progress=self.listener.hearing)
        with self.sessions.begin() as session:
            transcript = create_transcript(session, artifact_id, text)
        self.listener.transcribed(transcript)

        extracted = await extract_claims(artifact_id, text)
        with self.sessions.begin() as session:
            claims = store_claims(session, artifact_id, extracted)
        self.listener.claimed(claims)

        matches = await resolve_entities(artifact_id, claims, self.people)
        with self.sessions.begin() as session:
            resolutions = store_resolutions(session, artifact_id, matches)
        self.listener.resolved(resolutions, matches)

        written = await generate_drafts(artifact_id, claims, matches)
        with self.sessions.begin() as session:
            drafts = create_drafts(session, artifact_id, written)
        self.listener.drafted(drafts)

        resolution_of = {resolution.claim_id: resolution for resolution in resolutions}
        for draft in drafts:
            self._decide(draft, resolution_of[draft.claim_id])

    def _decide(self, draft: Draft, resolution: EntityResolution) -> None:
        reason = self.reviewer(draft, resolution)
        with self.sessions.begin() as session:
            if reason is None:
                decided = confirm_draft(session, draft.id)
            else:
                decided = reject_draft(session, draft.id, reason)
        self.listener.decided(decided)

    def _set_status(self, artifact_id: str, status: ArtifactStatus) -> Artifact:
        with self.sessions.begin() as session:
            return update_artifact_status(session, artifact_id, status)
