"""Matching a name as it was heard with the people whom the directory knows.

Names are heard, not read: "Daniel Webber" is Daniel Weber, and "Emmett" may have been Emma. So
first and last names are compared one by one with rapidfuzz's Jaro-Winkler similarity, which
forgives endings sooner than beginnings, and the score is their mean in percent:

- Who scores `GOOD_ENOUGH` is a candidate; nobody does: *unresolved*.
- A runner-up within `NEAR_TIE` of the best: *needs disambiguation*. A lone first or last name
  says less than a full name, so there `NEAR_TIE_OF_LONE_NAMES` counts, within which "Emma" and
  "Emmett" lie.
- Otherwise the best candidate is the person: *resolved*.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rapidfuzz.distance import JaroWinkler
from rapidfuzz.utils import default_process

from voice_notes.models import ResolutionStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from voice_notes.directory import Person

GOOD_ENOUGH = 82.0
NEAR_TIE = 6.0
NEAR_TIE_OF_LONE_NAMES = 18.0


@dataclass(frozen=True)
class Candidate:
    """A person who may be meant, and how well the name fits."""

    person: Person
    score: float


@dataclass(frozen=True)
class Match:
    """What the directory says to a name; the best candidate comes first."""

    mention: str
    status: ResolutionStatus
    candidates: tuple[Candidate, ...] = ()

    @property
    def best(self) -> Candidate | None:
        """Who fits best, whether or not somebody else fits as well."""
        return self.candidates[0] if self.candidates else None

    @property
    def person(self) -> Person | None:
        """Who is meant, where that is clear."""
        resolved = self.status is ResolutionStatus.RESOLVED
        return self.best.person if self.best and resolved else None


def match(mention: str, people: Iterable[Person]) -> Match:
    """Find whom a name means."""
    scored = (Candidate(person, round(_score(mention, person), 1)) for person in people)
    fitting = sorted(
        (candidate for candidate in scored if candidate.score >= GOOD_ENOUGH),
        key=lambda candidate: (-candidate.score, candidate.person.name),
    )
    if not fitting:
        return Match(mention, ResolutionStatus.UNRESOLVED)
    margin = NEAR_TIE if len(_parts(mention)) > 1 else NEAR_TIE_OF_LONE_NAMES
    near = tuple(item for item in fitting if fitting[0].score - item.score <= margin)
    status = ResolutionStatus.RESOLVED if len(near) == 1 else ResolutionStatus.NEEDS_DISAMBIGUATION
    return Match(mention, status, near)


def _score(mention: str, person: Person) -> float:
    heard = _parts(mention)
    return max(_similarity(heard, _parts(name)) for name in (person.name, *person.also_called))


def _similarity(heard: list[str], name: list[str]) -> float:
    if not heard or not name:
        return 0.0
    if len(heard) == 1:
        return 100 * max(JaroWinkler.similarity(heard[0], part) for part in (name[0], name[-1]))
    if len(name) == 1:
        return 0.0  # a nickname alone does not explain a surname that was heard
    first = JaroWinkler.similarity(heard[0], name[0])
    last = JaroWinkler.similarity(" ".join(heard[1:]), " ".join(name[1:]))
    return 50 * (first + last)


def _parts(name: str) -> list[str]:
    """Split a name into words of small letters without accents."""
    decomposed = unicodedata.normalize("NFKD", name)
    plain = "".join(letter for letter in decomposed if not unicodedata.combining(letter))
    return default_process(plain).split()
