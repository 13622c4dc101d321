"""Generated Python: templates are filled, compiled, and shown to tracebacks and debuggers.

A template is Python as it will stand, with ``{part}`` where something differs. A part that stands
alone on its line may be of any number of lines, none included.
"""

from __future__ import annotations

import functools
import linecache
import re
from types import CodeType, FunctionType
from typing import Any, Final

_PLACE: Final = re.compile(r"^( *)\{(\w+)\}\n|\{(\w+)\}", re.MULTILINE)


def fill(template: str, **parts: str) -> str:
    """Put ``parts`` into a template, each at the indentation of its place."""

    def put(place: re.Match[str]) -> str:
        indent, alone, within = place.groups()
        if within is not None:
            return parts[within]
        lines = parts[alone].strip("\n").splitlines()
        return "".join(f"{indent}{line}\n" if line else "\n" for line in lines)

    return _PLACE.sub(put, template.lstrip("\n"))


class Names:
    """The objects that generated code refers to, by name.

    ``objects`` becomes the code's globals, which are fast only in a dict that is no subclass.
    """

    def __init__(self, objects: dict[str, Any] | None = None) -> None:
        self.objects = objects or {}

    def give(self, stem: str, value: object) -> str:
        """Give an object a name of its own."""
        name = f"_{stem}_{len(self.objects)}"
        self.objects[name] = value
        return name


def define(text: str, names: Names, *, filename: str) -> None:
    """Run ``text``, which defines functions, with ``names`` for its globals.

    Tracebacks show ``filename``; it is numbered where another source has that name already.
    """
    exec(_compiled(text, _registered(filename, text)), names.objects)  # noqa: S102  # it is ours


def pose(made: FunctionType, function: Any) -> None:
    """Let a generated function go by the names of the function that it stands for."""
    if type(function) is FunctionType:
        code = function.__code__
        made.__code__ = made.__code__.replace(co_name=code.co_name, co_qualname=code.co_qualname)
        made.__name__, made.__qualname__ = function.__name__, function.__qualname__


@functools.lru_cache(maxsize=256)
def _compiled(text: str, filename: str) -> CodeType:
    """Compile; a function that is decorated at each call of the one around it is compiled once."""
    return compile(text, filename, "exec", dont_inherit=True)


def _registered(filename: str, text: str) -> str:
    lines = text.splitlines(keepends=True)
    stem, number = filename, 1
    while (known := linecache.cache.get(filename)) is not None and known[2:3] != (lines,):
        number += 1
        filename = f"{stem[:-1]} #{number}>"
    linecache.cache[filename] = (len(text), None, lines, filename)
    return filename
