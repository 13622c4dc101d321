"""Print columns as a table that fits the terminal without breaking names or cutting numbers."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Final, Literal, TypeAlias

from rich.cells import cell_len
from rich.text import Text

from sidelight.cli.output import console, remark
from sidelight.cli.palette import GREY

Columns: TypeAlias = Mapping[str, Sequence[Text]]
"""The cells of each column, by heading."""

_GAPS: Final = (3, 2)  # columns of the terminal between two columns of a table
_INDENT: Final = 4  # of the second line of a row, and of those after it
_SHORTEST_PROSE: Final = 24  # columns in which a text can be read
_LONGEST_RULE: Final = 120  # below the headings
_CHARACTERS: Final = 8  # for each column of the terminal, as of an emoji of a family
_WIDENS: Final = "\ufe0f"  # the character before it
_BREAKABLE: Final = frozenset(" ./:_-,=")


def width_of(columns: Columns, gap: int = _GAPS[0]) -> int:
    """Return how many columns of the terminal a table of these columns needs."""
    return sum(map(_natural, columns, columns.values())) + gap * (len(columns) - 1)


def _natural(heading: str, cells: Sequence[Text]) -> int:
    return max([cell_len(heading), *(cell.cell_len for cell in cells)])


def print_table(
    columns: Columns,
    *,
    right: Collection[str] = (),
    lead: Sequence[str] = (),
    grouped: bool = False,
    prose: str | None = None,
    most: int | None = None,
) -> None:
    """Print columns as a table. Rows take several lines where the terminal is too narrow.

    Args:
        columns: the cells of each column, by heading.
        right: the columns that hold numbers.
        lead: the columns of a row's first line, where it takes several. Default: the first one.
        grouped: print a first line only where it differs from that of the row before.
        prose: the column that holds text, which is wrapped. It comes last.
        most: lines of prose in a row; what is cut then ends in "…", and stderr says so.
    """
    out = console()
    facts = {name: cells for name, cells in columns.items() if name != prose}
    texts = {} if prose is None or not any(columns[prose]) else {prose: columns[prose]}
    lines, gap, room = _layout(facts, texts, lead, out.width)
    widths = {name: _natural(name, cells) for name, cells in columns.items()}
    widths |= {name: min(widths[name], room) for name in texts}
    drawn = _Rows(lines, gap, widths, right, out.width)
    for line in drawn.row({name: Text(name, style="bold") for name in columns}):
        out.print(line, soft_wrap=True)
    needed = [drawn.width(line) + (_INDENT if at else 0) for at, line in enumerate(lines)]
    rule = min(out.width, _LONGEST_RULE, max(needed))
    out.print(Text("─" * rule, style=GREY), soft_wrap=True)
    cut = False
    before: list[str] = []
    for at in range(max(map(len, columns.values()), default=0)):
        row = {name: cells[at] for name, cells in columns.items()}
        for name in texts:
            row[name], shortened = _shortened(row[name], room, most)
            cut |= shortened
        first = [row[name].plain for name in lines[0]]
        for line in drawn.row(row, skip_first=grouped and len(lines) > 1 and first == before):
            out.print(line, soft_wrap=True)
        before = first
    if cut:
        remark(f"{prose} are cut at {out.width} columns; --json shows all")


def _layout(
    facts: Columns, texts: Columns, lead: Sequence[str], width: int
) -> tuple[list[list[str]], int, int]:
    """Return the columns of each line of a row, the gap between them, and the room for prose."""
    for gap in _GAPS:
        room = width - width_of(facts, gap) - gap
        readable = min(_SHORTEST_PROSE, width_of(texts)) if texts else -gap
        if room >= readable:
            return [[*facts, *texts]], gap, room
    below = width - _INDENT
    for gap in _GAPS:
        if width_of(facts, gap) <= width:
            return [[*facts], [*texts]], gap, below
    first = lead or [*facts][:1]
    lines = [*_packed(facts, first, width, below)]
    lines += _packed(facts, [name for name in facts if name not in first], below, below)
    return [*lines, *([[*texts]] if texts else [])], _GAPS[-1], below


def _packed(
    columns: Columns, names: Sequence[str], width: int, indented: int
) -> Iterator[list[str]]:
    """Distribute columns over lines, in their order; the lines after the first have less room."""
    line: list[str] = []
    for name in names:
        if line and width_of({each: columns[each] for each in (*line, name)}, _GAPS[-1]) > width:
            yield line
            line, width = [], indented
        line.append(name)
    if line:
        yield line


class _Rows:
    """Draws the rows of a table.

    Args:
        lines: the columns of each line of a row.
        gap: columns of the terminal between two columns.
        widths: of the columns.
        right: the columns that are aligned at the right.
        limit: the width of the terminal.
    """

    def __init__(
        self,
        lines: Sequence[Sequence[str]],
        gap: int,
        widths: Mapping[str, int],
        right: Collection[str],
        limit: int,
    ) -> None:
        self._lines = lines
        self._gap = " " * gap
        self._widths = widths
        self._right = right
        self._limit = limit

    def width(self, line: Sequence[str]) -> int:
        """Return how many columns of the terminal a line needs."""
        return sum(self._widths[name] for name in line) + len(self._gap) * (len(line) - 1)

    def row(self, row: Mapping[str, Text], *, skip_first: bool = False) -> Iterator[Text]:
        """Draw the lines of one row that hold something."""
        for at, names in enumerate(self._lines):
            if skip_first and not at:
                continue
            indent = " " * _INDENT if at else ""
            room = max(1, self._limit - len(indent))
            cells = [broken(row[name], min(self._widths[name], room)) for name in names]
            for parts in zip_longest(*cells, fillvalue=Text()):
                line = Text(indent)
                for name, part in zip(names, parts, strict=True):
                    padded = part.copy()
                    side: Literal["left", "right"] = "right" if name in self._right else "left"
                    padded.align(side, min(self._widths[name], room))
                    line.append(self._gap if line.cell_len > len(indent) else "")
                    line.append(padded)
                line.rstrip()
                if line:
                    yield line


def broken(text: Text, width: int) -> list[Text]:
    """Break a text into lines: at a space, else behind a separator, else where it must be."""
    lines = []
    for rest in text.split("\n", allow_blank=True):
        while rest.cell_len > width:
            end = _end_of_line(rest.plain, width)
            lines.append(rest[:end])
            lines[-1].rstrip()
            rest = rest[end:]  # noqa: PLW2901  # consumed from the left
        lines.append(rest)
    return lines


def _end_of_line(text: str, width: int) -> int:
    """Return how many characters come into a line."""
    fitting = _fitting(text, width)
    if text[fitting : fitting + 1] == " ":
        return fitting + 1
    if space := text.rfind(" ", 0, fitting) + 1:
        return space
    breakable = (at + 1 for at, each in enumerate(text[:fitting]) if each in _BREAKABLE)
    return max(breakable, default=max(1, fitting))


def _fitting(text: str, width: int) -> int:
    """Return how many characters have room in a line, wherever that breaks them."""
    near = text[: _CHARACTERS * width]
    # Characters that join, as those of an emoji, take other room than their sum.
    fitting = bisect_right(range(len(near) + 1), width, key=lambda end: cell_len(near[:end])) - 1
    if text[fitting : fitting + 1] == _WIDENS:
        fitting -= 1
    return fitting


def _shortened(text: Text, width: int, most: int | None) -> tuple[Text, bool]:
    """Cut a text, so that it takes at most so many lines; return whether something was cut."""
    lines = broken(text, width)
    if most is None or len(lines) <= most:
        return text, False
    last, following = lines[most - 1 : most + 1]
    if last.plain + following.plain in text.plain:  # inside a word: show as much as has room
        last.append(following)
    lines[most - 1] = last = last[: _fitting(last.plain, width - 1)]
    last.append("…")
    return Text("\n").join(lines[:most]), True
