"""The directory: organizations and the people in them.

The directory is a JSON file. A person needs a name; the other fields are optional:

    {"organizations": [{"id": "northwind", "name": "Northwind Trading", "people": [
        {"name": "Daniel Weber", "role": "head of purchasing",
         "email": "daniel.weber@northwind.example", "also_called": ["Dan"]}]}]}
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from voice_notes.errors import DirectoryError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: The default directory.
SHIPPED = Path(__file__).with_name("data") / "people.json"


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Person(_Entry):
    """A person that a note may be about."""

    name: str = Field(pattern=r"\w")
    id: str = ""
    role: str = ""
    email: str = ""
    also_called: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The id, or the name if the directory gives no id."""
        return self.id or self.name


class Organization(_Entry):
    """People who belong together."""

    id: str = Field(min_length=1)
    name: str = ""
    people: tuple[Person, ...] = ()


@dataclass(frozen=True)
class OrganizationCandidate:
    """An organization that a note may belong to."""

    organization_id: str


class Directory(_Entry):
    """All known organizations."""

    organizations: tuple[Organization, ...] = ()

    @classmethod
    def read(cls, path: Path = SHIPPED) -> Self:
        """Read the directory from a JSON file."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise DirectoryError(f"{path} cannot be read: {error.strerror}") from error
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(step) for step in first["loc"])
            raise DirectoryError(
                f"{path} is no directory of people: {f'{place}: ' if place else ''}{first['msg']}"
            ) from error

    def candidates(self) -> list[OrganizationCandidate]:
        """Return the organizations as candidates, in the order of the file."""
        return [OrganizationCandidate(organization.id) for organization in self.organizations]

    def people_of(self, candidates: Sequence[OrganizationCandidate]) -> list[Person]:
        """Return the people of the candidates, or all people if no candidate is known."""
        wanted = {candidate.organization_id for candidate in candidates}
        known = [organization for organization in self.organizations if organization.id in wanted]
        return list(_people(known or self.organizations))


def _people(organizations: Iterable[Organization]) -> Iterable[Person]:
    return (person for organization in organizations for person in organization.people)
