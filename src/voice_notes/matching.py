"""Match a name from speech with the people of the directory.

The recognizer mishears names: "Daniel Webber" is Daniel Weber, and "Emmett" may be Emma. So
first and last names are compared one by one with rapidfuzz's Jaro-Winkler similarity, which
weighs beginnings more than endings. The score is their mean in percent:

- A person with a score of `GOOD_ENOUGH` is a candidate. Without a candidate: *unresolved*.
- A runner-up within `NEAR_TIE` of the best: *needs disambiguation*. A single name says less
  than a full name, so its margin is `NEAR_TIE_OF_LONE_NAMES`. "Emma" and "Emmett" lie
  within that.
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
    """A person that a name may mean, and the score of the name in percent."""

    person: Person
    score: float


@dataclass(frozen=True)
class Match:
    """The result for one name. The best candidate comes first."""

    mention: str
    status: ResolutionStatus
    candidates: tuple[Candidate, ...] = ()

    @property
    def best(self) -> Candidate | None:
        """The candidate with the best score, or None."""
        return self.candidates[0] if self.candidates else None

    @property
    def person(self) -> Person | None:
        """The person, if the match is resolved."""
        resolved = self.status is ResolutionStatus.RESOLVED
        return self.best.person if self.best and resolved else None


def match(mention: str, people: Iterable[Person]) -> Match:
    """Find the person that a name means."""
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
        return 0.0  # a nickname does not match a full name
    first = JaroWinkler.similarity(heard[0], name[0])
    last = JaroWinkler.similarity(" ".join(heard[1:]), " ".join(name[1:]))
    return 50 * (first + last)


def _parts(name: str) -> list[str]:
    """Split a name into lower-case words without accents."""
    decomposed = unicodedata.normalize("NFKD", name)
    plain = "".join(letter for letter in decomposed if not unicodedata.combining(letter))
    return default_process(plain).split()
