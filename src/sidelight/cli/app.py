"""The command line: `sidelight`, or `python -m sidelight`."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import re
import shlex
import sys
from collections import UserDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, TextIO

import typer
from rich.markup import escape
from typer.core import TyperGroup

from sidelight.cli.output import complain
from sidelight.cli.palette import HELP
from sidelight.exceptions import QueryError, SidelightError, StoreError, StoreMissingError
from sidelight.version import __version__

_WORDS: Final = {
    r"^Value error, ": "",
    r"Input should be a valid integer.*": "write a whole number",
    r"Input should be a valid number.*": "write a number",
    r"Input should be greater than or equal to": "write a number of at least",
    r"Input should be less than or equal to": "write a number of at most",
}
"""The words of pydantic for bad values, and ours."""
_GROUPS: Final = {
    "Questions to the store": {
        "events": "store.events",
        "tail": "store.events",
        "artifacts": "store.artifacts",
        "timeline": "store.timeline",
        "counts": "store.counts",
        "latency": "store.latency",
        "funnel": "store.funnel",
        "overdue": "store.overdue",
        "export": "store.export",
        "ui": "ui",
    },
    "Code": {
        "points": "code.points",
        "apply": "code.apply",
        "strip": "code.apply",
        "catalogue": "code.catalogue",
        "run": "code.run",
    },
    "Delivery": {
        "relay": "relay",
        "consume": "consume",
        "replay": "replay",
        "outbox": "outbox",
        "spool": "spool.command",
    },
    "Documentation": {
        "docs": "docs",
    },
    "Health": {
        "doctor": "doctor.command",
        "budget": "store.budget",
        "prune": "store.prune",
        "erase": "store.erase",
    },
}
"""The commands as `--help` groups them. Each is an object of its name in the module named here."""

_PLACES: Final = {
    name: (module, group) for group, modules in _GROUPS.items() for name, module in modules.items()
}


class _Commands(UserDict[str, Any]):
    """The commands by name; a command's module is imported when the command is looked up.

    A probe that runs `sidelight doctor --ready` must not wait for the imports of other commands.
    """

    def __getitem__(self, name: str) -> Any:
        known = super().__getitem__(name)
        if known is not None:
            return known
        module, group = _PLACES[name]
        found = getattr(importlib.import_module(f"sidelight.cli.{module}"), name)
        if not isinstance(found, typer.Typer):
            alone = typer.Typer(add_completion=False)
            alone.command()(found)
            found = alone
        command: Any = typer.main.get_command(found)
        command.name, command.rich_help_panel = name, group
        _unwrap(command)
        self[name] = command
        return command


def _unwrap(command: Any) -> None:
    """Join the lines of each paragraph of the help, because typer keeps the source's line ends.

    Brackets are escaped, because rich would take them for markup. Lines of examples stay; without
    the markup before them, typer would take their indentation away.
    """
    for parameter in command.params:
        parameter.help = escape(getattr(parameter, "help", None) or "")
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""  # typer would write <bool>
    paragraphs = escape(command.help or "").split("\n\n")
    command.help = "\n\n".join(
        each.replace("  sidelight", "[not dim]  [/]sidelight")
        if each.startswith(("Example", " "))
        else " ".join(each.split("\n"))
        for each in paragraphs
    )
    command.get_help_option = _without_type(command.get_help_option)
    command.format_help = _in_readable_colours(command.format_help)
    for below in getattr(command, "commands", {}).values():
        _unwrap(below)


def _without_type(get_help_option: Callable[..., Any]) -> Callable[..., Any]:
    def found(*arguments: Any) -> Any:
        option = get_help_option(*arguments)
        if option is not None:
            option.metavar = ""  # typer would write <bool>
        return option

    return found


def _use_readable_colours() -> None:
    """Make typer print help and errors in the colours of answers, and without them in a pipe."""
    from typer import rich_utils  # noqa: PLC0415  # slow to import, and only these need it

    for name, style in HELP.items():
        setattr(rich_utils, name, style)


def _in_readable_colours(format_help: Callable[..., None]) -> Callable[..., None]:
    def styled(*arguments: Any) -> None:
        _use_readable_colours()
        format_help(*arguments)

    return styled


def _in_our_words(message: str) -> str:
    """Replace the words that pydantic, by which typer converts arguments, has for bad ones."""
    for theirs, ours in _WORDS.items():
        message = re.sub(theirs, ours, message)
    return message


def _name_option(error: Any, given: str) -> None:
    """Where an option is missing, and its value was given without it, name both together."""
    missing: Any = getattr(error, "param", None)
    is_option = getattr(missing, "param_type_name", "") == "option"
    if is_option and given and not given.startswith("-") and not error.message:
        error.message = f"Write {shlex.join([missing.opts[0], given])}"


class _Group(TyperGroup):
    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        _unwrap(self)
        self.commands = _Commands(dict.fromkeys(_PLACES))

    def invoke(self, ctx: Any) -> Any:
        given = next(iter(ctx.args), "")  # the first argument of the command
        try:
            return super().invoke(ctx)
        except Exception as error:
            if hasattr(error, "format_message"):  # typer prints it
                _use_readable_colours()
                error.message = _in_our_words(error.message)  # type: ignore[attr-defined]
                _name_option(error, given)
            raise


app = typer.Typer(
    cls=_Group,
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:  # typer passes the option's value
    if asked:
        sys.stdout.write(f"sidelight {__version__}\n")
        raise typer.Exit


@app.callback()
def sidelight(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Show the events that your functions emitted, deliver them, and check that all is well.

    Commands that read a store take --store URL; the default is SIDELIGHT_STORE from the
    environment. Most commands take --json, for programs. Times are UTC.

    Exit codes: 0 means success, and an answer may be empty. 1 means that something is wrong: stderr
    tells the problem and the remedy. 2 means that the command line was not understood, or an
    argument refused.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, and end the process.

    Args:
        arguments: without the program's name; None stands for ``sys.argv``.
    """
    with contextlib.ExitStack() as stack:
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:  # the shell has closed it
                nowhere = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
                setattr(sys, name, nowhere)
            _replace_unencodable(getattr(sys, name))
        _run(arguments)


