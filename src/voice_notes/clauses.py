"""Clauses: find the subject and the verb in a sentence, by the rules of `claim_rules`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from voice_notes import lexicon

if TYPE_CHECKING:
    from collections.abc import Sequence

    from voice_notes.sentences import Names, Word


@dataclass(frozen=True)
class Clause:
    """A subject with its verb. `begin`, `verb` and `end` are indexes of words."""

    names: tuple[str, ...]
    pronoun: str
    begin: int
    verb: int
    end: int
    asserts: bool


class _Subject(NamedTuple):
    names: tuple[str, ...]
    pronoun: str
    end: int

    @property
    def plural(self) -> bool:
        return self.pronoun == "they" or len(self.names) > 1


def asserting_part(sentence: str, spoken: Sequence[Word]) -> Sequence[Word]:
    """Drop questions, conditions, hopes and wishes, because they assert nothing."""
    opening = " ".join(word.small for word in spoken[_skip_openings(spoken, 0) :]) + " "
    if opening.startswith(tuple(f"{unreal} " for unreal in lexicon.UNREAL_OPENINGS)):
        return []
    if "?" not in sentence[-3:]:
        return spoken
    for index in range(len(spoken) - 1, 0, -1):
        if spoken[index - 1].separates and _is_question(spoken, _skip_openings(spoken, index)):
            return spoken[: index - 1]
    return []


def find_clauses(spoken: Sequence[Word], names: Names) -> list[Clause]:
    """Find the clauses of a sentence that have a person as their subject."""
    clauses: list[Clause] = []
    asks = _is_question(spoken, _skip_openings(spoken, 0))
    index = 0
    while index < len(spoken):
        word = spoken[index]
        if index == 0 or word.separates or (word.small in lexicon.CONJUNCTIONS and not asks):
            start = _skip_openings(spoken, index)
            found = _subject_and_verb(spoken, start, names)
            if clauses and clauses[-1].end > index and (found or _breaks_off(spoken, index)):
                clauses[-1] = replace(clauses[-1], end=index)
            if found:
                subject, verb, asserts = found
                clauses.append(
                    Clause(subject.names, subject.pronoun, index, verb, len(spoken), asserts)
                )
                # Skip the commas and each "and" inside the subject and its apposition.
                index = verb
            asks = asks and not word.separates
        index += 1
    return clauses


def predicate(sentence: str, spoken: Sequence[Word], clause: Clause) -> str:
    """Return the predicate of a clause, in the words of the sentence."""
    first, last = spoken[clause.verb], spoken[clause.end - 1]
    text = sentence[first.start : last.end]
    if not first.text.startswith("'"):
        return text
    following = spoken[clause.verb + 1].small if clause.verb + 1 < clause.end else ""
    done = following == "been" or following in lexicon.IRREGULAR_PAST or _is_past(following)
    written_out = {
        "'s": "has" if done else "is",
        "'ll": "will",
        "'ve": "have",
        "'re": "are",
        "'d": "would",
    }
    return written_out[first.small] + text[len(first.text) :]


def _breaks_off(spoken: Sequence[Word], comma: int) -> bool:
    """Return whether a comma ends a clause and begins none about a person."""
    following = [word.small for word in spoken[comma : comma + 3]]
    if not spoken[comma].separates or len(following) < 2:
        return False
    opening = following[-1] if following[1] in lexicon.CONJUNCTIONS else following[1]
    return opening in lexicon.BREAKING_OPENINGS


def _is_question(spoken: Sequence[Word], index: int) -> bool:
    return index < len(spoken) and spoken[index].small in lexicon.QUESTION_OPENINGS


def _skip_openings(spoken: Sequence[Word], start: int) -> int:
    """Return the index behind adverbs, times and phrases such as "I think that"."""
    index = start
    while index < len(spoken):
        rest = [word.small for word in spoken[index : index + 6]]
        if spoken[index].separates or rest[0] in lexicon.OPENING_ADVERBS | lexicon.CONJUNCTIONS:
            index += 1
        else:
            passed = _length_of_frame(rest) or _length_of_time(rest)
            if not passed:
                break
            index += passed
    return index


def _length_of_frame(rest: list[str]) -> int:
    spoken = " ".join(rest) + " "
    return max(
        (len(frame.split()) for frame in lexicon.FRAMES if spoken.startswith(f"{frame} ")),
        default=0,
    )


def _length_of_time(rest: list[str]) -> int:
    """Return the number of words in "in March", "on Monday morning" or "last week"."""
    if rest[0] in lexicon.TIME_PREPOSITIONS:
        begin = 2 if rest[1:2] in (["the"], ["this"]) else 1
    elif rest[0] in lexicon.TIME_SELECTORS:
        begin = 1
    else:
        return 0
    end = begin
    while end < len(rest) and (rest[end] in lexicon.TIMES or rest[end].isdigit()):
        end += 1
    return end if end > begin else 0


def _subject_and_verb(
    spoken: Sequence[Word], start: int, names: Names
) -> tuple[_Subject, int, bool] | None:
    subject = _subject(spoken, start, names)
    if subject is None:
        return None
    for verb_at in (subject.end, _after_apposition(spoken, subject.end)):
        force = _force(spoken, verb_at, subject)
        if force is not None:
            return subject, verb_at, force
    return None


def _subject(spoken: Sequence[Word], start: int, names: Names) -> _Subject | None:
    if start < len(spoken) and spoken[start].small in lexicon.PRONOUNS:
        return _Subject((), spoken[start].small, start + 1)
    first, end = names.at(spoken, start)
    if not first:
        return None
    together, index, joined = [first], end, False
    # "Emma and Daniel", "Emma, Daniel and Maria": without an "and" a comma ends the clause.
    while index < len(spoken) and not joined:
        following = index + 1
        if spoken[index].separates and following < len(spoken) and spoken[following].small == "and":
            following += 1
        joined = spoken[following - 1].small == "and"
        if not joined and not spoken[index].separates:
            break
        name, index = names.at(spoken, following)
        if not name:
            break
        together.append(name)
        if joined:
            return _Subject(tuple(together), "", index)
    return _Subject((first,), "", end)


def _after_apposition(spoken: Sequence[Word], start: int) -> int:
    """Return the index behind ", who runs the warehouse,", or `start` if there is none."""
    put_in = spoken[start : start + 2]
    if len(put_in) < 2 or not put_in[0].separates or put_in[1].small not in lexicon.APPOSITIONS:
        return start
    commas = (index for index in range(start + 2, len(spoken)) if spoken[index].separates)
    return next(commas, start - 1) + 1


def _force(spoken: Sequence[Word], start: int, subject: _Subject) -> bool | None:
    """Return whether the verb at an index asserts. None if there is no verb."""
    index = start
    while index + 1 < len(spoken) and _is_adverb(spoken[index].small):
        index += 1
    if index >= len(spoken) or not (spoken[index].text.islower() or spoken[index].text[0] == "'"):
        return None
    verb = spoken[index].small
    following = spoken[index + 1].small if index + 1 < len(spoken) else ""
    if verb.startswith("'"):
        return _force_of_contraction(verb, following, subject)
    if verb in lexicon.SUPPOSING:
        return verb == "would" and following in lexicon.WISHING_VERBS
    if verb in lexicon.STATING:
        # "Shares are up": a single word with a plural verb is not the name of a person.
        one_thing = not subject.plural and bool(subject.names)
        return None if one_thing and verb in lexicon.PLURAL_STATING else True
    present = (
        verb in lexicon.PLURAL_VERBS
        if subject.plural
        else verb.endswith("s")
        and not verb.endswith(("ss", "us"))
        and verb not in lexicon.NOT_VERBS_IN_S
    )
    return True if present or verb in lexicon.IRREGULAR_PAST or _is_past(verb) else None


def _force_of_contraction(verb: str, following: str, subject: _Subject) -> bool | None:
    if verb == "'d":
        return following in lexicon.WISHING_VERBS
    if verb == "'s" and subject.names:
        # "Emma's moving" asserts, "Emma's contract" names a thing.
        return True if following.endswith("ing") or following in lexicon.AFTER_IS else None
    return True


def _is_adverb(word: str) -> bool:
    return word in lexicon.INNER_ADVERBS or (
        word.endswith("ly") and word not in lexicon.PLURAL_VERBS
    )


def _is_past(word: str) -> bool:
    return len(word) > 3 and word.endswith("ed") and word not in lexicon.NOT_PAST
