"""Entity resolution: match the names in claims with the people of the directory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sidelight import arg, emits
from voice_notes import counts
from voice_notes.matching import match

if TYPE_CHECKING:
    from collections.abc import Sequence

    from voice_notes.directory import Person
    from voice_notes.matching import Match
    from voice_notes.models import Claim


@emits(
    start="entity_resolution_started",
    mode="awaited",
    artifact_id=arg.artifact_id,
    names=counts.names,
)
async def resolve_entities(
    artifact_id: str,  # noqa: ARG001 - names the work, as in every action
    claims: Sequence[Claim],
    people: Sequence[Person],
) -> dict[str, Match]:
    """Find the person of each claim. The result maps the id of a claim to its match."""
    mentions = {claim.subject for claim in claims}
    found = {mention: await asyncio.to_thread(match, mention, people) for mention in mentions}
    return {claim.id: found[claim.subject] for claim in claims}
