"""`sidelight points`: the map of the points that some code has."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sidelight.cli.code.check import check
from sidelight.cli.code.markdown import page
from sidelight.cli.code.mermaid import flowchart
from sidelight.cli.code.readings import hidden, imported, read
from sidelight.cli.code.tree import print_tree
from sidelight.cli.options import AsJson
from sidelight.cli.output import complain, plural, print_json, remark
from sidelight.maps import Described, Found, Reading, losses, spelled, written
from sidelight.points import Phase


def points(
    modules: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODULE...", help="Modules or packages, with all that is in them."),
    ] = None,
    *,
    as_toml: Annotated[
        bool,
        typer.Option("--toml", help="A sidelight.toml that weaves to the same events."),
    ] = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="A page of documentation, on stdout.")
    ] = False,
    as_mermaid: Annotated[
        bool, typer.Option("--mermaid", help="The functions and their events as a flowchart.")
    ] = False,
    as_json: AsJson = False,
    map_to_check: Annotated[
        Path | None,
        typer.Option(
            "--check",
            metavar="FILE",
            help="Hold a map against the code: one line for each thing that does not fit, and 1.",
        ),
    ] = None,
    importing: Annotated[
        bool,
        typer.Option("--import", help="Import the modules: for what their source does not show."),
    ] = False,
) -> None:
    """List the instrumented functions of some code: where they are and what they emit.

    The source is read, from the current directory too, and nothing is run. What it does not show,
    because it is computed, is named; --import imports the modules, as your program does.

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
        complain("say whose points: sidelight points MODULE… (as your program imports it)")
        raise typer.Exit(2)
    if as_toml + as_markdown + as_mermaid + as_json > 1:
        complain("choose one of --toml, --markdown, --mermaid and --json")
        raise typer.Exit(2)
    reading = imported(modules) if importing else read(modules)
    found, problems = reading.points, reading.problems
    if as_json:
        print_json(_plain(point) for point in found)
    elif as_toml or as_markdown or as_mermaid:
        write = written if as_toml else page if as_markdown else flowchart
        sys.stdout.write(write(found))
    elif found:
        print_tree(found)
        remark(plural(len(found), "point"))
    if as_toml:
        problems += [f"the map does not say all: {loss}" for loss in losses(found)]
    else:
        reading.remarks += hidden(found)
    if not found and not problems:
        remark(f"{', '.join(modules)}: no function there is decorated with @emits")
    _end(reading)


def _end(reading: Reading) -> None:
    """Say what is not certain, and what is wrong; with exit code 1 if anything is."""
    for each in reading.remarks:
        remark(each)
    for each in reading.problems:
        complain(each)
    if reading.problems:
        raise typer.Exit(1)


def _type_or_types(described: Described, phase: Phase) -> str | list[str] | None:
    """One type by itself; what a choice can give as a list."""
    types = list(described.types(phase))
    return types if len(types) > 1 else next(iter(types), None)


def _plain(point: Found) -> dict[str, Any]:
    return {
        "point": point.path,
        "file": point.file,
        "line": point.line,
        "kind": point.kind,
        "span": any(described.span is not False for described in point.declarations),
        "declarations": [_plain_declaration(described) for described in point.declarations],
    }


def _plain_declaration(described: Described) -> dict[str, Any]:
    joined = {name: getattr(described, name) for name in ("transaction", "after_commit")}
    return {
        "mode": described.how,
        "start": _type_or_types(described, "start"),
        "success": list(described.types("success")),
        "failure": _type_or_types(described, "failure"),
        "fields": described.captured,
        **{name: None if value is None else spelled(value) for name, value in joined.items()},
        "unsaid": {
            name: {"source": each.source, "why": each.why}
            for name, each in described.unsaid.items()
        },
    }
