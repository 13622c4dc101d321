"""`sidelight points`: list the points of some code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from sidelight.cli.code.check import check
from sidelight.cli.code.formats import json_object, mermaid, print_tree
from sidelight.cli.code.reading import Modules, missing_modules, read_by_import, read_source
from sidelight.cli.options import AsJson
from sidelight.cli.output import complain, print_json, remark
from sidelight.maps import ListedPoint, Reading, map_text, omissions
from sidelight.store import plural

_FORMATS: Final[Mapping[str, Callable[[Sequence[ListedPoint]], object]]] = {
    "toml": lambda points: sys.stdout.write(map_text(points)),
    "mermaid": lambda points: sys.stdout.write(mermaid(points)),
    "json": lambda points: print_json(map(json_object, points)),
}


def points(
    modules: Modules = None,
    *,
    as_toml: Annotated[
        bool, typer.Option("--toml", help="Print a sidelight.toml that weaves to the same events.")
    ] = False,
    as_mermaid: Annotated[
        bool, typer.Option("--mermaid", help="Print the functions and their events as a flowchart.")
    ] = False,
    as_json: AsJson = False,
    map_to_check: Annotated[
        Path | None,
        typer.Option(
            "--check",
            metavar="FILE",
            help="Compare a map with the code: print one line for each difference, and exit with 1"
            " if there is any.",
        ),
    ] = None,
    importing: Annotated[
        bool,
        typer.Option(
            "--import",
            help="Import the modules, which shows values that their source does not show.",
        ),
    ] = False,
) -> None:
    """List the instrumented functions of some code: where they are and what they emit.

    The command reads source, from the current directory too, and runs none of it. It names values
    that the source does not show, because they are computed; --import imports the modules to see
    them.

    Examples:
      sidelight points voice_notes

      sidelight points shop.orders shop.invoices --json

      sidelight points voice_notes --toml > sidelight.toml

      sidelight points --check sidelight.toml
    """
    if map_to_check is not None:
        check(map_to_check, modules or (), importing=importing, as_json=as_json)
        return
    if not modules:
        raise missing_modules("points")
    chosen = {"toml": as_toml, "mermaid": as_mermaid, "json": as_json}
    formats = [name for name, asked in chosen.items() if asked]
    if len(formats) > 1:
        complain("choose one of --toml, --mermaid and --json")
        raise typer.Exit(2)
    reading = read_by_import(modules) if importing else read_source(modules)
    found, problems = reading.points, reading.problems
    if formats:
        _FORMATS[formats[0]](found)
    elif found:
        print_tree(found)
        remark(plural(len(found), "point"))
    if as_toml:
        problems += [f"the map is not complete: {each}" for each in omissions(found)]
    else:
        reading.remarks += _shown_on_import(found)
    reading.remarks += [f"{point.path}: {point.warning}" for point in found if point.warning]
    if not found and not problems:
        remark(f"{', '.join(modules)}: no function there is decorated with @emits")
    _report(reading)


def _report(reading: Reading) -> None:
    """Print remarks and problems, and exit with 1 if there is a problem."""
    for each in reading.remarks:
        remark(each)
    for each in reading.problems:
        complain(each)
    if reading.problems:
        raise typer.Exit(1)


def _shown_on_import(points: Sequence[ListedPoint]) -> list[str]:
    """Return the values that the source does not show, one line each."""
    return [
        f"{point.path}: {name} = {opaque.source}: {opaque.reason}"
        for point in points
        for declared in point.declarations
        for name, opaque in declared.opaque.items()
        if opaque.on_import
    ]
