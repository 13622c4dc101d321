"""A map written down: TOML that `mapfile` reads, and comments for what it cannot say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from sidelight.maps.described import Found

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_WIDTH: Final = 100


def written(points: Iterable[Found]) -> str:
    """The points as a ``sidelight.toml``."""
    blocks = [block for point in points for block in _blocks(point)]
    return "\n".join(blocks)


def _blocks(point: Found) -> Iterator[str]:
    for described in point.declarations:
        why = point.nameless or ("" if described.sayable else "a map cannot say how it emits")
        lines = ["[[point]]", *_lines({"function": point.path} | described.facts())]
        lines += [
            f"# {name} = {_one_line(each.source)}  # not in the map: {each.why}"
            for name, each in described.unsaid.items()
        ]
        if why:
            lines = [f"# not in the map: {why}", *(f"# {line}" for line in lines)]
        yield "\n".join(lines) + "\n"


def losses(points: Iterable[Found]) -> Iterator[str]:
    """What a map of these points does not say, one line each."""
    for point in points:
        if point.nameless:
            yield f"{point.path} is not in the map: {point.nameless}"
            continue
        for described in point.declarations:
            whole = "" if described.sayable else ", so the point is not in the map"
            for name, each in described.unsaid.items():
                yield f"{point.path}: {name} = {_one_line(each.source)}: {each.why}{whole}"


def _one_line(source: str) -> str:
    """Code as a comment can have it."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode()
        for each in " ".join(source.split())
    )


def _lines(facts: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """``key = value``; a table that is too long for a line has one for each of its keys."""
    for name, value in facts.items():
        key = prefix + _key(name)
        line = f"{key} = {_toml(value)}"
        if isinstance(value, Mapping) and len(line) > _WIDTH:
            yield from _lines(value, f"{key}.")
        else:
            yield line


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _text(name)


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(k)} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, bool):
        return str(value).lower()
    return _text(value) if isinstance(value, str) else repr(value)


def _text(value: str) -> str:
    """A basic string: JSON's, which escapes all that TOML wants escaped but DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
