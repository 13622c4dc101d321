"""Claims extraction: find the assertions of a transcript about people."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sidelight import arg, emits
from voice_notes.claim_rules import claims_in

if TYPE_CHECKING:
    from voice_notes.claim_rules import ExtractedClaim


@emits(
    start="claims_extraction_started",
    failure="claims_extraction_failed",
    mode="awaited",
    artifact_id=arg.artifact_id,
)
async def extract_claims(
    artifact_id: str,  # noqa: ARG001 - names the work, as in every action
    text: str,
) -> list[ExtractedClaim]:
    """Find the claims of a transcript by the rules of `claim_rules`."""
    return await asyncio.to_thread(claims_in, text)
