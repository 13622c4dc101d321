"""Imports that wait for the first use, because a library is slow to import."""

from __future__ import annotations

import importlib
import sys
from _thread import get_ident
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final


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


_loads: Final[list[Callable[[], object]]] = []


def at_first_use(load: Callable[[], object]) -> None:
    """Have ``load`` called before the first point is made, and before the first direct emission.

    An import may take longer than the caller's 10 ms, so a call is too late for it. And a process
    that imports sidelight may neither decorate nor emit anything.

    Args:
        load: imports what they need of rooms that they cannot know. It may be called more than
            once, and by several threads.
    """
    _loads.append(load)


def begin_use() -> None:
    """Load what points need; a module that makes points, or emits, calls this at its import."""
    for load in _loads:
        load()


def imported(module: str) -> ModuleType | None:
    """Find a module that the program has imported; None where it has not.

    A library that is not imported cannot be in use, and importing it on the caller's path would
    take too long. While another thread is importing it, it lacks names.
    """
    found = sys.modules.get(module)
    return None if getattr(getattr(found, "__spec__", None), "_initializing", False) else found


def when_imported(module: str, do: Callable[[], object]) -> None:
    """Call ``do`` now, or as soon as the program has imported a module.

    Args:
        module: its name; the latest call for it replaces earlier ones.
        do: must not raise.
    """
    if module in sys.modules:
        importlib.import_module(module)  # another thread may be importing it
        do()
    else:
        for each in sys.meta_path[:]:
            if isinstance(each, _Finder) and each.name == module:
                each.take_out()
        finder: Any = _Finder(module, do)
        sys.meta_path.insert(0, finder)
        if module in sys.modules:  # another thread has begun to import it meanwhile
            importlib.import_module(module)
            finder.end()


class _Finder:
    """Finds one module as the other finders do, and has a function called after its import."""

    def __init__(self, name: str, do: Callable[[], object]) -> None:
        self.name, self._do = name, do
        self._asking: set[int] = set()  # threads; another finder may ask all finders in its turn

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        thread = get_ident()
        if fullname != self.name or thread in self._asking:
            return None
        self._asking.add(thread)
        try:
            for finder in sys.meta_path:
                find = getattr(finder, "find_spec", None)
                spec: ModuleSpec | None = None if find is None else find(fullname, path, target)
                if spec is not None:
                    wrapped: Any = _Loader(spec.loader, self.end)
                    spec.loader = wrapped
                    return spec
            return None
        finally:
            self._asking.discard(thread)

    def take_out(self) -> bool:
        """Take the finder out; return False where it was out, perhaps by another thread."""
        finder: Any = self
        try:
            sys.meta_path.remove(finder)
        except ValueError:
            return False
        return True

    def end(self) -> None:
        """Call the function, unless that is done or another call has replaced this one."""
        if self.take_out():
            self._do()


class _Loader:
    """Loads a module by its own loader, and leaves no trace in it."""

    def __init__(self, loader: Any, loaded: Callable[[], object]) -> None:
        self._loader, self._loaded = loader, loaded

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._loaded()
