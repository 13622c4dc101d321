"""Parse the pages of the documentation: blocks of code, headings, links, tables, sentences.

An HTML comment directly before a fence marks the block:

- ``<!-- skip: reason -->``  the block cannot run in a test;
- ``<!-- file: app.py -->``  the block is the content of a file in the page's directory;
- ``<!-- output -->``  the block is what the code before it prints.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUNS = {"python", "console"}

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\s*$")
_MARK = re.compile(r"<!-- (?P<name>skip|file|output)(?:: *(?P<value>.+?))? -->\s*$")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`[^`]*`")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_SENTENCE = re.compile(r"(?<=[.!?:])\s+|\n\s*\n|\n(?=[-|#] ?)")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its mark, and the line on which its text begins."""

    language: str
    text: str
    line: int
    mark: str = ""
    value: str = ""


@dataclass(frozen=True)
class Page:
    """One file of the documentation."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT))

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def prose(self) -> str:
        """The text without its blocks."""
        kept, within = [], False
        for line in self.text.splitlines():
            if line.strip().startswith("```"):
                within = not within
            elif not within:
                kept.append(line)
        return "\n".join(kept)

    @property
    def sentences(self) -> list[str]:
        """The prose, cut at the ends of sentences, list items and table rows."""
        return [part.strip() for part in _SENTENCE.split(self.prose) if part.strip()]

    @property
    def blocks(self) -> list[Block]:
        """The fenced blocks, in their order."""
        found, before, opened = [], "", None
        lines: list[str] = []
        for number, line in enumerate(self.text.splitlines(), start=1):
            fence = _FENCE.match(line)
            if opened is None and fence:
                mark = _MARK.search(before)
                opened = (fence["language"], len(fence["indent"]), number + 1, mark)
                lines = []
            elif opened is not None and line.strip() == "```":
                language, _, start, mark = opened
                name, value = (mark["name"], mark["value"] or "") if mark else ("", "")
                found.append(Block(language, "\n".join(lines) + "\n", start, name, value))
                opened, before = None, ""
            elif opened is not None:
                lines.append(line[opened[1] :])
            elif line.strip():
                before = line
        assert opened is None, f"{self.name}: the block that begins on line {opened[2]} has no end"
        return found

    @property
    def links(self) -> list[str]:
        """The targets of the page's links."""
        return _LINK.findall(_CODE.sub("", self.prose))

    @property
    def anchors(self) -> set[str]:
        """The fragments that a link to this page may have."""
        return {_slug(heading) for heading in _HEADING.findall(self.prose)}

    def sections(self, heading: str) -> dict[str, str]:
        """The text between each heading that fits and the next one, by the pattern's one group."""
        parts = re.split(_HEADING, self.text)
        found = zip(parts[1::2], parts[2::2], strict=True)
        return {fit[1]: text for title, text in found if (fit := re.match(heading, title))}


def rows(text: str) -> list[list[str]]:
    """The cells of each row of the tables in a text, without heads and rules."""
    found = []
    lines = text.splitlines()
    for number, line in enumerate(lines):
        following = lines[number + 1] if number + 1 < len(lines) else ""
        if line.startswith("|") and not _is_rule(line) and not _is_rule(following):
            found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def names(text: str, column: int = 0) -> set[str]:
    """What stands in backticks in one column of the tables in a text."""
    cells = [row[column] for row in rows(text)]
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def _is_rule(line: str) -> bool:
    return re.fullmatch(r"\|[-:| ]+\|", line) is not None


def _slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", shown).replace(" ", "-")


def every_page() -> list[Page]:
    """README, CHANGELOG and everything under docs."""
    return [Page(path) for path in PAGES]


def page(name: str) -> Page:
    """One page, by its path below docs."""
    return Page(ROOT / "docs" / name)
