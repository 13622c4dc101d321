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
from sidelight.maps.declarations import PHASES, Call, Cases, Constant, MapPoint
from sidelight.record import Expectation, alike

_HEADER: Final = re.compile(r"^\s*\[\[\s*(?:tool\.sidelight\.)?(point|expect)\s*\]\]")
_KEYS: Final = {
    "point": ("a point", sorted(MapPoint.model_fields)),
    "expect": ("an expectation", list(Expectation.model_fields)),
    "choice": ("a choice", list(Cases.model_fields)),
    "value": ("a value", [*Call.model_fields, *Constant.model_fields]),
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
    # A key that no type knows may be the one that is missing, misspelt.
    first = max(
        error.errors(include_url=False),
        key=lambda each: (len(each["loc"]), _is_misspelt(each["type"], [*map(str, each["loc"])])),
    )
    where = [str(part) for part in first["loc"]]
    place, names = str(path), where
    if len(where) > 1 and where[0] in lines and where[1].isdigit():
        headers = lines[where[0]]
        begin = headers[int(where[1])] if int(where[1]) < len(headers) else 1
        names = _names(where)
        place = f"{path}:{_line(text, begin, names)}"
    key = ".".join(names[:2]) or "the file"
    if first["type"] == "extra_forbidden":
        problem = f"{'.'.join(names)} is not known"
        remedy = "write [[point]] or [[expect]]"
        if place != str(path):
            what, known = _keys(where[0], names)
            if names[-1] in known:
                problem = f"{'.'.join(names)} is one key too many"
            remedy = _remedy(names[-1], what, known)
    elif first["type"] == "missing":
        problem = f"{key} is missing"
        remedy = f"every {where[0]} needs it" if len(names) == 1 else "add it"
    else:
        problem, _, remedy = first["msg"].removeprefix("Value error, ").partition("; ")
        problem = problem if problem.startswith("'") else f"{key}: {problem}"
    return MapError(
        place=place,
        problem=problem,
        remedy=remedy or "`sidelight docs map` shows the form of a map",
    )


def _names(where: Sequence[str]) -> list[str]:
    """Return the keys of a location, from its table on; pydantic names types in between."""
    names = [part for part in where[2:] if part.islower() and part.isidentifier()]
    return [name for name in names if name not in _UNION_TAGS]


def _keys(table: str, names: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Return what has the key to which ``names`` lead, in words, and the keys that it may have.

    Args:
        table: ``point`` or ``expect``.
        names: the keys from the table on.
    """
    is_choice = len(names) > 1 and names[-2] in PHASES
    return _KEYS[table if len(names) == 1 else "choice" if is_choice else "value"]


def _is_misspelt(problem: str, where: Sequence[str]) -> bool:
    """Return whether pydantic's problem is a key that no type of the value has."""
    if problem != "extra_forbidden" or where[0] not in _KEYS:
        return False
    names = _names(where)
    return bool(names) and names[-1] not in _keys(where[0], names)[1]


def _remedy(name: str, what: str, known: Sequence[str]) -> str:
    """Return what helps against a key that is not known."""
    if name in known:
        return f"{what} has one of {', '.join(known)}"
    further = "further values belong into attributes"
    if close := alike(name, known):
        hint = f"did you mean {close}?"
        return f"{hint} If not, {further}" if what == "a point" else hint
    has = f"{what} has {', '.join(known)}"
    return f"{has}; {further}" if what == "a point" else has


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
