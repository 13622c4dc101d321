"""The whole pipeline, with the recognizer."""

import asyncio

import numpy as np
import pytest
from sqlalchemy import select
from tests.voice_notes.wavs import wav

from voice_notes.actions.claims_extraction import extract_claims
from voice_notes.audio import Recording
from voice_notes.directory import OrganizationCandidate
from voice_notes.errors import (
    BrokenRecordingError,
    SilentRecordingError,
    VoiceNoteError,
    WordlessTranscriptError,
)
from voice_notes.models import (
    Artifact,
    ArtifactStatus,
    Claim,
    Draft,
    DraftStatus,
    EntityResolution,
    RejectionReason,
    ResolutionStatus,
    Transcript,
)
from voice_notes.pipeline import Listener, Pipeline

pytestmark = pytest.mark.usefixtures("heard_once")


class Recorder(Listener):
    def __init__(self):
        self.steps = []

    def __getattribute__(self, name):
        if name.startswith("_") or name == "steps":
            return super().__getattribute__(name)
        return lambda *_: self.steps.append(name)


async def test_the_shipped_recording(sessions, directory, shipped):
    listener = Recorder()
    candidates = directory.candidates()
    pipeline = Pipeline(sessions, directory.people_of(candidates), listener=listener)
    artifact = await pipeline.process(shipped, candidates)

    assert artifact.status is ArtifactStatus.COMPLETED
    assert artifact.organization_id == "northwind"
    assert artifact.seconds == pytest.approx(17.9, abs=0.1)
    with sessions() as session:
        assert session.scalars(select(Transcript)).one().words > 35
        claims = session.scalars(select(Claim).order_by(Claim.position)).all()
        resolutions = session.scalars(select(EntityResolution)).all()
        drafts = session.scalars(select(Draft)).all()
    about = {claim.id: claim.subject.split()[0] for claim in claims}
    assert list(about.values()) == ["Daniel", "Daniel", "Emma", "Maria"]
    assert {about[resolution.claim_id]: resolution.status for resolution in resolutions} == {
        "Daniel": ResolutionStatus.RESOLVED,
        "Emma": ResolutionStatus.NEEDS_DISAMBIGUATION,
        "Maria": ResolutionStatus.RESOLVED,
    }
    assert {about[draft.claim_id]: draft.status for draft in drafts} == {
        "Daniel": DraftStatus.CONFIRMED,
        "Emma": DraftStatus.REJECTED,
        "Maria": DraftStatus.CONFIRMED,
    }
    assert len(drafts) == 4
    assert listener.steps == [
        "received",
        "hearing",
        "hearing",
        "transcribed",
        "claimed",
        "resolved",
        "drafted",
        *["decided"] * 4,
    ]


async def test_the_organization_decides_who_is_meant(sessions, directory, shipped):
    """Northwind has only one Emma. The reviewer rejects every draft."""
    candidates = [OrganizationCandidate("northwind")]
    pipeline = Pipeline(
        sessions,
        directory.people_of(candidates),
        reviewer=lambda draft, resolution: RejectionReason.REVIEWER_DECLINED,
    )
    await pipeline.process(shipped, candidates)
    with sessions() as session:
        resolutions = session.scalars(select(EntityResolution)).all()
        drafts = session.scalars(select(Draft)).all()
    assert {resolution.status for resolution in resolutions} == {ResolutionStatus.RESOLVED}
    assert {draft.rejection_reason for draft in drafts} == {RejectionReason.REVIEWER_DECLINED}


async def test_a_note_without_candidates_and_without_people(sessions, shipped):
    artifact = await Pipeline(sessions, people=()).process(shipped)
    assert (artifact.organization_id, artifact.status) == (None, ArtifactStatus.COMPLETED)
    with sessions() as session:
        assert len(session.scalars(select(EntityResolution)).all()) == 4
        assert session.scalars(select(Draft)).all() == []


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"RIFF", BrokenRecordingError),
        (wav(np.zeros(16_000, np.float32)), SilentRecordingError),
    ],
    ids=["broken", "silent"],
)
async def test_failures(sessions, content, error):
    with pytest.raises(error):
        await Pipeline(sessions, people=()).process(Recording("note.wav", content))
    with sessions() as session:
        assert session.scalars(select(Artifact)).one().status is ArtifactStatus.FAILED
        assert session.scalars(select(Transcript)).all() == []


@pytest.mark.parametrize("error", [VoiceNoteError("no verdict"), asyncio.CancelledError()])
async def test_a_note_that_is_broken_off_has_failed(sessions, directory, shipped, error):
    def break_off(*_):
        raise error

    pipeline = Pipeline(sessions, directory.people_of([]), reviewer=break_off)
    with pytest.raises(type(error)):
        await pipeline.process(shipped)
    with sessions() as session:
        assert session.scalars(select(Artifact)).one().status is ArtifactStatus.FAILED


async def test_a_transcript_without_words():
    with pytest.raises(WordlessTranscriptError):
        await extract_claims("a1", "...")
