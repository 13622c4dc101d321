"""The events of the pipeline, and their payloads."""

from __future__ import annotations

from pydantic import BaseModel, Field

from sidelight import catalogue
from voice_notes.models import ArtifactStatus, DraftKind, RejectionReason


class _AboutAnArtifact(BaseModel):
    artifact_id: str = Field(description="The note.")


@catalogue.event("artifact_received")
class ArtifactReceived(_AboutAnArtifact):
    """A voice note has arrived."""

    seconds: float | None = Field(default=None, description="Its length, where it could be told.")
    size: int = Field(ge=0, description="Its size in bytes.")


@catalogue.event("artifact_status_changed")
@catalogue.event("artifact_completed")
@catalogue.event("artifact_failed")
class ArtifactStatusChanged(_AboutAnArtifact):
    """A note has moved on to another status."""

    status: ArtifactStatus


@catalogue.event("transcription_started")
@catalogue.event("transcription_failed")
class Transcription(_AboutAnArtifact):
    """The recognizer listens to a note."""

    seconds: float | None = Field(default=None, description="The length of the recording.")


@catalogue.event("transcription_completed")
class TranscriptionCompleted(_AboutAnArtifact):
    """A note has its transcript."""

    words: int = Field(ge=0)


@catalogue.event("claims_extraction_started")
@catalogue.event("claims_extraction_failed")
class ClaimsExtraction(_AboutAnArtifact):
    """A transcript is searched for what it asserts about people."""


@catalogue.event("claims_extracted")
class ClaimsExtracted(_AboutAnArtifact):
    """The claims of a note are stored."""

    claims: int = Field(ge=0)
    people: int = Field(ge=0, description="How many different people they are about.")


@catalogue.event("entity_resolution_started")
class EntityResolutionStarted(_AboutAnArtifact):
    """The people that a note speaks of are looked up in the directory."""

    names: int = Field(ge=0)


@catalogue.event("entity_resolution_completed")
@catalogue.event("entity_resolution_needs_disambiguation")
class EntityResolved(_AboutAnArtifact):
    """It is known how well the names of a note fit people of the directory."""

    resolved: int = Field(ge=0)
    ambiguous: int = Field(ge=0)
    unresolved: int = Field(ge=0)


@catalogue.event("draft_generation_started")
class DraftGenerationStarted(_AboutAnArtifact):
    """Notes and mails are written from the claims."""


@catalogue.event("drafts_generated")
class DraftsGenerated(_AboutAnArtifact):
    """The drafts of a note wait for a verdict."""

    notes: int = Field(ge=0)
    mails: int = Field(ge=0)


@catalogue.event("draft_confirmed")
class DraftConfirmed(_AboutAnArtifact):
    """A person has released a draft."""

    draft_id: str
    kind: DraftKind


@catalogue.event("draft_rejected")
class DraftRejected(_AboutAnArtifact):
    """A person has turned a draft down."""

    draft_id: str
    kind: DraftKind
    reason: RejectionReason
