"""Rules that find the claims of a note: the sentences that assert something about a person.

A claim has a *subject*, the person, and a *predicate*, the assertion. The rules, in the order
in which they are applied:

1. **Sentences** end with ``.``, ``!`` or ``?``, not with a title (``Dr.``) or an initial.
2. **Questions** assert nothing: sentences that end with ``?``, and clauses that begin with an
   auxiliary or a question word. In "He wants an offer, can we still change it?" the part before
   the question counts.
3. **Conditions, hopes and wishes** assert nothing: sentences that begin with *if*, *unless*,
   *whether*, *maybe*, *hopefully*, *I hope*, *I wish*, *I want*, *let us* and their like.
4. **Openings** are skipped: *then*, *yesterday*, *last week*, *in March*, *I think that*,
   *I heard that*. What the speaker believes or heard counts as asserted.
5. A **subject** is a name or a pronoun at the start of a clause. A clause starts with the
   sentence, after a comma or semicolon, or after *and*, *but*, *so*, *while*, *whereas*, if a
   subject with its verb follows: recognizers often put commas for full stops.
   - A name is one to four capitalized words, a title before and small words such as *van*
     inside included. It is no name if it is written in capitals throughout, if it is a day, a
     month or another word of `lexicon.NOT_NAMES`, if the same note has it in small letters too,
     or if the note has been *in* it or *at* it: then it is a place.
   - *Emma and Daniel signed* is one claim about each.
   - *He*, *she*, *they* stand for the person named last: the subject of the last clause, else
     whoever was first named in it ("I met Emma. She ..."). Somebody for whom the note has used
     the other pronoun is passed over. *They* after a pair stands for both. Where nobody was
     named before, there is no claim.
   - A first or last name alone stands for the fuller name that the note has used before.
6. An **assertive verb** follows the subject, adverbs and an apposition between commas aside: a
   form of *be*, *have*, *do*; *will* or *can*; a past form; a present form in *-s*. *Should*,
   *must*, *may*, *might*, *could* and *would* assert nothing, except *would like*.
7. Everything else is no claim: greetings, thanks and imperatives have no subject with a verb.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from voice_notes import lexicon
from voice_notes.clauses import Clause, asserting_part, find_clauses, predicate
from voice_notes.errors import WordlessTranscriptError
from voice_notes.sentences import Names, Word, sentences, words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True)
class ExtractedClaim:
    """One assertion about one person."""

    subject: str
    predicate: str
    sentence: str


def claims_in(text: str) -> list[ExtractedClaim]:
    """Return the claims of a note, in the order of its sentences."""
    if not any(character.isalpha() for character in text):
        raise WordlessTranscriptError("the transcript holds no words")
    text = text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    reader = _Reader(Names(text))
    return [claim for sentence in sentences(text) for claim in reader.read(sentence)]


class _Reader:
    """Reads one note from start to end, and remembers the people that it named."""

    def __init__(self, names: Names) -> None:
        self._names = names
        #: The people that were named, the latest first. Subjects of one clause stay together.
        self._recent: list[tuple[str, ...]] = []
        #: The pronoun that the note used for each person.
        self._pronouns: dict[str, str] = {}

    def read(self, sentence: str) -> Iterator[ExtractedClaim]:
        """Yield the claims of the next sentence."""
        spoken = words(sentence)
        asserting = asserting_part(sentence, spoken)
        clauses = find_clauses(asserting, self._names)
        read_to = 0
        for clause in clauses:
            self._remember(self._mentions(spoken[read_to : clause.begin]))
            subject = self._who(clause)
            if clause.asserts:
                stated = predicate(sentence, asserting, clause)
                for person in subject:
                    yield ExtractedClaim(person, stated, sentence)
            others = self._mentions(spoken[clause.verb : clause.end])
            self._remember([subject, *others] if subject else others)
            read_to = clause.end
        self._remember(self._mentions(spoken[read_to:]))

    def _who(self, clause: Clause) -> tuple[str, ...]:
        if not clause.pronoun:
            return tuple(self._names.fuller(name) for name in clause.names)
        for people in self._recent:
            if clause.pronoun == "they":
                return people
            if (
                len(people) == 1
                and self._pronouns.setdefault(people[0], clause.pronoun) == clause.pronoun
            ):
                return people
        return ()

    def _mentions(self, spoken: Sequence[Word]) -> list[tuple[str, ...]]:
        """Find the people named in words that are not the subject of an assertion."""
        found: list[tuple[str, ...]] = []
        index = 0
        while index < len(spoken):
            name, end = self._names.at(spoken, index)
            if name and not _is_destination(spoken, index):
                found.append((self._names.fuller(name),))
            index = max(end, index + 1)
        return found

    def _remember(self, people: Sequence[tuple[str, ...]]) -> None:
        older = [person for person in self._recent if person not in people]
        self._recent = [*people, *older]


def _is_destination(spoken: Sequence[Word], index: int) -> bool:
    """Return True for "drove to Lyon", and False for "spoke to Emma"."""
    if index == 0 or spoken[index - 1].small != "to":
        return False
    return index == 1 or spoken[index - 2].small not in lexicon.SPEAKING
