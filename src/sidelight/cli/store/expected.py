"""What a map and a catalogue declare: expectations and event types, for commands that compare."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import typer

from sidelight.cli.code.reading import import_all
from sidelight.cli.output import complain, stdout_kept_clean
from sidelight.maps import PHASES, read_map
from sidelight.record import Expectation, catalogue, unknown_types

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


class Expected(NamedTuple):
    """What was declared.

    Attributes:
        expectations: of the map and the catalogue.
        types: the event types that the map's points emit, and those of the catalogue.
    """

    expectations: list[Expectation]
    types: set[str]


def expectations_of(map_: Path | None, modules: Sequence[str]) -> Expected:
    """Read a map and import modules; the catalogue then holds what these declare.

    Without a module, `sidelight.toml` of the working directory is read where there is one.

    Raises:
        MapError: the map cannot be read.
        typer.Exit: a module cannot be imported; the reason was told on stderr.
    """
    found: list[Expectation] = []
    types: set[str] = set()
    if map_ is not None or (_MAP.exists() and not modules):
        read = read_map(map_ or _MAP)
        found += read.expectations
        for point in read.points:
            types.update(name for phase in PHASES for name in point.types(phase))
    with stdout_kept_clean():
        problems = import_all(modules)
    for problem in problems:
        complain(problem)
    if problems:
        raise typer.Exit(1)
    if modules:
        found += catalogue.expectations
        types.update(each.name for each in catalogue)
    return Expected(list(dict.fromkeys(found)), types)


def complain_of_unknown_types(expected: Expected, stored: Iterable[str]) -> None:
    """Tell on stderr which expected event types nothing emits, as far as is known.

    A type that ends a wait may never have occurred. It is told where another has almost the same
    name, and where no known type ends the wait.
    """
    known = expected.types.union(stored)
    for each, name, close, decides in unknown_types(
        expected.expectations, known, least_of_first=0.6
    ):
        if close or decides:
            until = "nothing waits" if name == each.after else "the wait does not end"
            more = f"did you mean {close}?" if close else f"{until} until one occurs"
            complain(f"{each}: no event of the type {name} is known; {more}")
