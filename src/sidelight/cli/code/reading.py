"""The two ways to read code: from its source, and by importing it."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from sidelight.cli.output import complain, stdout_kept_clean
from sidelight.maps import Codebase, Reading, listed_point, read_points
from sidelight.points import POINTS
from sidelight.settings import disabled

Modules: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(metavar="MODULE", help="Modules or packages, submodules included."),
]


def missing_modules(command: str) -> typer.Exit:
    """Print that a command needs modules; returns the exit."""
    complain(f"name a module: sidelight {command} MODULE… (as your program imports it)")
    return typer.Exit(2)


def search_current_directory(*, source: bool = False) -> None:
    """Let imports find modules in the current directory, as ``python -m`` does.

    Args:
        source: search ``src`` as well, which holds the packages of many projects.
    """
    here = Path.cwd()
    for folder in (here, here / "src") if source else (here,):
        if not any(Path(entry or ".").absolute() == folder for entry in sys.path):
            sys.path.insert(0, str(folder))


def read_source(modules: Sequence[str], code: Codebase | None = None) -> Reading:
    """Read the source of modules and packages without running it.

    Args:
        modules: the modules and packages.
        code: a code base that has read some of them already.
    """
    search_current_directory(source=True)
    files = [name for name in modules if _is_file(name)]
    names = [name for name in modules if name not in files]
    code = code or Codebase(name.partition(".")[0] for name in names)
    reading = read_points(code, names)
    reading.problems += map(_file_problem, files)
    return reading


def read_by_import(modules: Sequence[str]) -> Reading:
    """Import modules and packages, and list the points that they have registered."""
    if disabled():
        return Reading(
            problems=["SIDELIGHT_DISABLED is set, so the decorators register no points; unset it"]
        )
    with stdout_kept_clean():
        problems = import_all(modules)
    inside = tuple(f"{name}." for name in modules)
    found = [point for point in POINTS if f"{point.module}.".startswith(inside)]
    found.sort(key=lambda point: (point.file or "", point.line or 0))
    return Reading(points=[listed_point(point) for point in found], problems=problems)


def import_all(names: Sequence[str]) -> list[str]:
    """Import modules and all modules below them except ``__main__``; answers the problems."""
    search_current_directory()
    problems: list[str] = []
    for name in names:
        if _is_file(name):
            problems.append(_file_problem(name))
            continue
        module = _imported(name, problems)
        for below in _submodules(module, name, problems) if module is not None else ():
            _imported(below, problems)
    return problems


def _submodules(package: Any, name: str, problems: list[str]) -> Iterator[str]:
    for found in pkgutil.iter_modules(getattr(package, "__path__", ()), f"{name}."):
        if found.name.endswith(".__main__"):
            continue  # importing it runs the program
        yield found.name
        if found.ispkg and (module := _imported(found.name, problems)) is not None:
            yield from _submodules(module, found.name, problems)


def _imported(name: str, problems: list[str]) -> Any | None:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        problem = f"cannot import {name}: {type(error).__name__}: {error}"
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            problem = (
                f"cannot import {name}: there is no module {error.name}; name it as in an import"
                " statement, where this directory or the installed packages have it"
            )
    except (Exception, SystemExit) as error:  # noqa: BLE001  # the module may raise anything
        problem = f"cannot import {name}: {type(error).__name__}: {error}"
    if problem not in problems:
        problems.append(problem)
    return None


def _is_file(name: str) -> bool:
    """Return whether a file is given where a module is needed."""
    return name.endswith(".py") or os.sep in name


def _file_problem(name: str) -> str:
    return f"{name} is a file; name the module, as in an import statement"
