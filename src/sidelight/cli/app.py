"""The command line: `sidelight`, or `python -m sidelight`."""

from __future__ import annotations

import importlib
import sys
from collections import UserDict
from collections.abc import Sequence
from typing import Annotated, Any, Final, TextIO

import typer
from typer.core import TyperGroup

from sidelight.cli.output import complain
from sidelight.exceptions import SidelightError
from sidelight.version import __version__

_MODULES: Final = {
    "events": "store.questions",
    "artifacts": "store.questions",
    "timeline": "store.questions",
    "counts": "store.questions",
    "tail": "store.questions",
    "budget": "store.questions",
    "points": "code.points",
    "apply": "code.apply",
    "strip": "code.apply",
    "catalogue": "code.catalogue",
    "doctor": "doctor.command",
    "relay": "relay",
    "outbox": "outbox",
    "run": "code.run",
    "prune": "store.prune",
    "spool": "spool.command",
}
"""Where each command is, in the order in which they are listed."""


class _Commands(UserDict[str, Any]):
    """The commands by their names, imported when they are asked for.

    A probe that asks `sidelight doctor --ready` shall not wait for what other commands need.
    """

    def __getitem__(self, name: str) -> Any:
        command = super().__getitem__(name)
        if command is None:
            command = getattr(importlib.import_module(f"sidelight.cli.{_MODULES[name]}"), name)
            if not isinstance(command, typer.Typer):
                alone = typer.Typer(add_completion=False)
                alone.command()(command)
                command = alone
            command = self[name] = typer.main.get_command(command)
        return command


class _Group(TyperGroup):
    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Commands(dict.fromkeys(_MODULES))


app = typer.Typer(
    cls=_Group,
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:  # typer calls it so
    if asked:
        sys.stdout.write(f"sidelight {__version__}\n")
        raise typer.Exit


@app.callback()
def sidelight(
    *,
    version: Annotated[  # its callback has answered
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Say which it is.")
    ] = False,
) -> None:
    """See what your functions did: the events that sidelight has recorded, and how it is doing.

    Every command takes --store URL, or SIDELIGHT_STORE from the environment, and --json for
    programs. Times are UTC. Exit codes: 0 all is well, 1 something is not (stderr says what, and
    what helps), 2 the command was not understood.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, and end the process.

    Args:
        arguments: what follows the program's name; ``sys.argv`` where it is None.
    """
    for stream in (sys.stdout, sys.stderr):
        _never_refuse(stream)
    try:
        app(args=None if arguments is None else list(arguments), prog_name="sidelight")
    except SidelightError as error:
        complain(error)
        sys.exit(1)


def _never_refuse(stream: TextIO) -> None:
    """A terminal that knows no ✓ shows a question mark in its place."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
