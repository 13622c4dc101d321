"""`sidelight run`: run a program under a map, without a change of its code."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from sidelight.cli.options import StoreUrl
from sidelight.cli.output import complain
from sidelight.maps import bootstrap_directory, read_map

_OTHER_STARTER: Final = "opentelemetry-instrument"
"""Its `sitecustomize` comes first on the path and imports no other one, so it must run first."""


def run(
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- COMMAND...", help="The program and its arguments."),
    ] = None,
    *,
    points: Annotated[
        Path,
        typer.Option("--map", metavar="FILE", help="The map: sidelight.toml or pyproject.toml."),
    ] = Path("sidelight.toml"),
    store: StoreUrl = None,
) -> None:
    """Run a Python program, and the Python programs that it starts, under a map.

    Each module is woven right after its import; the code stays as it is. The program replaces this
    process: exit code, signals and output are the program's own.

    Examples:
      sidelight run --map sidelight.toml -- python -m app

      sidelight run --store sqlite:///events.db -- gunicorn app:server
    """
    if not command:
        complain("name a program: sidelight run --map FILE -- python -m app")
        raise typer.Exit(2)
    if Path(command[0]).name == _OTHER_STARTER:
        complain(
            f"{_OTHER_STARTER} keeps the map out of the program; let it start sidelight:"
            f" {_OTHER_STARTER} sidelight run --map FILE -- python -m app"
        )
        raise typer.Exit(2)
    path = read_map(points).path.absolute()  # report its mistakes before the program starts
    program = shutil.which(command[0])
    if program is None:
        complain(f"there is no command {command[0]}; name one that your shell finds")
        raise typer.Exit(127)
    here = str(bootstrap_directory())
    search = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([here, search]) if search else here
    os.environ["SIDELIGHT_MAP"] = str(path)
    if store is not None:
        os.environ["SIDELIGHT_STORE"] = store
    sys.stdout.flush()
    os.execv(program, command)  # noqa: S606  # the user names the program
