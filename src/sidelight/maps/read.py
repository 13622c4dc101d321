"""The map: a TOML file that lists points, with their fields as expressions in text.

``sidelight.toml``, or the table ``[tool.sidelight]`` of a ``pyproject.toml``. Everything is checked
when it is read; errors name the line and the remedy.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from sidelight.exceptions import MapError, PointError
from sidelight.points import ROOTS, Choice, Declaration, Expression, choose, declare
from sidelight.record import Mode

_PATH: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_HEADER: Final = re.compile(r"^\s*\[\[\s*(?:tool\.sidelight\.)?point\s*\]\]")


class Call(BaseModel):
    """A value that a function of yours computes: ``{ call = "package.module:function" }``.

    Its parameters are named after the point's, or ``result``, or ``error``, as a callable's in the
    decorator.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    call: str

    @field_validator("call")
    @classmethod
    def _checked(cls, path: str) -> str:
        return _path(path)


class Constant(BaseModel):
    """A text that is meant as it stands: ``{ value = "eu" }``."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    value: str


def _expression_or_choice(value: Any) -> Any:
    """Texts are expressions."""
    return parse(value) if isinstance(value, str) else value


FieldValue: TypeAlias = Annotated[
    Expression | Call | Constant | bool | int | float,
    BeforeValidator(_expression_or_choice),
]


class Cases(BaseModel):
    """An event type that depends on a value of the call: `sidelight.choose` in text."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)
    choose: FieldValue
    cases: dict[str, str]
    otherwise: str | None = None


class MappedPoint(BaseModel):
    """One ``[[point]]``: a function's path, and what the decorator would be given."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    function: str
    success: str | Cases | None = None
    start: str | Cases | None = None
    failure: str | Cases | None = None
    mode: Mode = "scheduled"
    span: bool = True
    strict: bool = False
    artifact_id: FieldValue | None = None
    organization_id: FieldValue | None = None
    transaction: FieldValue | None = None
    after_commit: FieldValue | None = None
    attributes: dict[str, FieldValue] = Field(default_factory=dict)

    @field_validator("function")
    @classmethod
    def _checked(cls, path: str) -> str:
        return _path(path)

    @property
    def module(self) -> str:
        """The module that the function is in."""
        return self.function.partition(":")[0]

    @property
    def qualname(self) -> str:
        """Its name there: ``Class.method``."""
        return self.function.partition(":")[2]

    def declaration(self, resolve: Callable[[str], Any]) -> Declaration:
        """What the decorator would have made of it.

        Args:
            resolve: finds the function of a path, for ``{ call = … }``.

        Raises:
            PointError: it is refused, as the decorator would.
        """
        fields = {
            "artifact_id": self.artifact_id,
            "organization_id": self.organization_id,
            **self.attributes,
        }
        return declare(
            self.qualname,
            _type(self.success, resolve),
            _type(self.start, resolve),
            _type(self.failure, resolve),
            self.mode,
            {name: _value(v, resolve) for name, v in fields.items() if v is not None},
            span=self.span,
            transaction=_value(self.transaction, resolve),
            after_commit=_value(self.after_commit, resolve),
            strict=self.strict,
        )


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    point: list[MappedPoint] = Field(default_factory=list)


class Map:
    """The points of one file, in its order."""

    def __init__(self, points: Sequence[MappedPoint], path: Path, lines: Sequence[int]) -> None:
        self.points = tuple(points)
        self.path = path
        # By identity: points may be alike, and expressions are not compared.
        self._lines = {id(point): line for point, line in zip(self.points, lines, strict=False)}

    def place(self, point: MappedPoint) -> str:
        """Where a point is declared: ``sidelight.toml:12``."""
        return f"{self.path}:{self._lines.get(id(point), 1)}"


def read_map(path: str | Path) -> Map:
    """Read a map.

    Raises:
        MapError: it cannot be read, or not be understood; names the line and the remedy.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = getattr(error, "strerror", None) or str(error)
        raise MapError(place=path, problem=problem, remedy="name a TOML file") from error
    return parse_map(text, path)


