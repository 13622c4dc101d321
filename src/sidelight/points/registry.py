"""The points of this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from sidelight.points.declaration import Declaration

_MOST_PER_PATH: Final = 64  # a factory that makes an event type per call must not grow for ever


class Point(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A function with its instrumentation."""

    module: str
    qualname: str
    kind: str
    file: str | None
    line: int | None
    declarations: tuple[Declaration, ...]

    @property
    def path(self) -> str:
        """``package.module:Class.method``."""
        return f"{self.module}:{self.qualname}"

    @property
    def name(self) -> str:
        """The function's name in errors: with the class that it is in."""
        return self.qualname.rpartition("<locals>.")[2]

    @property
    def function(self) -> str:
        """The function's own name."""
        return self.qualname.rpartition(".")[2]

    @property
    def span(self) -> bool:
        """Whether a call of the function makes a span."""
        return any(declaration.span for declaration in self.declarations)


class Registry:
    """The points of this process.

    Several functions may have one path: the getter and the setter of a property, the functions
    ``_`` of a ``singledispatch``, and those that a factory makes with different events.
    """

    def __init__(self) -> None:
        self._points: dict[str, dict[object, Point]] = {}

    def add(self, point: Point, replacing: Point | None = None) -> None:
        """Enter a point in the place of ``replacing``, and of the same function with its events."""
        if replacing is not None and (same := self._points.get(replacing.path)):
            same.pop(_identity(replacing), None)
        same = self._points.setdefault(point.path, {})
        same.pop(_identity(point), None)
        same[_identity(point)] = point
        if len(same) > _MOST_PER_PATH:
            same.pop(next(iter(same)), None)

    def restore(self, path: str, points: Iterable[Point]) -> None:
        """Put back the points that a path had; none takes the path out."""
        restored = {_identity(point): point for point in points}
        if restored:
            self._points[path] = restored
        else:
            self._points.pop(path, None)

    def get(self, path: str) -> Point | None:
        """Return the point of a path that was entered last."""
        return next(reversed(self.all(path)), None)

    def all(self, path: str) -> tuple[Point, ...]:
        """Return every point of a path."""
        return tuple(self._points.get(path, {}).values())

    def __iter__(self) -> Iterator[Point]:
        for same in tuple(self._points.values()):
            yield from tuple(same.values())

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _identity(point: Point) -> object:
    """Equal for a function that is decorated again with the same events."""
    emitted = frozenset[object]().union(*(each.emitted for each in point.declarations))
    return point.file, point.line, emitted


POINTS = Registry()
