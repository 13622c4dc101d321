"""Artifacts: create one for each voice note, and update its status."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidelight import arg, choose, emits, result
from voice_notes.errors import UnknownArtifactError
from voice_notes.models import Artifact, ArtifactStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.orm import Session

    from voice_notes.audio import Recording
    from voice_notes.directory import OrganizationCandidate


@emits(
    "artifact_received",
    mode="scheduled",
    transaction=arg.session,
    artifact_id=result.id,
    organization_id=arg.org_context_candidates[0].organization_id,
    seconds=arg.audio.seconds,
    size=arg.audio.size,
)
def create_artifact(
    session: Session,
    *,
    audio: Recording,
    org_context_candidates: Sequence[OrganizationCandidate],
) -> Artifact:
    """Create the artifact of a note. It belongs to the first candidate, or to no organization."""
    organization = org_context_candidates[0].organization_id if org_context_candidates else None
    artifact = Artifact(
        name=audio.name,
        digest=audio.digest,
        seconds=audio.seconds,
        organization_id=organization,
    )
    session.add(artifact)
    return artifact


@emits(
    choose(
        arg.status,
        {"completed": "artifact_completed", "failed": "artifact_failed"},
        otherwise="artifact_status_changed",
    ),
    mode="scheduled",
    transaction=arg.session,
    artifact_id=arg.artifact_id,
    status=arg.status,
)
def update_artifact_status(session: Session, artifact_id: str, status: ArtifactStatus) -> Artifact:
    """Set the status of an artifact."""
    artifact = session.get(Artifact, artifact_id)
    if artifact is None:
        raise UnknownArtifactError(f"there is no artifact {artifact_id}")
    artifact.status = status
    return artifact
