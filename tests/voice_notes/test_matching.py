import pytest

from voice_notes.directory import Person
from voice_notes.matching import match
from voice_notes.models import ResolutionStatus

RESOLVED = ResolutionStatus.RESOLVED
TIE = ResolutionStatus.NEEDS_DISAMBIGUATION
NOBODY = ResolutionStatus.UNRESOLVED


def people(*names: str) -> list[Person]:
    return [Person(name=name) for name in names]


PEOPLE = people("Daniel Weber", "Emma Lindqvist", "Emmett Hall", "Maria Santos", "Zoë Müller")


@pytest.mark.parametrize(
    ("mention", "status", "best"),
    [
        ("Daniel Weber", RESOLVED, "Daniel Weber"),
        ("daniel weber", RESOLVED, "Daniel Weber"),
        ("Daniel Webber", RESOLVED, "Daniel Weber"),
        ("Weber", RESOLVED, "Daniel Weber"),
        ("Maria", RESOLVED, "Maria Santos"),
        ("Maria Santois", RESOLVED, "Maria Santos"),
        ("Zoe Muller", RESOLVED, "Zoë Müller"),
        ("Emma Lindquist", RESOLVED, "Emma Lindqvist"),
        ("Emmett Lindqvist", RESOLVED, "Emma Lindqvist"),
        ("Emma", TIE, "Emma Lindqvist"),
        ("Emmett", TIE, "Emmett Hall"),
        ("Daniel Santos", NOBODY, None),
        ("Northwind", NOBODY, None),
        ("Bob", NOBODY, None),
        ("", NOBODY, None),
    ],
)
def test_match(mention, status, best):
    found = match(mention, PEOPLE)
    assert found.status is status
    assert (found.best.person.name if found.best else None) == best
    assert (found.person is not None) is (status is RESOLVED)


def test_a_near_tie_of_full_names():
    found = match("Daniel Webber", people("Daniel Weber", "Daniela Weber", "Maria Weber"))
    assert found.status is TIE
    assert [candidate.person.name for candidate in found.candidates] == [
        "Daniel Weber",
        "Daniela Weber",
    ]


def test_two_of_the_same_name_are_a_tie():
    assert match("Emma Hall", people("Emma Hall", "Emma Hall")).status is TIE


def test_other_names():
    bob = Person(name="Robert King", also_called=("Bob King", "Bob"))
    for mention in ("Bob", "Bob King", "Robert King", "Robert"):
        assert match(mention, [*PEOPLE, bob]).person == bob


def test_nobody_is_known():
    assert match("Emma", []).status is NOBODY
