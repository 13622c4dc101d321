"""Points as people read them on a terminal: a tree of modules and functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

from rich.text import Text
from rich.tree import Tree

from sidelight.cli.output import clean, console
from sidelight.maps import PHASES, Described, Found, Unsaid, spelled
from sidelight.points import Phase

LOOKS: Final[Mapping[Phase, tuple[str, str]]] = {
    "start": ("▸", "blue"),
    "success": ("✓", "green"),
    "failure": ("✗", "red"),
}
"""Symbol and colour of each phase."""


def print_tree(found: Sequence[Found]) -> None:
    """Print points, a branch for each module."""
    out = console()
    for module, points in groupby(found, key=lambda point: point.module):
        tree = Tree(Text(clean(module), style="bold"), guide_style="dim")
        for point in points:
            branch = tree.add(
                Text.assemble((clean(point.qualname), "bold cyan"), "  ", (where(point), "dim"))
            )
            for described in point.declarations:
                branch.add(_told(described))
        out.print(tree)


def where(point: Found) -> str:
    """File and line, from here where the file is below."""
    if point.file is None:
        return ""
    path = Path(point.file)
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return clean(f"{path}:{point.line}")


def _told(described: Described) -> Text:
    """Mode and events in one line, each value in one of its own."""
    told = Text(clean(described.how), style="dim")
    for phase in PHASES:
        symbol, colour = LOOKS[phase]
        value = getattr(described, phase)
        types = " | ".join(described.types(phase))
        if isinstance(value, Unsaid):
            types = f"{types} ({value.source})" if types else value.source
        if types:
            told.append_text(
                Text.assemble("  ", (symbol, colour), " ", (clean(types), "default not dim"))
            )
    for name, shown in values(described).items():
        told.append(f"\n{clean(name)} = {clean(shown)}", style="dim")
    return told


def values(described: Described) -> dict[str, str]:
    """What is captured, and whose transaction it joins."""
    found = dict(described.captured)
    for name in ("transaction", "after_commit"):
        value = getattr(described, name)
        if value is not None:
            found[name] = spelled(value)
    if described.rest is not None:
        found["**"] = described.rest.source
    return found
