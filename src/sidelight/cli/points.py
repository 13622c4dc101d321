"""`sidelight points`: the map of the points that some code has."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.text import Text
from rich.tree import Tree

from sidelight.cli.options import AsJson
from sidelight.cli.output import (
    clean,
    complain,
    console,
    plural,
    print_json,
    remark,
    stdout_kept_clean,
)
from sidelight.fields import Expression
from sidelight.kinds import Phase
from sidelight.points import Declaration, Point, registry

_PHASES: Final[Sequence[tuple[Phase, str, str]]] = (
    ("start", "▸", "blue"),
    ("success", "✓", "green"),
    ("failure", "✗", "red"),
)


def points(
    modules: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODULE...", help="Modules or packages, with all that is in them."),
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """List the instrumented functions of some code: where they are and what they emit.

    The modules are imported, from the current directory too, as your program imports them.

    Examples:
      sidelight points voice_notes

      sidelight points shop.orders shop.invoices --json
    """
    if not modules:
        complain("say whose points: sidelight points MODULE… (as your program imports it)")
        raise typer.Exit(2)
    if os.environ.get("SIDELIGHT_DISABLED", "") not in {"", "0"}:
        complain("SIDELIGHT_DISABLED is set: the decorators leave no points; unset it")
        raise typer.Exit(1)
    with stdout_kept_clean():
        problems = import_all(modules)
    found = sorted(registry, key=lambda point: (point.file or "", point.line or 0))
    if as_json:
        print_json(_plain(point) for point in found)
    elif found:
        _print(found)
    elif not problems:
        remark(f"{', '.join(modules)}: no function there is decorated with @emits")
    for problem in problems:
        complain(problem)
    if problems:
        raise typer.Exit(1)


def import_all(names: Sequence[str]) -> list[str]:
    """Import modules and everything below them but ``__main__``; answers what went wrong."""
    if not any(Path(entry or ".").absolute() == Path.cwd() for entry in sys.path):
        sys.path.insert(0, str(Path.cwd()))
    problems: list[str] = []
    for name in names:
        module = _imported(name, problems)
        for below in _below(module, problems) if module is not None else ():
            _imported(below, problems)
    return problems


def _below(package: Any, problems: list[str]) -> Iterator[str]:
    for found in pkgutil.iter_modules(getattr(package, "__path__", ()), f"{package.__name__}."):
        if found.name.endswith(".__main__"):
            continue  # to import it is to run it
        yield found.name
        if found.ispkg and (module := _imported(found.name, problems)) is not None:
            yield from _below(module, problems)


def _imported(name: str, problems: list[str]) -> Any | None:
    if name.endswith(".py") or os.sep in name:
        problems.append(f"{name} is a file; name the module, as in an import statement")
        return None
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # noqa: BLE001  # a stranger's module
        problem = f"cannot import {name}: {type(error).__name__}: {error}"
        if problem not in problems:
            problems.append(problem)
        return None


def _print(found: Sequence[Point]) -> None:
    out = console()
    for module, points in groupby(found, key=lambda point: point.module):
        tree = Tree(Text(clean(module), style="bold"), guide_style="dim")
        for point in points:
            branch = tree.add(
                Text.assemble((clean(point.qualname), "bold cyan"), "  ", (_where(point), "dim"))
            )
            for declaration in point.declarations:
                branch.add(_described(declaration))
        out.print(tree)
    remark(plural(len(found), "point"))


def _where(point: Point) -> str:
    if point.file is None:
        return ""
    path = Path(point.file)
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return clean(f"{path}:{point.line}")


def _described(declaration: Declaration) -> Text:
    """Mode and events in one line, the fields in the next."""
    described = Text(declaration.mode, style="dim")
    for phase, symbol, colour in _PHASES:
        types = declaration.types(phase)
        if types:
            described.append_text(
                Text.assemble("  ", (symbol, colour), " ", (" | ".join(types), "default not dim"))
            )
    for name, value in _captured(declaration).items():
        described.append(f"\n{clean(name)} = {clean(value)}", style="dim")
    return described


def _captured(declaration: Declaration) -> dict[str, str]:
    fields = {
        "artifact_id": declaration.artifact_id,
        "organization_id": declaration.organization_id,
        **declaration.attributes,
    }
    return {name: _spelled(value) for name, value in fields.items() if value is not None}


def _spelled(value: object) -> str:
    """A field as the source has it, as far as that can be told."""
    if isinstance(value, Expression) or not callable(value):
        return repr(value)
    return getattr(value, "__qualname__", type(value).__qualname__).rpartition("<locals>.")[2]


def _type_or_types(declaration: Declaration, phase: Phase) -> str | list[str] | None:
    """One type by itself; what a choice can give as a list."""
    types = list(declaration.types(phase))
    return types if len(types) > 1 else next(iter(types), None)


def _plain(point: Point) -> dict[str, Any]:
    return {
        "point": point.path,
        "file": point.file,
        "line": point.line,
        "kind": point.kind,
        "span": point.span,
        "declarations": [
            {
                "mode": declaration.mode,
                "start": _type_or_types(declaration, "start"),
                "success": list(declaration.types("success")),
                "failure": _type_or_types(declaration, "failure"),
                "fields": _captured(declaration),
            }
            for declaration in point.declarations
        ],
    }
