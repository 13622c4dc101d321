"""Names of a room that are imported when they are first asked for (PEP 562)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazily(room: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """A module's ``__getattr__`` that imports each name from its module at the first use.

    Args:
        room: the package's ``__name__``.
        modules: of each of its modules, the names that come from it, separated by spaces.

    Returns:
        What the package binds to ``__getattr__``. It raises AttributeError for all other names.
    """
    home = {name: module for module, names in modules.items() for name in names.split()}

    def find(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{room}.{home[name]}"), name)
        setattr(sys.modules[room], name, value)
        return value

    return find
