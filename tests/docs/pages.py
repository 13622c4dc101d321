"""What the pages of the documentation consist of: blocks of code, headings, links.

A block is marked by an HTML comment directly before its fence:

- ``<!-- skip: why -->``  it cannot run here;
- ``<!-- file: app.py -->``  it is the content of a file in the page's directory;
- ``<!-- output -->``  it is what the code before it prints.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUNS = {"python", "console"}

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\s*$")
_MARK = re.compile(r"<!-- (?P<name>skip|file|output)(?:: *(?P<value>.+?))? -->\s*$")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`[^`]*`")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


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
        return "\n".join(self._lines(inside=False))

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
        assert opened is None, f"{self.name}: a block that begins on line {opened[2]} has no end"
        return found

    @property
    def links(self) -> list[str]:
        """What the page links to."""
        return _LINK.findall(_CODE.sub("", self.prose))

    @property
    def anchors(self) -> set[str]:
        """The fragments that a link to this page may have."""
        return {_slug(heading) for heading in _HEADING.findall(self.prose)}

    def _lines(self, *, inside: bool) -> list[str]:
        kept, within = [], False
        for line in self.text.splitlines():
            if line.strip().startswith("```"):
                within = not within
            elif within == inside:
                kept.append(line)
        return kept


def _slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", shown).replace(" ", "-")


def every_page() -> list[Page]:
    """README and everything under docs."""
    return [Page(path) for path in PAGES]
