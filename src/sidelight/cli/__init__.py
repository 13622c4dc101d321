"""The command line: `sidelight`, or `python -m sidelight`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, TextIO

import typer

from sidelight.cli import catalogue, doctor, points, questions, relay, spool
from sidelight.cli.output import complain
from sidelight.exceptions import SidelightError
from sidelight.version import __version__

app = typer.Typer(
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


for command in (
    questions.events,
    questions.artifacts,
    questions.timeline,
    questions.counts,
    questions.tail,
    questions.budget,
    points.points,
    catalogue.catalogue,
    doctor.doctor,
    relay.relay,
):
    app.command()(command)
app.add_typer(spool.spool, name="spool")


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
