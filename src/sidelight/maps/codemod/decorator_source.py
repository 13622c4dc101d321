"""A point of a map, written as the source of a decorator."""

from __future__ import annotations

import keyword
import math
from collections.abc import Mapping
from typing import Any

import msgspec

from sidelight.maps.declarations import Call, Cases, Constant, EventType, MapPoint
from sidelight.points import OPTIONS, Expression, parts


class Refusal(Exception):  # noqa: N818  # it becomes a MapError, which adds the place
    """A point cannot be written into the code."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


class _Node(msgspec.Struct, frozen=True):
    """A call or a dict, which can be spread over several lines."""

    opening: str
    closing: str
    parts: tuple[tuple[str, _Node | str], ...]


class Names(msgspec.Struct, frozen=True):
    """The names that a decorator uses in its module.

    Attributes:
        sidelight: of each public name of sidelight, the name in the module.
        functions: of each path of a function that computes a value, its name in the module.
    """

    sidelight: Mapping[str, str]
    functions: Mapping[str, str]


def needed(point: MapPoint) -> tuple[set[str], set[str]]:
    """Return the public names of sidelight and the paths of functions that a decorator needs."""
    public, functions = {"emits"}, set()
    values = [point.artifact_id, point.organization_id, point.transaction, point.after_commit]
    for type_ in (point.success, point.start, point.failure):
        if isinstance(type_, Cases):
            public.add("choose")
            values.append(type_.choose)
    for value in (*values, *point.attributes.values()):
        if isinstance(value, Expression):
            public.add(parts(value)[0])
        elif isinstance(value, Call):
            functions.add(value.call)
    return public, functions


def check_writable(point: MapPoint) -> None:
    """Refuse an attribute that has no literal.

    Raises:
        Refusal: names the attribute.
    """
    for name, value in point.attributes.items():
        if isinstance(value, float) and math.isnan(value):
            raise Refusal(f"{name} is nan, which has no literal", "call a function for it")


def decorator(point: MapPoint, names: Names, *, width: int, indent: str) -> str:
    """Spell ``@emits(…)``, over several lines where one line is too long.

    Args:
        point: the point.
        names: the names that the decorator uses.
        width: the length of a line, in characters.
        indent: one level of indent.
    """
    return "@" + _spread(_call(point, names), width - 1, indent, "")


def _call(point: MapPoint, names: Names) -> _Node:
    given: list[tuple[str, _Node | str]] = []
    if point.success is not None:
        given.append(("", _type(point.success, names)))
    later = {"start": point.start, "failure": point.failure}
    given += [(f"{name}=", _type(each, names)) for name, each in later.items() if each is not None]
    given.append(("mode=", quoted(point.mode)))
    given += [("span=", "False")] if not point.span else []
    for name in ("artifact_id", "organization_id", "transaction", "after_commit"):
        if (value := getattr(point, name)) is not None:
            given.append((f"{name}=", _value(value, names)))
    given += [("strict=", "True")] if point.strict else []
    unnameable: list[tuple[str, _Node | str]] = []
    for name, value in point.attributes.items():
        if name.isidentifier() and not keyword.iskeyword(name) and name not in OPTIONS:
            given.append((f"{name}=", _value(value, names)))
        else:
            unnameable.append((f"{quoted(name)}: ", _value(value, names)))
    if unnameable:
        given.append(("attributes=", _Node("{", "}", tuple(unnameable))))
    return _Node(f"{names.sidelight['emits']}(", ")", tuple(given))


def _type(type_: EventType, names: Names) -> _Node | str:
    if not isinstance(type_, Cases):
        return quoted(type_)
    cases = tuple((f"{quoted(key)}: ", quoted(each)) for key, each in type_.cases.items())
    given: list[tuple[str, _Node | str]] = [("", _value(type_.choose, names))]
    given.append(("", _Node("{", "}", cases)))
    if type_.otherwise is not None:
        given.append(("otherwise=", quoted(type_.otherwise)))
    return _Node(f"{names.sidelight['choose']}(", ")", tuple(given))


def _value(value: Any, names: Names) -> str:
    if isinstance(value, Expression):
        root, steps = parts(value)
        return names.sidelight[root] + "".join(
            f".{key}" if kind == "attribute" else f"[{quoted(key)}]" for kind, key in steps
        )
    if isinstance(value, Call):
        return names.functions[value.call]
    if isinstance(value, float) and math.isinf(value):
        return "1e999" if value > 0 else "-1e999"  # reads as infinity
    return quoted(value.value if isinstance(value, Constant) else value)


def quoted(value: object) -> str:
    """Return a constant; a text gets the quotes that formatters prefer."""
    source = repr(value)
    if isinstance(value, str) and source.startswith("'") and '"' not in value:
        return f'"{source[1:-1]}"'
    return source


def _line(node: _Node | str) -> str:
    if isinstance(node, str):
        return node
    return node.opening + ", ".join(f"{k}{_line(v)}" for k, v in node.parts) + node.closing


def _spread(node: _Node | str, width: int, indent: str, before: str) -> str:
    """Return a node behind ``before``.

    A node that is too long gets a line for each of its parts.
    """
    line = _line(node)
    if isinstance(node, str) or len(before) + len(line) <= width or not node.parts:
        return line
    inner = width - len(indent.expandtabs())
    parts_ = [
        indent + (key + _spread(value, inner - 1, indent, key)).replace("\n", f"\n{indent}")
        for key, value in node.parts
    ]
    return node.opening + "\n" + "".join(f"{part},\n" for part in parts_) + node.closing
