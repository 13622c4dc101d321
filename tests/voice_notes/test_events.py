"""The events of a note are as the catalogue declares them."""

import pytest

from voice_notes.artifacts import update_artifact_status
from voice_notes.audio import Recording
from voice_notes.directory import OrganizationCandidate
from voice_notes.errors import BrokenRecordingError, UnknownArtifactError
from voice_notes.models import ArtifactStatus
from voice_notes.pipeline import Pipeline

pytestmark = [pytest.mark.sidelight(strict=True), pytest.mark.usefixtures("heard_once")]

THE_WAY_OF_A_NOTE = [
    "artifact_received",
    "artifact_status_changed",
    "transcription_started",
    "transcription_completed",
    "claims_extraction_started",
    "claims_extracted",
    "entity_resolution_started",
    "entity_resolution_needs_disambiguation",
    "draft_generation_started",
    "drafts_generated",
    "artifact_completed",
]


async def test_the_shipped_recording(sidelight_events, sessions, directory, shipped):
    candidates = directory.candidates()
    pipeline = Pipeline(sessions, directory.people_of(candidates))
    artifact = await pipeline.process(shipped, candidates)

    sidelight_events.in_order(*THE_WAY_OF_A_NOTE)
    received = sidelight_events.one("artifact_received")
    assert received.organization_id == "northwind"
    assert received.attributes["seconds"] == pytest.approx(17.9, abs=0.1)
    assert {event.artifact_id for event in sidelight_events} == {artifact.id}
    assert sidelight_events.one("claims_extracted").attributes == {"claims": 4, "people": 3}
    assert len(sidelight_events.of("draft_confirmed")) == 3
    rejected = sidelight_events.one("draft_rejected").attributes
    assert rejected["reason"] == "ambiguous_person"
    sidelight_events.none("transcription_failed")


async def test_a_note_that_cannot_be_read(sidelight_events, sessions):
    with pytest.raises(BrokenRecordingError):
        await Pipeline(sessions, people=()).process(
            Recording("note.wav", b"RIFF"), [OrganizationCandidate("northwind")]
        )
    sidelight_events.in_order("artifact_received", "transcription_failed", "artifact_failed")
    assert sidelight_events.one("transcription_failed").error_type.endswith("BrokenRecordingError")


def test_a_failed_update_emits_nothing(sidelight_events, sessions):
    with sessions.begin() as session, pytest.raises(UnknownArtifactError):
        update_artifact_status(session, "x", ArtifactStatus.COMPLETED)
    assert sidelight_events.types == []
