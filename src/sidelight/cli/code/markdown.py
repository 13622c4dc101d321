"""Points as a page of documentation: Markdown, a table for each module."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from sidelight.cli.code.tree import LOOKS, values
from sidelight.maps import PHASES, Described, Found, Unsaid


def page(found: Sequence[Found]) -> str:
    """The page."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Sequence[Found]) -> Iterator[str]:
    yield "# Points"
    yield ""
    yield "▸ before the call, ✓ when it succeeds, ✗ when it raises."
    for module, points in groupby(found, key=lambda point: point.module):
        yield from ("", f"## `{module}`", "", "| function | events | mode | captured |")
        yield "|---|---|---|---|"
        for point in points:
            for described in point.declarations:
                cells = (
                    _code(point.qualname),
                    "<br>".join(_events(described)),
                    described.how,
                    "<br>".join(_code(f"{k} = {v}") for k, v in values(described).items()),
                )
                yield f"| {' | '.join(cells)} |"


def _events(described: Described) -> Iterator[str]:
    for phase in PHASES:
        types = [_code(each) for each in described.types(phase)]
        if not types and isinstance(unsaid := getattr(described, phase), Unsaid):
            types = [_code(unsaid.source)]
        if types:
            yield f"{LOOKS[phase][0]} {' or '.join(types)}"


def _code(text: str) -> str:
    """Code in a cell: a bar would end the cell, even there."""
    fence = "``" if "`" in text else "`"
    return f"{fence}{' '.join(text.split())}{fence}".replace("|", "\\|")
