"""The business data: an artifact and everything that was made of it.

Ids are strings made here, not by the database, so that a row has its id from the moment it is
created and other rows can refer to it before anything was flushed.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from uuid import uuid4

from sqlalchemy import JSON, DateTime, ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column


class ArtifactStatus(StrEnum):
    """Where an artifact stands."""

    RECEIVED = "received"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"


class ResolutionStatus(StrEnum):
    """How well it is known whom a claim is about."""

    RESOLVED = "resolved"
    NEEDS_DISAMBIGUATION = "needs_disambiguation"
    UNRESOLVED = "unresolved"


class DraftKind(StrEnum):
    """What a draft is going to be."""

    CRM_NOTE = "crm_note"
    FOLLOW_UP_MAIL = "follow_up_mail"


class DraftStatus(StrEnum):
    """What the person said to a draft."""

    PENDING = "pending"
    CONFIRMED = "confirmed"
    REJECTED = "rejected"


class RejectionReason(StrEnum):
    """Why a draft was rejected."""

    AMBIGUOUS_PERSON = "ambiguous_person"
    REVIEWER_DECLINED = "reviewer_declined"


def _new_id() -> str:
    return str(uuid4())


def _now() -> datetime:
    return datetime.now(UTC)


class Base(MappedAsDataclass, DeclarativeBase, kw_only=True):
    """Every row has an id of its own and knows when it was made."""

    id: Mapped[str] = mapped_column(primary_key=True, init=False, default_factory=_new_id)
    created_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), init=False, default_factory=_now
    )


class Artifact(Base):
    """One voice note, as it arrived."""

    __tablename__ = "artifacts"

    name: Mapped[str]
    digest: Mapped[str]
    seconds: Mapped[float | None]
    organization_id: Mapped[str | None] = mapped_column(index=True)
    status: Mapped[ArtifactStatus] = mapped_column(default=ArtifactStatus.RECEIVED)


class Transcript(Base):
    """What was said in an artifact."""

    __tablename__ = "transcripts"

    artifact_id: Mapped[str] = mapped_column(ForeignKey("artifacts.id"), index=True)
    text: Mapped[str]
    words: Mapped[int]


class Claim(Base):
    """A sentence that asserts something about somebody."""

    __tablename__ = "claims"

    artifact_id: Mapped[str] = mapped_column(ForeignKey("artifacts.id"), index=True)
    position: Mapped[int]
    subject: Mapped[str]
    predicate: Mapped[str]
    sentence: Mapped[str]

    @property
    def statement(self) -> str:
        """The claim with its subject's name, whatever pronoun was spoken."""
        return f"{self.subject} {self.predicate}"


class EntityResolution(Base):
    """Whom in the directory a claim is about, or who is in question."""

    __tablename__ = "entity_resolutions"

    artifact_id: Mapped[str] = mapped_column(ForeignKey("artifacts.id"), index=True)
    claim_id: Mapped[str] = mapped_column(ForeignKey("claims.id"), index=True)
    mention: Mapped[str]
    status: Mapped[ResolutionStatus]
    person_id: Mapped[str | None]
    score: Mapped[float]
    candidates: Mapped[list[str]] = mapped_column(JSON)


class Resolutions(tuple[EntityResolution, ...]):
    """The resolutions of one artifact, and how they came out together."""

    __slots__ = ()

    def _count(self, status: ResolutionStatus) -> int:
        return sum(resolution.status is status for resolution in self)

    @property
    def resolved(self) -> int:
        """How many claims are about one known person."""
        return self._count(ResolutionStatus.RESOLVED)

    @property
    def ambiguous(self) -> int:
        """How many claims may be about several known persons."""
        return self._count(ResolutionStatus.NEEDS_DISAMBIGUATION)

    @property
    def unresolved(self) -> int:
        """How many claims are about nobody whom the directory knows."""
        return self._count(ResolutionStatus.UNRESOLVED)

    @property
    def outcome(self) -> str:
        """Whether somebody has to say who was meant."""
        return "needs_disambiguation" if self.ambiguous else "completed"


class Draft(Base):
    """A text that goes out once a person has confirmed it."""

    __tablename__ = "drafts"

    artifact_id: Mapped[str] = mapped_column(ForeignKey("artifacts.id"), index=True)
    claim_id: Mapped[str] = mapped_column(ForeignKey("claims.id"), index=True)
    kind: Mapped[DraftKind]
    recipient: Mapped[str]
    subject: Mapped[str]
    body: Mapped[str]
    status: Mapped[DraftStatus] = mapped_column(default=DraftStatus.PENDING)
    rejection_reason: Mapped[RejectionReason | None] = mapped_column(default=None)
