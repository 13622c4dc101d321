"""Source files of modules, found as an import finds them, without running any code."""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any


def find(name: str) -> ModuleSpec | None:
    """Find what an import of a module would find; None where there is no such module.

    `importlib.util.find_spec` is no use here, because it imports the packages above the module.
    """
    top, *rest = name.split(".")
    spec = _find_top_level(top)
    for part in rest:
        if spec is None:
            return None
        spec = _find_inside(f"{spec.name}.{part}", folders(spec))
    return spec


def _find_top_level(name: str) -> ModuleSpec | None:
    for finder in sys.meta_path:
        find_spec = getattr(finder, "find_spec", None)
        spec: ModuleSpec | None = find_spec(name, None) if find_spec is not None else None
        if spec is not None:
            return spec
    return None


def _find_inside(name: str, path: list[str]) -> ModuleSpec | None:
    """Find a module in the folders of its package; folders of a namespace package add up."""
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
    namespace = ModuleSpec(name, None, is_package=True)
    namespace.submodule_search_locations = portions
    return namespace


def folders(spec: ModuleSpec) -> list[str]:
    """Return the folders that hold the modules of a package.

    The list behind a namespace path is read, because the path itself imports the parent package
    when it is iterated.
    """
    locations = spec.submodule_search_locations
    return list(getattr(locations, "_path", locations) or ())


def is_namespace(name: str) -> bool:
    """Return whether a module is a package without ``__init__.py``."""
    spec = find(name)
    return spec is not None and spec.origin is None and bool(folders(spec))


def source_of(spec: ModuleSpec) -> Path | None:
    """Return the Python file of a module; None for a compiled module and for one without a file."""
    if not spec.has_location or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin)


def with_submodules(name: str) -> Iterator[str]:
    """Yield a module, and all modules below it except ``__main__``."""
    spec = find(name)
    if spec is None:
        return
    yield name
    for each in pkgutil.iter_modules(folders(spec), f"{name}."):
        if not each.name.endswith(".__main__"):  # its points have another path when it runs
            yield from with_submodules(each.name)


def relative_place(place: str) -> str:
    """``file:line``, relative to the current directory where the file is below it."""
    path = Path(place)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else place
