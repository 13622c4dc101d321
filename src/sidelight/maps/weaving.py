"""`weave`: wrap the functions that a map names, without a change of their code.

A module that is imported already is woven at once, every other module right after its import.
Names that further modules have bound by ``from … import`` are replaced as well.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import FunctionType, ModuleType, TracebackType
from typing import Any, Final, NamedTuple, Self

import wrapt

from sidelight.emission import EMITTER
from sidelight.exceptions import MapError, PointError, told_at_the_caller
from sidelight.host import log_warning
from sidelight.maps.declarations import MapPoint
from sidelight.maps.private_names import attribute, nearest, resolved, source_path
from sidelight.maps.reader import Map, read_map
from sidelight.points import (
    POINTS,
    Declaration,
    Point,
    instrument,
    instrumentation_of,
    path_of,
)
from sidelight.settings import disabled, is_on

_ABSENT: Final = object()


class _Change(NamedTuple):
    """A name that was bound to another object before."""

    owner: Any
    name: str
    before: Any


class Weaving:
    """The wrappers of one map; `unweave`, or the end of a ``with``, removes them.

    Attributes:
        skipped: in lenient mode, the error of each point that did not fit.
    """

    def __init__(self, points: Map, *, lenient: bool = False) -> None:
        self.skipped: list[MapError] = []
        self._map = points
        self._lenient = lenient
        self._active = True
        self._changes: list[_Change] = []
        self._woven: dict[str, None] = {}
        self._replaced_points: dict[str, tuple[Point, ...]] = {}
        self._waiting = list(points.points)

    @property
    def woven(self) -> Sequence[str]:
        """The paths of the functions that are woven; the others wait for their modules."""
        return tuple(self._woven)

    def _begin(self) -> None:
        for name in dict.fromkeys(n for p in self._map.points for n in _with_packages(p.module)):
            wrapt.register_post_import_hook(partial(self._imported, name), name)
        atexit.register(self._tell_waiting)

    @told_at_the_caller
    def _imported(self, name: str, module: Any) -> None:
        """Weave the points of a module that has just been imported, and of those that it brought.

        A package may put a module into `sys.modules` by hand, which runs no hook. A module may have
        another ``__name__`` than its key there (``os.path``), or have put another object there.
        """
        if not self._active:
            return
        for point in self._waiting.copy():
            if point.module == name:
                module = sys.modules.get(name, module)
            elif point.module.startswith(f"{name}."):
                module = _present(point.module)
            else:
                continue
            if module is None:
                continue
            # Not `list.remove`, because it compares points, and expressions refuse comparison.
            self._waiting = [each for each in self._waiting if each is not point]
            try:
                self._weave(module, point)
            except MapError as error:
                if not self._lenient:
                    raise
                self._skip(error)

    def _tell_waiting(self) -> None:
        """Count and log, at exit, the points whose module came without an import."""
        for point in self._waiting if self._active else ():
            if _present(point.module) is not None:
                self._skip(self.missed(point))

    def missed(self, point: MapPoint) -> MapError:
        """Return the error of a point whose module came without an import."""
        found = getattr(getattr(_present(point.module), point.qualname, None), "__module__", None)
        instead = f", or name {found}:{point.qualname}" if isinstance(found, str) else ""
        return MapError(
            place=self._map.place(point),
            problem=f"{point.function} is not woven: no import brings {point.module}, because a"
            " program puts it into sys.modules",
            remedy=f"call sidelight.weave after that{instead}",
        )

    def _skip(self, error: MapError) -> None:
        """Count and log a point that does not fit, and go on without it."""
        self.skipped.append(error)
        EMITTER.count("point not woven", str(error))
        log_warning("not instrumented: %s", error)

    def _weave(self, module: ModuleType, point: MapPoint) -> None:
        owner, name = _owner(module, point, self._map.place(point))
        before = getattr(owner, "__dict__", {}).get(name, _ABSENT)
        if before is _ABSENT:  # an inherited method: only this class gets a wrapper
            before = getattr(owner, name)
        path = path_of(before)  # not always the map's, because a function may have several names
        previous = POINTS.all(path)
        try:
            declaration = point.declaration(point.qualname, _resolved)
            emits_already = _emits_already(before, source_path(point.function), declaration)
            if not emits_already:
                self._replace(owner, name, instrument(before, (declaration,)))
        except PointError as error:
            POINTS.restore(path, previous)
            raise self._refusal(point, error) from error
        self._woven[point.function] = None
        self._replaced_points.setdefault(path, previous)
        if isinstance(owner, ModuleType) and not emits_already:
            self._replace_copies(before, getattr(owner, name))

    def _replace(self, owner: Any, name: str, value: Any) -> None:
        held = getattr(owner, "__dict__", {}).get(name, _ABSENT)
        self._changes.append(_Change(owner, name, held))
        try:
            setattr(owner, name, value)
        except (TypeError, AttributeError) as error:
            self._changes.pop()
            raise PointError(
                function=name,
                problem=f"it cannot be replaced: {error}",
                remedy="name a function that Python code can assign to",
            ) from error

    def _replace_copies(self, before: Any, after: Any) -> None:
        """Replace the function in modules that have imported it by name."""
        for path, module in list(sys.modules.items()):
            if type(module) is not ModuleType or path.partition(".")[0] == "sidelight":
                continue  # reading a lazy module would load it; sidelight's own names stay
            for name, value in list(vars(module).items()):
                if value is before and not name.startswith("__"):
                    self._replace(module, name, after)

    def _refusal(self, point: MapPoint, error: PointError) -> MapError:
        problem = error.facts.get("problem") or str(error)
        remedy = error.facts.get("remedy") or "`sidelight docs map` shows the form of a map"
        return MapError(
            place=self._map.place(point), problem=f"{point.function}: {problem}", remedy=remedy
        )

    def unweave(self) -> None:
        """Put the originals back; modules that are imported later are not woven."""
        self._active = False
        atexit.unregister(self._tell_waiting)
        while self._changes:
            owner, name, before = self._changes.pop()
            if before is _ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, before)
        for path, points in self._replaced_points.items():
            POINTS.restore(path, points)
        self._replaced_points.clear()
        self._woven.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.unweave()


@told_at_the_caller
def weave(source: str | Path | Map, *, lenient: bool = False) -> Weaving:
    """Wrap the functions that a map names, without a change of their code.

    A function that emits the same events already, by a decorator or another map, stays as it is.
    With ``SIDELIGHT_DISABLED=1`` nothing is woven.

    Args:
        source: a map file (``sidelight.toml``, ``pyproject.toml``), or a map that was read.
        lenient: skip a point that does not fit its module, instead of raising. The skipped point is
            logged, and counted as the loss "point not woven".

    Returns:
        The weaving, which can be undone.

    Raises:
        MapError: the map cannot be read, or does not fit an imported module. For a module that is
            imported later, the import raises it.
    """
    points = source if isinstance(source, Map) else read_map(source)
    weaving = Weaving(points, lenient=lenient)
    if not disabled():
        try:
            weaving._begin()  # noqa: SLF001
        except BaseException:
            weaving.unweave()
            raise
    return weaving


def weaving_errors(points: Map) -> Iterator[tuple[MapPoint, MapError]]:
    """Weave each point alone, and unweave it at once; the modules must be imported already."""
    for point in points.points:
        try:
            with weave(points.only(point)) as weaving:
                if not (weaving.woven or disabled()):
                    yield point, weaving.missed(point)
        except MapError as error:
            yield point, error


def _with_packages(module: str) -> Iterator[str]:
    """Yield a module, and the packages above it."""
    yield module
    while module := module.rpartition(".")[0]:
        yield module


def _present(name: str) -> Any:
    """Return what `sys.modules` holds by a name; None where it is absent or not imported whole."""
    found = sys.modules.get(name)
    return None if getattr(getattr(found, "__spec__", None), "_initializing", False) else found


def _owner(module: ModuleType, point: MapPoint, place: str) -> tuple[Any, str]:
    """Find the module or class that holds the function, and the function's name in it.

    Raises:
        MapError: the function is not there.
    """
    owner: Any = None
    found: Any = module
    name = ""
    for part in point.qualname.split("."):
        owner, name = found, attribute(found, part)
        found = getattr(owner, name, _ABSENT)
        if found is _ABSENT:
            close = nearest(part, dir(owner), owner.__name__ if isinstance(owner, type) else "")
            raise MapError(
                place=place,
                problem=f"{point.function} is not there",
                remedy=f"did you mean {close}?" if close else "name its successor",
            )
    return owner, name


def _emits_already(found: Any, path: str, declaration: Declaration) -> bool:
    """Return whether the object at a path has a wrapper that emits all that a declaration asks for.

    A property, a command or a task hides the wrapper inside it: the registry knows its path.
    """
    function = getattr(found, "__func__", found)
    instrumentation = instrumentation_of(function)
    points: tuple[Point, ...] = () if instrumentation is None else (instrumentation.point,)
    if not points and not isinstance(function, FunctionType):
        points = POINTS.all(path)
    declarations = (each for point in points for each in point.declarations)
    emitted = frozenset[Any]().union(*(each.emitted for each in declarations))
    return declaration.emitted <= emitted


def _resolved(path: str) -> Any:
    """Import the function of ``{ call = … }``.

    Raises:
        PointError: it cannot be imported.
    """
    try:
        return resolved(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise PointError(
            function=path, problem=f"it cannot be called: {error}", remedy="name a function"
        ) from error


def bootstrap(path: str) -> None:
    """Weave at the start of an interpreter (see `sidelight run`); errors go to stderr."""
    try:
        weave(path, lenient=is_on("SIDELIGHT_MAP_LENIENT", os.environ))
    except Exception as error:  # noqa: BLE001  # the program runs without the map
        sys.stderr.write(f"sidelight: not instrumented: {error}\n")
