"""The map: a TOML file that lists points, with their values as expressions in text.

The file is ``sidelight.toml``, or a ``pyproject.toml`` with the table ``[tool.sidelight]``. The
reader checks everything at once; errors name the line and the remedy.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sidelight.exceptions import MapError, PointError
from sidelight.maps.declarations import MapPoint
from sidelight.record import Expectation

_HEADER: Final = re.compile(r"^\s*\[\[\s*(?:tool\.sidelight\.)?(point|expect)\s*\]\]")
_REMEDIES: Final = {
    "point": f"a point has {', '.join(sorted(MapPoint.model_fields))}",
    "expect": f"an expectation has {', '.join(Expectation.model_fields)}",
}
_UNION_TAGS: Final = frozenset({"str", "bool", "int", "float"})


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    point: list[MapPoint] = Field(default_factory=list)
    expect: list[Expectation] = Field(default_factory=list)


class Map:
    """The points of one file, in the order of the file, and what it expects."""

    def __init__(
        self,
        points: Sequence[MapPoint],
        path: Path,
        lines: Sequence[int],
        expectations: Sequence[Expectation] = (),
    ) -> None:
        self.points = tuple(points)
        self.expectations = tuple(expectations)
        self.path = path
        # Keyed by identity, because two points may be alike and expressions refuse comparison.
        self._lines = {id(point): line for point, line in zip(self.points, lines, strict=False)}

    def only(self, point: MapPoint) -> Map:
        """Return the same map with one of its points alone."""
        return Map([point], self.path, [self._lines.get(id(point), 1)])

    def place(self, point: MapPoint) -> str:
        """Return where the map declares a point: ``sidelight.toml:12``."""
        return f"{self.path}:{self._lines.get(id(point), 1)}"


def read_map(path: str | Path) -> Map:
    """Read a map.

    Raises:
        MapError: the file cannot be read or is no map; names the line and the remedy.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = getattr(error, "strerror", None) or str(error)
        raise MapError(place=path, problem=problem, remedy="name a TOML file") from error
    return parse_map(text, path)


def parse_map(text: str, path: Path) -> Map:
    """Read a map from its text; errors name ``path``.

    Raises:
        MapError: names the line and the remedy.
    """
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise MapError(place=path, problem=str(error), remedy="see https://toml.io") from error
    if path.name == "pyproject.toml":
        content = content.get("tool", {}).get("sidelight", {})
    lines = {
        table: [
            number
            for number, line in enumerate(text.splitlines(), 1)
            if (header := _HEADER.match(line)) and header[1] == table
        ]
        for table in _File.model_fields
    }
    try:
        read = _File.model_validate(content)
    except ValidationError as error:
        raise _map_error(error, text, path, lines) from error
    found = Map(read.point, path, lines["point"], read.expect)
    for point in found.points:
        try:
            point.declaration(point.qualname, lambda _: _placeholder)
        except PointError as error:
            problem, remedy = error.facts["problem"], error.facts["remedy"]
            raise MapError(place=found.place(point), problem=problem, remedy=remedy) from error
    return found


def _placeholder() -> None:
    """Stand for every function that the map calls, because reading a map imports nothing."""


def _map_error(
    error: ValidationError, text: str, path: Path, lines: Mapping[str, Sequence[int]]
) -> MapError:
    """Return the first mistake, with its line as far as the text shows it."""
    # A value may be one of several types: the longest location is the type that comes nearest.
    first = max(error.errors(include_url=False), key=lambda each: len(each["loc"]))
    where = [str(part) for part in first["loc"]]
    place, names = str(path), where
    if len(where) > 1 and where[0] in lines and where[1].isdigit():
        headers = lines[where[0]]
        begin = headers[int(where[1])] if int(where[1]) < len(headers) else 1
        names = [part for part in where[2:] if part.islower() and part.isidentifier()]
        names = [name for name in names if name not in _UNION_TAGS]
        place = f"{path}:{_line(text, begin, names)}"
    key = ".".join(names[:2]) or "the file"
    if first["type"] == "extra_forbidden":
        problem = f"{key} is not known"
        remedy = _REMEDIES.get(where[0], "write [[point]] or [[expect]]")
        if where[0] == "point" and len(names) == 1:
            remedy += "; further values belong into attributes"
    elif first["type"] == "missing":
        problem, remedy = f"{key} is missing", f"every {where[0]} needs it"
    else:
        problem, _, remedy = first["msg"].removeprefix("Value error, ").partition("; ")
        problem = problem if problem.startswith("'") else f"{key}: {problem}"
    return MapError(
        place=place,
        problem=problem,
        remedy=remedy or "`sidelight docs map` shows the form of a map",
    )


def _line(text: str, begin: int, names: Sequence[str]) -> int:
    """Return the line of a key in the point that begins at line ``begin``; else ``begin``."""
    lines = text.splitlines()
    for name in reversed(names):
        for number in range(begin + 1, len(lines) + 1):
            if _HEADER.match(lines[number - 1]):
                break
            if re.search(rf"(?:^|[\s{{,.]){re.escape(name)}\s*=", lines[number - 1]):
                return number
    return begin
