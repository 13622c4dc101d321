"""`sidelight run`: run a program under a map, without touching its code."""

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

_DISPLACES: Final = "opentelemetry-instrument"
"""It puts a `sitecustomize` of its own before ours, and that one imports no other."""


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

    The map's points are woven into the modules as they are imported; the code stays as it is. The
    command takes the place of this one: its exit code, signals and output are its own.

    Examples:
      sidelight run --map sidelight.toml -- python -m app

      sidelight run --store sqlite:///events.db -- gunicorn app:server
    """
    if not command:
        complain("say what to run: sidelight run --map FILE -- python -m app")
        raise typer.Exit(2)
    if Path(command[0]).name == _DISPLACES:
        complain(
            f"{_DISPLACES} keeps the map out of what it starts; let it start sidelight:"
            f" {_DISPLACES} sidelight run --map FILE -- python -m app"
        )
        raise typer.Exit(2)
    path = read_map(points).path.absolute()  # what is wrong with it is told now, and not in there
    program = shutil.which(command[0])
    if program is None:
        complain(f"there is no command {command[0]}; give it as your shell would find it")
        raise typer.Exit(127)
    here = str(bootstrap_directory())
    search = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([here, search]) if search else here
    os.environ["SIDELIGHT_MAP"] = str(path)
    if store is not None:
        os.environ["SIDELIGHT_STORE"] = store
    sys.stdout.flush()
    os.execv(program, command)  # noqa: S606  # it is what the user asked for
