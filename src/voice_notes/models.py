"""The business data: an artifact, and the rows derived from it.

Ids are made here and not by the database, so that a row has its id at creation. Other rows can
refer to it before a flush.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from uuid import uuid4

from sqlalchemy import JSON, DateTime, ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column


class ArtifactStatus(StrEnum):
    """The status of an artifact."""

    RECEIVED = "received"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"


class ResolutionStatus(StrEnum):
    """The result of matching a claim with a person."""

    RESOLVED = "resolved"
    NEEDS_DISAMBIGUATION = "needs_disambiguation"
    UNRESOLVED = "unresolved"


class DraftKind(StrEnum):
    """The kind of a draft."""

    CRM_NOTE = "crm_note"
    FOLLOW_UP_MAIL = "follow_up_mail"


class DraftStatus(StrEnum):
    """The verdict on a draft."""

    PENDING = "pending"
    CONFIRMED = "confirmed"
    REJECTED = "rejected"


class RejectionReason(StrEnum):
    """The reason for a rejected draft."""

    AMBIGUOUS_PERSON = "ambiguous_person"
    REVIEWER_DECLINED = "reviewer_declined"


def _new_id() -> str:
    return str(uuid4())


def _now() -> datetime:
    return datetime.now(UTC)


class Base(MappedAsDataclass, DeclarativeBase, kw_only=True):
    """The columns of every table: the id, and the time of creation in UTC."""

    id: Mapped[str] = mapped_column(primary_key=True, init=False, default_factory=_new_id)
    created_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), init=False, default_factory=_now
    )


class Artifact(Base):
    """One voice note."""

    __tablename__ = "artifacts"

    name: Mapped[str]
    digest: Mapped[str]
    seconds: Mapped[float | None]
    organization_id: Mapped[str | None] = mapped_column(index=True)
    status: Mapped[ArtifactStatus] = mapped_column(default=ArtifactStatus.RECEIVED)


class Transcript(Base):
    """The text of an artifact."""

    __tablename__ = "transcripts"

    artifact_id: Mapped[str] = mapped_column(ForeignKey("artifacts.id"), index=True)
    text: Mapped[str]
    words: Mapped[int]


class Claim(Base):
    """A sentence that asserts something about a person."""

    __tablename__ = "claims"

    artifact_id: Mapped[str] = mapped_column(ForeignKey("artifacts.id"), index=True)
    position: Mapped[int]
    subject: Mapped[str]
    predicate: Mapped[str]
    sentence: Mapped[str]

    @property
    def statement(self) -> str:
        """The claim with the name of its subject in place of a pronoun."""
        return f"{self.subject} {self.predicate}"


class EntityResolution(Base):
    """The person that a claim is about, or the candidates."""

    __tablename__ = "entity_resolutions"

    artifact_id: Mapped[str] = mapped_column(ForeignKey("artifacts.id"), index=True)
    claim_id: Mapped[str] = mapped_column(ForeignKey("claims.id"), index=True)
    mention: Mapped[str]
    status: Mapped[ResolutionStatus]
    person_id: Mapped[str | None]
    score: Mapped[float]
    candidates: Mapped[list[str]] = mapped_column(JSON)


class Resolutions(tuple[EntityResolution, ...]):
    """The resolutions of one artifact, and their counts by status."""

    __slots__ = ()

    def _count(self, status: ResolutionStatus) -> int:
        return sum(resolution.status is status for resolution in self)

    @property
    def resolved(self) -> int:
        """The number of claims about one known person."""
        return self._count(ResolutionStatus.RESOLVED)

    @property
    def ambiguous(self) -> int:
        """The number of claims with several candidates."""
        return self._count(ResolutionStatus.NEEDS_DISAMBIGUATION)

    @property
    def unresolved(self) -> int:
        """The number of claims without a candidate."""
        return self._count(ResolutionStatus.UNRESOLVED)

    @property
    def outcome(self) -> str:
        """``needs_disambiguation`` if any claim is ambiguous, else ``completed``."""
        return "needs_disambiguation" if self.ambiguous else "completed"


class Draft(Base):
    """A text that is sent after a person confirmed it."""

    __tablename__ = "drafts"

    artifact_id: Mapped[str] = mapped_column(ForeignKey("artifacts.id"), index=True)
    claim_id: Mapped[str] = mapped_column(ForeignKey("claims.id"), index=True)
    kind: Mapped[DraftKind]
    recipient: Mapped[str]
    subject: Mapped[str]
    body: Mapped[str]
    status: Mapped[DraftStatus] = mapped_column(default=DraftStatus.PENDING)
    rejection_reason: Mapped[RejectionReason | None] = mapped_column(default=None)
