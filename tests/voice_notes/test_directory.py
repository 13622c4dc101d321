import pytest

from voice_notes.directory import Directory, OrganizationCandidate
from voice_notes.errors import DirectoryError


def test_the_shipped_directory(directory):
    assert [candidate.organization_id for candidate in directory.candidates()] == [
        "northwind",
        "harbour-light",
        "alder-finch",
    ]
    people = directory.people_of(directory.candidates())
    assert len(people) == len({person.key for person in people}) == 9


def test_candidates_narrow_down_the_people(directory):
    names = [person.name for person in directory.people_of([OrganizationCandidate("northwind")])]
    assert names == ["Daniel Weber", "Emma Lindqvist", "Maria Santos"]


@pytest.mark.parametrize("candidates", [[], [OrganizationCandidate("unheard-of")]])
def test_unknown_candidates_narrow_down_nothing(directory, candidates):
    assert len(directory.people_of(candidates)) == 9


def test_only_names_are_needed(tmp_path):
    path = tmp_path / "people.json"
    path.write_text('{"organizations": [{"id": "x", "people": [{"name": "Emma Hall"}]}]}')
    (person,) = Directory.read(path).people_of([])
    assert person.key == "Emma Hall"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no directory of people"),
        ("[]", "no directory of people"),
        ('{"people": []}', "people: Extra inputs"),
        ('{"organizations": [{"id": "x", "people": [{}]}]}', r"organizations\.0\.people\.0\.name"),
        ('{"organizations": [{"id": "x", "people": [{"name": ""}]}]}', "name"),
    ],
)
def test_no_directory(tmp_path, content, message):
    path = tmp_path / "people.json"
    path.write_text(content)
    with pytest.raises(DirectoryError, match=message):
        Directory.read(path)


def test_missing_directory(tmp_path):
    with pytest.raises(DirectoryError, match="No such file"):
        Directory.read(tmp_path / "people.json")
