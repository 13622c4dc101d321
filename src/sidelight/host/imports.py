"""Imports that wait for the first use, because a library is slow to import."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any


def lazily(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Make a package's ``__getattr__`` that imports each name at its first use (PEP 562).

    Args:
        package: the package's ``__name__``.
        modules: the names that come from each of its modules, separated by spaces.

    Returns:
        The function that the package binds to ``__getattr__``. It raises AttributeError for any
        other name.
    """
    home = {name: module for module, names in modules.items() for name in names.split()}

    def find(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{package}.{home[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return find


def imported(module: str) -> ModuleType | None:
    """Find a module that the program has imported; None where it has not.

    A library that is not imported cannot be in use, and importing it on the caller's path would
    take too long.
    """
    return sys.modules.get(module)
