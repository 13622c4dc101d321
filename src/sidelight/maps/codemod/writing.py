"""A point of a map, spelled as a decorator."""

from __future__ import annotations

import keyword
import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from sidelight.maps.codemod.refusal import Refusal
from sidelight.maps.read import Call, Cases, Constant, MappedPoint
from sidelight.points import Expression, parts

_OPTIONS: Final = frozenset({"start", "failure", "mode", "span", "strict"})


class _Node(msgspec.Struct, frozen=True):
    """A call or a dict: what can be spread over lines."""

    opening: str
    closing: str
    parts: tuple[tuple[str, _Node | str], ...]


class Names(msgspec.Struct, frozen=True):
    """How things are called in the module that is written into.

    Attributes:
        ours: "emits", "arg" and the like.
        functions: the functions that compute values, by their paths.
    """

    ours: Mapping[str, str]
    functions: Mapping[str, str]


def needed(point: MappedPoint) -> tuple[set[str], set[str]]:
    """The names of sidelight's, and the paths of functions, that a point's decorator needs."""
    ours, functions = {"emits"}, set()
    values = [point.artifact_id, point.organization_id, point.transaction, point.after_commit]
    for type_ in (point.success, point.start, point.failure):
        if isinstance(type_, Cases):
            ours.add("choose")
            values.append(type_.choose)
    for value in (*values, *point.attributes.values()):
        if isinstance(value, Expression):
            ours.add(parts(value)[0])
        elif isinstance(value, Call):
            functions.add(value.call)
    return ours, functions


def check_writable(point: MappedPoint) -> None:
    """Refuse what a decorator would take for something else, or has no literal for.

    Raises:
        Refusal: names the attribute.
    """
    for name, value in point.attributes.items():
        if name in _OPTIONS:
            problem = f"as an attribute, {name}= would be an option of the decorator's"
            raise Refusal(problem, "call it something else")
        if isinstance(value, float) and math.isnan(value):
            raise Refusal(f"{name} is nan, which has no literal", "call a function for it")


def decorator(point: MappedPoint, names: Names, *, width: int, indent: str) -> str:
    """``@emits(…)``, over several lines where one is not wide enough.

    Args:
        point: the point.
        names: how things are called there.
        width: characters that there are for a line.
        indent: one level of it.
    """
    return "@" + _spread(_call(point, names), width - 1, indent, "")


def _call(point: MappedPoint, names: Names) -> _Node:
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
    odd: list[tuple[str, _Node | str]] = []
    for name, value in point.attributes.items():
        if name.isidentifier() and not keyword.iskeyword(name):
            given.append((f"{name}=", _value(value, names)))
        else:
            odd.append((f"{quoted(name)}: ", _value(value, names)))
    if odd:
        given.append(("**", _Node("{", "}", tuple(odd))))
    return _Node(f"{names.ours['emits']}(", ")", tuple(given))


def _type(type_: str | Cases, names: Names) -> _Node | str:
    if isinstance(type_, str):
        return quoted(type_)
    cases = tuple((f"{quoted(key)}: ", quoted(each)) for key, each in type_.cases.items())
    given: list[tuple[str, _Node | str]] = [("", _value(type_.choose, names))]
    given.append(("", _Node("{", "}", cases)))
    if type_.otherwise is not None:
        given.append(("otherwise=", quoted(type_.otherwise)))
    return _Node(f"{names.ours['choose']}(", ")", tuple(given))


def _value(value: Any, names: Names) -> str:
    if isinstance(value, Expression):
        root, steps = parts(value)
        return names.ours[root] + "".join(
            f".{key}" if kind == "attribute" else f"[{quoted(key)}]" for kind, key in steps
        )
    if isinstance(value, Call):
        return names.functions[value.call]
    if isinstance(value, float) and math.isinf(value):
        return "1e999" if value > 0 else "-1e999"  # no float has a literal that is so large
    return quoted(value.value if isinstance(value, Constant) else value)


def quoted(value: object) -> str:
    """A constant; texts in the quotes that formatters prefer."""
    spelled = repr(value)
    if isinstance(value, str) and spelled.startswith("'") and '"' not in value:
        return f'"{spelled[1:-1]}"'
    return spelled


def _line(node: _Node | str) -> str:
    if isinstance(node, str):
        return node
    return node.opening + ", ".join(f"{k}{_line(v)}" for k, v in node.parts) + node.closing


def _spread(node: _Node | str, width: int, indent: str, before: str) -> str:
    """A node behind ``before``; a part to the line, with a comma at the end, if it is too long."""
    line = _line(node)
    if isinstance(node, str) or len(before) + len(line) <= width or not node.parts:
        return line
    inner = width - len(indent.expandtabs())
    parts_ = [
        indent + (key + _spread(value, inner - 1, indent, key)).replace("\n", f"\n{indent}")
        for key, value in node.parts
    ]
    return node.opening + "\n" + "".join(f"{part},\n" for part in parts_) + node.closing
