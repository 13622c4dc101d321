"""The verdict on a draft: a reason for the rejection, or None to confirm it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from voice_notes.models import RejectionReason, ResolutionStatus

if TYPE_CHECKING:
    from voice_notes.models import Draft, EntityResolution


def standing_policy(draft: Draft, resolution: EntityResolution) -> RejectionReason | None:  # noqa: ARG001
    """Decide without a person: confirm drafts about one known person, reject the others."""
    if resolution.status is ResolutionStatus.RESOLVED:
        return None
    return RejectionReason.AMBIGUOUS_PERSON
