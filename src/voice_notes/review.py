"""The verdict on a draft: why it is rejected, or None where it is confirmed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from voice_notes.models import RejectionReason, ResolutionStatus

if TYPE_CHECKING:
    from voice_notes.models import Draft, EntityResolution


def standing_policy(draft: Draft, resolution: EntityResolution) -> RejectionReason | None:  # noqa: ARG001
    """Stand in for the person: confirm what is about one known person, reject the rest."""
    if resolution.status is ResolutionStatus.RESOLVED:
        return None
    return RejectionReason.AMBIGUOUS_PERSON
