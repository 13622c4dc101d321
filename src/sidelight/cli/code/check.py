"""`sidelight points --check`: whether a map fits the code, for CI and before a commit."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import typer

from sidelight.cli.code.importing import look_here
from sidelight.cli.code.readings import imported, read
from sidelight.cli.output import clean, complain, plural, print_json, remark
from sidelight.maps import Checks, Codebase, Functions, Gone, Seen, Unseen, read_events, read_map
from sidelight.record import catalogue


def check(path: Path, modules: Sequence[str], *, importing: bool, as_json: bool) -> None:
    """Print what does not fit, one line each; end with 1 if anything does not.

    Args:
        path: the map.
        modules: whose decorators and catalogue count; the map's packages where none is named.
        importing: import them, and the functions of the map.
        as_json: one object per line.

    Raises:
        MapError: the map itself cannot be understood.
    """
    points = read_map(path)
    look_here(source=not importing)
    names = modules or list(dict.fromkeys(each.module.partition(".")[0] for each in points.points))
    code = Codebase(name.partition(".")[0] for name in names)
    reading = imported(names) if importing else read(names, code)
    events = read_events(code, names)
    if importing:
        for declared in catalogue:
            events.declared.setdefault(declared.name, declared.payload.__module__)
            events.emitted |= {declared.name} if declared.emitted_by else set()
    functions = Imported() if importing else Functions(code)
    checks = Checks(points, reading.points, events, functions)
    differences = list(checks.differences())
    if as_json:
        print_json(map(msgspec.structs.asdict, differences))
    else:
        for each in differences:
            typer.echo(clean(str(each)))
    for note in (*reading.remarks, *events.remarks, *checks.remarks):
        remark(note)
    for problem in reading.problems:
        complain(problem)
    if differences or reading.problems:
        raise typer.Exit(1)
    remark(f"{path}: {plural(len(points.points), 'point')}, and all of it fits")


class Imported:
    """Finds functions by importing what they are in."""

    def look(self, path: str) -> Seen | Gone | Unseen:
        """Look for ``package.module:Class.method``."""
        try:
            found: Any = pkgutil.resolve_name(path)
        except (ImportError, AttributeError) as error:
            return Gone(str(error), "see where it has gone")
        if isinstance(found, type):
            return Gone(f"{path} is a class", "name its methods")
        try:
            found = getattr(found, "__func__", found)  # a class method with its class
            return Seen(tuple(inspect.signature(found).parameters.values()))
        except (TypeError, ValueError) as error:
            return Unseen(str(error))
