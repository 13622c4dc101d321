"""A listing of points written as a map; comments stand for what a map cannot express."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any, Final

from sidelight.maps.listing import ListedPoint

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_WIDTH: Final = 100


def map_text(points: Iterable[ListedPoint]) -> str:
    """Return the text of a ``sidelight.toml`` that weaves to the same events."""
    listed = list(points)
    shared = _shared_paths(listed)
    return "\n".join(block for point in listed for block in _blocks(point, shared))


def omissions(points: Iterable[ListedPoint]) -> Iterator[str]:
    """Name everything that a map of these points lacks, one line each."""
    listed = list(points)
    shared = _shared_paths(listed)
    for point in listed:
        if reason := _unnameable(point, shared):
            yield f"{point.path} is not in the map: {reason}"
            continue
        for declared in point.declarations:
            effect = "" if declared.expressible else ", so the point is not in the map"
            for name, opaque in declared.opaque.items():
                yield f"{point.path}: {name} = {_one_line(opaque.source)}: {opaque.reason}{effect}"


def _shared_paths(points: Iterable[ListedPoint]) -> set[str]:
    """Return the paths that several functions have."""
    paths = Counter(point.path for point in points)
    return {path for path, count in paths.items() if count > 1}


def _unnameable(point: ListedPoint, shared: Container[str]) -> str:
    several = "several functions have this path: give each a name of its own"
    return point.unnameable or (several if point.path in shared else "")


def _blocks(point: ListedPoint, shared: Container[str]) -> Iterator[str]:
    for declared in point.declarations:
        reason = _unnameable(point, shared)
        if not reason and not declared.expressible:
            reason = "a map cannot express how it emits"
        lines = ["[[point]]", *_lines({"function": point.path} | declared.facts())]
        lines += [
            f"# {name} = {_one_line(opaque.source)}  # not in the map: {opaque.reason}"
            for name, opaque in declared.opaque.items()
        ]
        if reason:
            lines = [f"# not in the map: {reason}", *(f"# {line}" for line in lines)]
        yield "\n".join(lines) + "\n"


def _one_line(source: str) -> str:
    """Source code that can stand in a comment."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode()
        for each in " ".join(source.split())
    )


def _lines(facts: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """``key = value``; a table that is too long for one line gets a line for each of its keys."""
    for name, value in facts.items():
        key = prefix + _key(name)
        line = f"{key} = {_toml(value)}"
        if isinstance(value, Mapping) and len(line) > _WIDTH:
            yield from _lines(value, f"{key}.")
        else:
            yield line


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _text(name)


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(k)} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, bool):
        return str(value).lower()
    return _text(value) if isinstance(value, str) else repr(value)


def _text(value: str) -> str:
    """Return a basic string: that of JSON, which escapes all that TOML wants escaped except DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
