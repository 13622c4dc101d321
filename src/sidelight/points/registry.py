"""The points of this process."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from sidelight.points.declaration import Declaration


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
    """The points of this process, in the order in which they were decorated."""

    def __init__(self) -> None:
        self._points: dict[str, Point] = {}

    def add(self, point: Point) -> None:
        """Enter a point; the same function decorated again replaces its point."""
        self._points[point.path] = point

    def restore(self, path: str, point: Point | None) -> None:
        """Put back the point that a path had; None takes the path out."""
        if point is None:
            self._points.pop(path, None)
        else:
            self._points[path] = point

    def get(self, path: str) -> Point | None:
        """The point of a path."""
        return self._points.get(path)

    def __iter__(self) -> Iterator[Point]:
        return iter(tuple(self._points.values()))

    def __len__(self) -> int:
        return len(self._points)


POINTS = Registry()
