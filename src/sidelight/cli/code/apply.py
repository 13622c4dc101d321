"""`sidelight apply` and `sidelight strip`: a map written into the code, and taken out of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from sidelight.cli.code.importing import look_here
from sidelight.cli.output import clean, complain, plural, remark
from sidelight.maps import Plan, near, read_map

MapFile: TypeAlias = Annotated[
    Path, typer.Argument(metavar="FILE", help="The map: sidelight.toml or pyproject.toml.")
]
AsDiff: TypeAlias = Annotated[
    bool, typer.Option("--diff", help="Only show what would change, as a patch on stdout.")
]


def apply(file: MapFile = Path("sidelight.toml"), *, diff: AsDiff = False) -> None:
    """Write the points of a map into the code, as decorators.

    Each file is written in one step, import and decorators together; comments and formatting stay
    as they are. What a function emits already is not written again. Where a point cannot be
    written, nothing is. sidelight strip takes it all out again.

    Examples:
      sidelight apply sidelight.toml --diff

      sidelight apply sidelight.toml
    """
    _edit(file, diff=diff, strip=False)


def strip(file: MapFile = Path("sidelight.toml"), *, diff: AsDiff = False) -> None:
    """Take the decorators that say what a map says out of the code.

    The inverse of sidelight apply. What the map does not say stays: decorators that capture
    something else, and imports whose names are used elsewhere.

    Examples:
      sidelight points voice_notes --toml > sidelight.toml

      sidelight strip sidelight.toml --diff
    """
    _edit(file, diff=diff, strip=True)


def _edit(file: Path, *, diff: bool, strip: bool) -> None:
    points = read_map(file)
    look_here(source=True)
    plan = Plan(points)
    edits = plan.stripped() if strip else plan.applied()
    for problem in plan.problems:
        complain(problem)
    if plan.problems:
        remark("nothing was written")
        raise typer.Exit(1)
    for edit in edits:
        name = near(str(edit.path))
        if diff:
            sys.stdout.write(edit.diff(name))
        else:
            edit.write()
            typer.echo(clean(f"{name}: {plural(edit.count, 'decorator')}"))
    if not edits:
        remark("there is nothing to change")
