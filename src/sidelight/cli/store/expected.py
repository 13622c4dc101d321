"""What a map and a catalogue declare: expectations and event types, for commands that compare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from sidelight.cli.code.reading import import_all
from sidelight.cli.output import complain, stdout_kept_clean
from sidelight.maps import read_map
from sidelight.record import Expectation, catalogue

_MAP: Final = Path("sidelight.toml")

ExpectMap = Annotated[
    Path | None,
    typer.Option(
        "--map", metavar="FILE", help="Read [[expect]] from this map. Default: sidelight.toml."
    ),
]
ExpectModules = Annotated[
    list[str] | None,
    typer.Option(
        "--catalogue",
        metavar="MODULE",
        help="Import a module that calls catalogue.expect. Repeatable.",
    ),
]


def expectations_of(map_: Path | None, modules: Sequence[str]) -> list[Expectation]:
    """Read a map and import modules; the catalogue then holds what these declare.

    Without a module, `sidelight.toml` of the working directory is read where there is one.

    Raises:
        MapError: the map cannot be read.
        typer.Exit: a module cannot be imported; the reason was told on stderr.
    """
    found: list[Expectation] = []
    if map_ is not None or (_MAP.exists() and not modules):
        found += read_map(map_ or _MAP).expectations
    with stdout_kept_clean():
        problems = import_all(modules)
    for problem in problems:
        complain(problem)
    if problems:
        raise typer.Exit(1)
    if modules:
        found += catalogue.expectations
    return list(dict.fromkeys(found))
