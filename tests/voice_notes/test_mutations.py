"""The five files that change the business data."""

from types import SimpleNamespace

import pytest
from sqlalchemy import select

from voice_notes.artifacts import create_artifact, update_artifact_status
from voice_notes.audio import Recording
from voice_notes.claim_rules import ExtractedClaim
from voice_notes.claims import store_claims
from voice_notes.database import open_database
from voice_notes.directory import OrganizationCandidate, Person
from voice_notes.drafts import confirm_draft, create_drafts, reject_draft
from voice_notes.entity_resolutions import store_resolutions
from voice_notes.errors import DatabaseError, DraftStateError, UnknownArtifactError
from voice_notes.matching import match
from voice_notes.models import (
    Artifact,
    ArtifactStatus,
    Claim,
    Draft,
    DraftKind,
    DraftStatus,
    EntityResolution,
    RejectionReason,
    Transcript,
)
from voice_notes.transcripts import create_transcript
from voice_notes.writing import WrittenDraft

NOTE = Recording("note.wav", b"no sound, which is fine here")


@pytest.fixture
def artifact(sessions):
    with sessions.begin() as session:
        return create_artifact(session, audio=NOTE, org_context_candidates=[])


@pytest.fixture
def claim(sessions, artifact):
    with sessions.begin() as session:
        said = ExtractedClaim("Emma", "signed", "Emma signed.")
        return store_claims(session, artifact.id, [said])[0]


@pytest.fixture
def draft(sessions, claim):
    written = WrittenDraft(claim.id, DraftKind.CRM_NOTE, "emma@x.example", "Emma", "Emma signed.")
    with sessions.begin() as session:
        return create_drafts(session, claim.artifact_id, [written])[0]


@pytest.mark.parametrize(
    ("candidates", "organization"),
    [
        ([], None),
        ([OrganizationCandidate("first"), OrganizationCandidate("second")], "first"),
        ([SimpleNamespace(organization_id="any object")], "any object"),
    ],
)
def test_create_artifact(sessions, candidates, organization):
    with sessions.begin() as session:
        made = create_artifact(session, audio=NOTE, org_context_candidates=candidates)
        assert made.id
    with sessions() as session:
        (row,) = session.scalars(select(Artifact))
    assert (row.id, row.name, row.seconds) == (made.id, "note.wav", None)
    assert (row.organization_id, row.status) == (organization, ArtifactStatus.RECEIVED)


def test_update_artifact_status(sessions, artifact):
    with sessions.begin() as session:
        update_artifact_status(session, artifact.id, ArtifactStatus.FAILED)
    with sessions() as session:
        assert session.get(Artifact, artifact.id).status is ArtifactStatus.FAILED


def test_update_unknown_artifact(sessions):
    with sessions.begin() as session, pytest.raises(UnknownArtifactError, match="no artifact x"):
        update_artifact_status(session, "x", ArtifactStatus.FAILED)


def test_create_transcript(sessions, artifact):
    with sessions.begin() as session:
        create_transcript(session, artifact.id, "Emma signed the contract.")
    with sessions() as session:
        assert session.scalars(select(Transcript)).one().words == 4


def test_claims_keep_their_order(sessions, artifact):
    said = [ExtractedClaim("Emma", f"said {number}", "...") for number in range(5)]
    with sessions.begin() as session:
        store_claims(session, artifact.id, said)
    with sessions() as session:
        rows = session.scalars(select(Claim).order_by(Claim.position)).all()
    assert [row.predicate for row in rows] == [claim.predicate for claim in said]
    assert rows[0].statement == "Emma said 0"


@pytest.mark.parametrize(
    ("names", "counts", "outcome"),
    [
        (["Emma Hall"], (1, 0, 0), "completed"),
        (["Emma Hall", "Emma King"], (0, 1, 0), "needs_disambiguation"),
        (["Bob King"], (0, 0, 1), "completed"),
    ],
)
def test_store_resolutions(sessions, claim, names, counts, outcome):
    found = match(claim.subject, [Person(name=name) for name in names])
    with sessions.begin() as session:
        stored = store_resolutions(session, claim.artifact_id, {claim.id: found})
    assert (stored.resolved, stored.ambiguous, stored.unresolved) == counts
    assert stored.outcome == outcome
    with sessions() as session:
        row = session.scalars(select(EntityResolution)).one()
    assert row.person_id == (names[0] if counts[0] else None)
    assert len(row.candidates) == (0 if counts[2] else len(names))


def test_nothing_to_store_is_fine(sessions, artifact):
    with sessions.begin() as session:
        assert store_claims(session, artifact.id, []) == []
        assert store_resolutions(session, artifact.id, {}).outcome == "completed"
        assert create_drafts(session, artifact.id, []) == []


def test_confirm(sessions, draft):
    with sessions.begin() as session:
        assert confirm_draft(session, draft.id).status is DraftStatus.CONFIRMED


def test_reject(sessions, draft):
    with sessions.begin() as session:
        reject_draft(session, draft.id, RejectionReason.REVIEWER_DECLINED)
    with sessions() as session:
        row = session.get(Draft, draft.id)
    assert (row.status, row.rejection_reason) == (
        DraftStatus.REJECTED,
        RejectionReason.REVIEWER_DECLINED,
    )


def test_a_verdict_is_final(sessions, draft):
    with sessions.begin() as session:
        confirm_draft(session, draft.id)
    with sessions.begin() as session, pytest.raises(DraftStateError, match="is confirmed already"):
        reject_draft(session, draft.id, RejectionReason.REVIEWER_DECLINED)


def test_unknown_draft(sessions):
    with sessions.begin() as session, pytest.raises(DraftStateError, match="no draft x"):
        confirm_draft(session, "x")


def test_no_database(tmp_path):
    (tmp_path / "note.txt").write_text("this is no database, and long enough to tell" * 10)
    with (
        pytest.raises(DatabaseError, match="file is not a database"),
        open_database(tmp_path / "note.txt"),
    ):
        pass