def _run(arguments: Sequence[str] | None) -> None:
    try:
        try:
            app(args=None if arguments is None else list(arguments), prog_name="sidelight")
        finally:
            sys.stdout.flush()
    except SidelightError as error:
        complain(_with_remedy(error))
        sys.exit(2 if isinstance(error, QueryError) else 1)
    except PermissionError as error:
        complain(f"{error.filename}: {error.strerror}; run the command as a user who may do this")
        sys.exit(1)
    except OSError as error:
        if _takes_output():
            raise
        with contextlib.suppress(OSError):
            sys.stdout.close()  # else Python tries once more to write at its end
        if error.errno != errno.EPIPE:  # `head` has read enough
            complain(f"the output cannot be written: {error.strerror}")
        sys.exit(1)


def _with_remedy(error: SidelightError) -> SidelightError:
    """Name a better remedy than the store can, which does not know the command line."""
    if not isinstance(error, StoreError) or "remedy" not in error.facts:
        return error
    from sidelight.cli.spool.commands import located  # noqa: PLC0415  # slow to import
    from sidelight.cli.spool.waiting import missing_beside_spool  # noqa: PLC0415

    if isinstance(error, StoreMissingError):
        return missing_beside_spool(error)
    remedy = located(str(error.facts["remedy"]), None, error.facts.get("url"))
    return type(error)(**{**error.facts, "remedy": remedy})


def _takes_output() -> bool:
    """Return whether stdout takes another line; else it is not another file that is full."""
    try:
        sys.stdout.write("\n")
        sys.stdout.flush()
    except OSError:
        return False
    return True


def _replace_unencodable(stream: TextIO) -> None:
    """Print a question mark for each character that the stream's encoding lacks."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
