"""What importing some code shows: `sidelight points --import`, `sidelight catalogue`."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


def look_here(*, source: bool = False) -> None:
    """Find modules in the current directory, as ``python -m`` does.

    Args:
        source: also in its ``src``, where many keep what they install.
    """
    here = Path.cwd()
    for folder in (here, here / "src") if source else (here,):
        if not any(Path(entry or ".").absolute() == folder for entry in sys.path):
            sys.path.insert(0, str(folder))


def import_all(names: Sequence[str]) -> list[str]:
    """Import modules and everything below them but ``__main__``; answers what went wrong."""
    look_here()
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
    if is_file(name):
        problems.append(f"{name} is a file; name the module, as in an import statement")
        return None
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # noqa: BLE001  # a stranger's module
        problem = f"cannot import {name}: {type(error).__name__}: {error}"
        if problem not in problems:
            problems.append(problem)
        return None


def is_file(name: str) -> bool:
    """Whether somebody has given a file where a module is asked for."""
    return name.endswith(".py") or os.sep in name
