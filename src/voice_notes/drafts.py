"""Drafts: written by the pipeline, confirmed or rejected by a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidelight import arg, emits, result
from voice_notes import counts
from voice_notes.errors import DraftStateError
from voice_notes.models import Draft, DraftStatus, RejectionReason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.orm import Session

    from voice_notes.writing import WrittenDraft


@emits(
    "drafts_generated",
    mode="scheduled",
    transaction=arg.session,
    artifact_id=arg.artifact_id,
    notes=counts.notes,
    mails=counts.mails,
)
def create_drafts(
    session: Session, artifact_id: str, written: Sequence[WrittenDraft]
) -> list[Draft]:
    """Store the written drafts. Each one waits for a verdict."""
    drafts = [
        Draft(
            artifact_id=artifact_id,
            claim_id=draft.claim_id,
            kind=draft.kind,
            recipient=draft.recipient,
            subject=draft.subject,
            body=draft.body,
        )
        for draft in written
    ]
    session.add_all(drafts)
    return drafts


@emits(
    "draft_confirmed",
    mode="scheduled",
    transaction=arg.session,
    artifact_id=result.artifact_id,
    draft_id=arg.draft_id,
    kind=result.kind,
)
def confirm_draft(session: Session, draft_id: str) -> Draft:
    """Confirm a draft. Raises `DraftStateError` if it has a verdict."""
    draft = pending_draft(session, draft_id)
    draft.status = DraftStatus.CONFIRMED
    return draft


@emits(
    "draft_rejected",
    mode="scheduled",
    transaction=arg.session,
    artifact_id=result.artifact_id,
    draft_id=arg.draft_id,
    kind=result.kind,
    reason=arg.reason,
)
def reject_draft(session: Session, draft_id: str, reason: RejectionReason) -> Draft:
    """Reject a draft. Raises `DraftStateError` if it has a verdict."""
    draft = pending_draft(session, draft_id)
    draft.status = DraftStatus.REJECTED
    draft.rejection_reason = reason
    return draft


def pending_draft(session: Session, draft_id: str) -> Draft:
    """Return a draft that has no verdict yet, or raise `DraftStateError`."""
    draft = session.get(Draft, draft_id)
    if draft is None:
        raise DraftStateError(f"there is no draft {draft_id}")
    if draft.status is not DraftStatus.PENDING:
        raise DraftStateError(f"draft {draft_id} is {draft.status} already")
    return draft
