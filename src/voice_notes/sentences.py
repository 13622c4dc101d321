"""Cut a note into sentences and words, and find names among the words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from voice_notes import lexicon

if TYPE_CHECKING:
    from collections.abc import Sequence

_END = re.compile(r"[.!?]+[\"')\]]*(?=\s+[\"'(\[]*[A-ZÀ-Þ0-9]|\s*$)")
_WORD = re.compile(r"[^\W_]+(?:['.-][^\W_]+)*|[,;:]")
_CONTRACTION = re.compile(r"(?i)(.+)('(?:s|ll|ve|re|d))$")


@dataclass(frozen=True)
class Word:
    """A word or a comma, and its position in the sentence."""

    text: str
    start: int

    @property
    def small(self) -> str:
        """The word in lower case."""
        return self.text.lower()

    @property
    def end(self) -> int:
        """The position behind the word."""
        return self.start + len(self.text)

    @property
    def separates(self) -> bool:
        """Whether this is a comma or its like."""
        return self.text in {",", ";", ":"}


def sentences(text: str) -> list[str]:
    """Cut a text after full stops, exclamation marks and question marks."""
    text = " ".join(text.split())
    found, start = [], 0
    for mark in _END.finditer(text):
        last_word = text[start : mark.start()].rpartition(" ")[2]
        abbreviated = last_word.lower() in lexicon.TITLES or (
            len(last_word) == 1 and last_word.isupper() and last_word != "I"
        )
        if abbreviated and mark.end() < len(text):
            continue
        found.append(text[start : mark.end()].strip())
        start = mark.end()
    return [sentence for sentence in [*found, text[start:].strip()] if sentence]


def words(sentence: str) -> list[Word]:
    """Cut a sentence into words and commas; "she's" and "Emma's" are two words each."""
    found = []
    for match in _WORD.finditer(sentence):
        contraction = _CONTRACTION.match(match[0])
        if contraction and (match[0][0].isupper() or contraction[1].lower() in lexicon.PRONOUNS):
            found.append(Word(contraction[1], match.start()))
            found.append(Word(contraction[2], match.start() + contraction.start(2)))
        else:
            found.append(Word(match[0], match.start()))
    return found


class Names:
    """Finds the names of people in one note, and the full name for a part of one."""

    def __init__(self, text: str) -> None:
        self._full: list[tuple[str, ...]] = []
        spoken = words(text)
        self._in_small_letters = {word.small for word in spoken if word.text.islower()}
        # "in Berlin" is a place, "in Emma's office" is not.
        self._places = {
            spoken[index].text
            for index in range(1, len(spoken))
            if spoken[index - 1].small in lexicon.PLACING
            and [word.small for word in spoken[index + 1 : index + 2]] != ["'s"]
        }

    def at(self, found: Sequence[Word], start: int) -> tuple[str, int]:
        """Return the name that begins at a word, and its end. The name is empty if none begins."""
        index, parts = start, list[str]()
        if index < len(found) and found[index].small in lexicon.TITLES:
            index += 1
        while index < len(found) and len(parts) < 4:
            beyond = _skip_particles(found, index) if parts else index
            if not self._may_be_part(found, beyond):
                break
            parts.append(" ".join(word.text for word in found[index : beyond + 1]))
            index = beyond + 1
        if not parts or (len(parts) == 1 and not self._may_stand_alone(parts[0])):
            return "", start
        return " ".join(parts), index

    def fuller(self, name: str) -> str:
        """Return the earlier full name that has this first or last part, if it is unique."""
        parts = tuple(name.split())
        if len(parts) > 1:
            if parts not in self._full:
                self._full.append(parts)
            return name
        matching = [full for full in self._full if name in {full[0], full[-1]}]
        return " ".join(matching[0]) if len(matching) == 1 else name

    def _may_be_part(self, found: Sequence[Word], index: int) -> bool:
        if index >= len(found):
            return False
        word = found[index]
        return (
            word.text[0].isupper()
            and not any(character.isdigit() for character in word.text)
            and word.small not in lexicon.NOT_NAMES
            and (len(word.text) == 1 or not word.text.isupper())
        )

    def _may_stand_alone(self, part: str) -> bool:
        return (
            len(part) > 1
            and part not in self._places
            and part.lower() not in self._in_small_letters
        )


def _skip_particles(found: Sequence[Word], index: int) -> int:
    while index < len(found) and found[index].small in lexicon.PARTICLES:
        index += 1
    return index
