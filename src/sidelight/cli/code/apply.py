"""`sidelight apply` and `sidelight strip`: write a map into the code, and take it out again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from sidelight.cli.code.reading import search_current_directory
from sidelight.cli.output import clean, complain, remark
from sidelight.maps import CodeEdits, read_map, relative_place
from sidelight.store import plural

MapFile: TypeAlias = Annotated[
    Path, typer.Argument(metavar="FILE", help="The map: sidelight.toml or pyproject.toml.")
]
AsDiff: TypeAlias = Annotated[
    bool, typer.Option("--diff", help="Change nothing; print the changes as a patch.")
]


def apply(file: MapFile = Path("sidelight.toml"), *, diff: AsDiff = False) -> None:
    """Write the points of a map into the code, as decorators.

    The command writes each file in one step, imports and decorators together; comments and
    formatting stay. It does not write what a function emits already. If one point cannot be
    written, it writes nothing. sidelight strip takes the decorators out again.

    Examples:
      sidelight apply sidelight.toml --diff

      sidelight apply sidelight.toml
    """
    _edit(file, diff=diff, strip=False)


def strip(file: MapFile = Path("sidelight.toml"), *, diff: AsDiff = False) -> None:
    """Take the decorators that state the same as a map out of the code.

    The command is the inverse of sidelight apply. It leaves decorators that capture something
    else, and imports whose names are used elsewhere.

    Examples:
      sidelight points voice_notes --toml > sidelight.toml

      sidelight strip sidelight.toml --diff
    """
    _edit(file, diff=diff, strip=True)


def _edit(file: Path, *, diff: bool, strip: bool) -> None:
    points = read_map(file)
    search_current_directory(source=True)
    planned = CodeEdits(points)
    edits = planned.stripped() if strip else planned.applied()
    for problem in planned.problems:
        complain(problem)
    if planned.problems:
        remark("nothing was written")
        raise typer.Exit(1)
    for edit in edits:
        name = relative_place(str(edit.path))
        if diff:
            sys.stdout.write(edit.diff(name))
        else:
            edit.write()
            typer.echo(clean(f"{name}: {plural(edit.count, 'decorator')}"))
    if not edits:
        remark("there is nothing to change")
