"""Draft generation: write a text for each claim about a known person."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sidelight import arg, emits
from voice_notes.writing import write

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from voice_notes.matching import Match
    from voice_notes.models import Claim
    from voice_notes.writing import WrittenDraft


@emits(
    start="draft_generation_started",
    mode="awaited",
    artifact_id=arg.artifact_id,
)
async def generate_drafts(
    artifact_id: str,  # noqa: ARG001 - names the work, as in every action
    claims: Sequence[Claim],
    matches: Mapping[str, Match],
) -> list[WrittenDraft]:
    """Write a draft for each claim that has a candidate in the directory."""
    return [
        await asyncio.to_thread(write, claim, matches[claim.id])
        for claim in claims
        if matches[claim.id].candidates
    ]
