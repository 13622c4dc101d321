"""Claims: store the assertions of a note about people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidelight import arg, emits
from voice_notes import counts
from voice_notes.models import Claim

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.orm import Session

    from voice_notes.claim_rules import ExtractedClaim


@emits(
    "claims_extracted",
    mode="scheduled",
    transaction=arg.session,
    artifact_id=arg.artifact_id,
    claims=counts.claims,
    people=counts.people,
)
def store_claims(
    session: Session, artifact_id: str, extracted: Sequence[ExtractedClaim]
) -> list[Claim]:
    """Store the claims of an artifact, in the order in which they were spoken."""
    claims = [
        Claim(
            artifact_id=artifact_id,
            position=position,
            subject=claim.subject,
            predicate=claim.predicate,
            sentence=claim.sentence,
        )
        for position, claim in enumerate(extracted, start=1)
    ]
    session.add_all(claims)
    return claims
