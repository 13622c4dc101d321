import pytest

from voice_notes.directory import Person
from voice_notes.matching import match
from voice_notes.models import Claim, DraftKind
from voice_notes.writing import write

EMMA = Person(name="Emma Hall", role="logistics", email="emma@x.example")


def claim(predicate: str) -> Claim:
    return Claim(
        artifact_id="a1",
        position=1,
        subject="Emma",
        predicate=predicate,
        sentence=f"She {predicate}, & that's <it>.",
    )


@pytest.mark.parametrize(
    ("predicate", "kind"),
    [
        ("wants a car", DraftKind.FOLLOW_UP_MAIL),
        ("still needs the offer", DraftKind.FOLLOW_UP_MAIL),
        ("urgently asked for it", DraftKind.FOLLOW_UP_MAIL),
        ("would like a car", DraftKind.FOLLOW_UP_MAIL),
        ("is waiting for the offer", DraftKind.FOLLOW_UP_MAIL),
        ("signed the contract", DraftKind.CRM_NOTE),
        ("is happy", DraftKind.CRM_NOTE),
        ("wantonly left", DraftKind.CRM_NOTE),
    ],
)
def test_requests_are_answered_and_the_rest_is_noted(predicate, kind):
    draft = write(claim(predicate), match("Emma", [EMMA]))
    assert (draft.kind, draft.recipient) == (kind, "emma@x.example")


def test_crm_note():
    draft = write(claim("signed"), match("Emma", [EMMA]))
    assert draft.subject == "Emma Hall: signed"
    assert draft.body.splitlines()[0] == "Emma Hall (logistics) signed."
    assert "She signed, & that's <it>." in draft.body
    assert "somebody else" not in draft.body


def test_follow_up_mail():
    draft = write(claim("wants a car"), match("Emma", [EMMA]))
    assert draft.subject == "Your request, Emma"
    assert draft.body.startswith("Dear Emma Hall,\n")
    assert "Emma Hall wants a car" in draft.body


def test_an_ambiguous_draft_says_who_else_was_meant():
    both = match("Emma", [EMMA, Person(name="Emma King")])
    for predicate in ("signed", "wants a car"):
        assert "Emma King" in write(claim(predicate), both).body


def test_a_person_without_role_and_mail():
    draft = write(claim("signed"), match("Emma", [Person(name="Emma King")]))
    assert draft.recipient == "Emma King"
    assert draft.body.startswith("Emma King signed.")


def test_nobody_to_write_to():
    with pytest.raises(ValueError, match="nobody is known as Emma"):
        write(claim("signed"), match("Emma", []))
