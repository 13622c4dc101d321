"""Entity resolutions: store the person that each claim is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidelight import arg, choose, emits, result
from voice_notes.models import EntityResolution, Resolutions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.orm import Session

    from voice_notes.matching import Match


@emits(
    choose(
        result.outcome,
        {
            "completed": "entity_resolution_completed",
            "needs_disambiguation": "entity_resolution_needs_disambiguation",
        },
    ),
    mode="scheduled",
    transaction=arg.session,
    artifact_id=arg.artifact_id,
    resolved=result.resolved,
    ambiguous=result.ambiguous,
    unresolved=result.unresolved,
)
def store_resolutions(
    session: Session, artifact_id: str, matches: Mapping[str, Match]
) -> Resolutions:
    """Store the match of each claim. `matches` maps the id of a claim to its match."""
    resolutions = Resolutions(
        EntityResolution(
            artifact_id=artifact_id,
            claim_id=claim_id,
            mention=match.mention,
            status=match.status,
            person_id=match.person.key if match.person else None,
            score=match.best.score if match.best else 0.0,
            candidates=[candidate.person.key for candidate in match.candidates],
        )
        for claim_id, match in matches.items()
    )
    session.add_all(resolutions)
    return resolutions