def parse_map(text: str, path: Path) -> Map:
    """Understand a map's text; ``path`` is what errors call it.

    Raises:
        MapError: names the line and the remedy.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise MapError(place=path, problem=str(error), remedy="see https://toml.io") from error
    if path.name == "pyproject.toml":
        content = content.get("tool", {}).get("sidelight", {})
    lines = _headers(text)
    try:
        points = _File.model_validate(content).point
    except ValidationError as error:
        raise _error(error, text, path, lines) from error
    found = Map(points, path, lines)
    for point in points:
        try:
            point.declaration(lambda _: _stand_in)
        except PointError as error:
            problem, remedy = error.facts["problem"], error.facts["remedy"]
            raise MapError(place=found.place(point), problem=problem, remedy=remedy) from error
    return found


def parse(text: str) -> Expression:
    """``arg.audio.seconds``, ``result[0].id``, ``error.code`` as an expression.

    Raises:
        ValueError: it is none; says what to write.
    """

    def refuse() -> NoReturn:
        raise ValueError(
            f'{text!r} is no expression; write arg.NAME, result or error, and .name or ["key"] or'
            f' [0] behind it; for a text as it stands {{ value = "{text}" }}'
        )

    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError):
        refuse()
    steps: list[tuple[str, Any]] = []
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Attribute):
            steps.append(("attribute", node.attr))
        elif isinstance(node, ast.Subscript):
            try:
                key = ast.literal_eval(node.slice)
            except ValueError:
                refuse()
            if not isinstance(key, str | int):
                refuse()
            steps.append(("item", key))
        else:
            refuse()
        node = node.value
    if node.id not in ROOTS:
        refuse()
    return Expression(node.id, tuple(reversed(steps)))


def _path(path: str) -> str:
    if not _PATH.fullmatch(path):
        raise ValueError(f"{path!r} is no path; write package.module:Class.method")
    return path


def _stand_in() -> None:
    """Stands for a function while the map is checked and nothing is imported."""


def _value(value: Any, resolve: Callable[[str], Any]) -> Any:
    if isinstance(value, Call):
        return resolve(value.call)
    return value.value if isinstance(value, Constant) else value


def _type(value: str | Cases | None, resolve: Callable[[str], Any]) -> str | Choice | None:
    if isinstance(value, Cases):
        return choose(_value(value.choose, resolve), value.cases, otherwise=value.otherwise)
    return value


def _headers(text: str) -> list[int]:
    """The lines on which the points begin."""
    numbered = enumerate(text.splitlines(), 1)
    return [number for number, line in numbered if _HEADER.match(line)]


def _error(error: ValidationError, text: str, path: Path, headers: Sequence[int]) -> MapError:
    """The first thing that is wrong, with its line as far as it can be found."""
    # Of what a value may be, that which it comes nearest to.
    first = max(error.errors(include_url=False), key=lambda each: len(each["loc"]))
    where = [str(part) for part in first["loc"]]
    place, names = str(path), where
    if len(where) > 1 and where[0] == "point" and where[1].isdigit():
        begin = headers[int(where[1])] if int(where[1]) < len(headers) else 1
        names = [part for part in where[2:] if part.islower() and not part.startswith("function-")]
        place = f"{path}:{_line(text, begin, names)}"
    what = ".".join(names[:2]) or "the file"
    if first["type"] == "extra_forbidden":
        known = sorted(MappedPoint.model_fields)
        problem = f"{what} is not known"
        remedy = f"a point has {', '.join(known)}" if where[0] == "point" else "write [[point]]"
        if len(names) == 1:
            remedy += "; further values belong into attributes"
    elif first["type"] == "missing":
        problem, remedy = f"{what} is missing", "every point needs it"
    else:
        problem, _, remedy = first["msg"].removeprefix("Value error, ").partition("; ")
        problem = problem if problem.startswith("'") else f"{what}: {problem}"
    return MapError(place=place, problem=problem, remedy=remedy or "see docs/reference/map.md")


def _line(text: str, begin: int, names: Sequence[str]) -> int:
    """The line of a key in the point that begins at line ``begin``; that one where it is hidden."""
    lines = text.splitlines()
    for name in reversed(names):
        for number in range(begin + 1, len(lines) + 1):
            if _HEADER.match(lines[number - 1]):
                break
            if re.search(rf"(?:^|[\s{{,.]){re.escape(name)}\s*=", lines[number - 1]):
                return number
    return begin
