"""Where the source of a module is, found as an import finds it, but nothing is run."""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any


def find(name: str) -> ModuleSpec | None:
    """What an import of a module would find; None where there is none.

    `importlib.util.find_spec` would import the packages above it.
    """
    top, *rest = name.split(".")
    spec = _at_the_top(top)
    for part in rest:
        if spec is None:
            return None
        spec = _inside(f"{spec.name}.{part}", folders(spec))
    return spec


def _at_the_top(name: str) -> ModuleSpec | None:
    for finder in sys.meta_path:
        find_spec = getattr(finder, "find_spec", None)
        spec: ModuleSpec | None = find_spec(name, None) if find_spec is not None else None
        if spec is not None:
            return spec
    return None


def _inside(name: str, path: list[str]) -> ModuleSpec | None:
    """In the folders of a package; those without ``__init__.py`` are one package together."""
    portions: list[str] = []
    for folder in path:
        finder: Any = pkgutil.get_importer(folder)
        spec: ModuleSpec | None = None if finder is None else finder.find_spec(name)
        if spec is not None and spec.loader is not None:
            return spec
        if spec is not None:
            portions += folders(spec)
    if not portions:
        return None
    together = ModuleSpec(name, None, is_package=True)
    together.submodule_search_locations = portions
    return together


def folders(spec: ModuleSpec) -> list[str]:
    """Where the modules of a package are.

    The path of a package without ``__init__.py`` may want others imported when it is asked; its
    list of folders does not.
    """
    locations = spec.submodule_search_locations
    return list(getattr(locations, "_path", locations) or ())


def source_of(spec: ModuleSpec) -> Path | None:
    """The file with a module's Python; None for what is compiled, or has no file."""
    if not spec.has_location or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin)


def below(name: str) -> Iterator[str]:
    """A module, and for a package all that is in it but ``__main__``."""
    spec = find(name)
    if spec is None:
        return
    yield name
    for each in pkgutil.iter_modules(folders(spec), f"{name}."):
        if not each.name.endswith(".__main__"):  # its points are called otherwise when it runs
            yield from below(each.name)


def near(place: str) -> str:
    """``file:line``, from here where the file is below."""
    path = Path(place)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else place
