"""Transcripts: store the text of a note."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidelight import arg, emits, result
from voice_notes.models import Transcript

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


@emits(
    "transcription_completed",
    mode="scheduled",
    transaction=arg.session,
    artifact_id=arg.artifact_id,
    words=result.words,
)
def create_transcript(session: Session, artifact_id: str, text: str) -> Transcript:
    """Store the transcript of an artifact."""
    transcript = Transcript(artifact_id=artifact_id, text=text, words=len(text.split()))
    session.add(transcript)
    return transcript
