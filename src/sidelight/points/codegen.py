"""Generated Python: templates are filled, compiled, and shown to tracebacks and debuggers.

A template is Python with ``{part}`` where wrappers differ. A part that stands alone on its line may
have any number of lines, or none. Text from outside enters the source only as an identifier
(`is_identifier`) or as a constant (`literal`).
"""

from __future__ import annotations

import functools
import keyword
import linecache
import re
import unicodedata
from types import CodeType, FunctionType
from typing import Any, Final

_PLACE: Final = re.compile(r"^( *)\{(\w+)\}\n|\{(\w+)\}", re.MULTILINE)
_LARGEST_LITERAL: Final = 1 << 63


def fill(template: str, **parts: str) -> str:
    """Put ``parts`` into a template, each at the indentation of its place."""

    def put(place: re.Match[str]) -> str:
        indent, alone, within = place.groups()
        if within is not None:
            return parts[within]
        lines = parts[alone].strip("\n").splitlines()
        return "".join(f"{indent}{line}\n" if line else "\n" for line in lines)

    return _PLACE.sub(put, template.lstrip("\n"))


def is_identifier(text: object) -> bool:
    """Whether ``text`` can be a name in source, and Python reads it as that very name."""
    return (
        type(text) is str
        and text.isidentifier()
        and not keyword.iskeyword(text)
        and text != "__debug__"
        and unicodedata.normalize("NFKC", text) == text
    )


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

    def literal(self, value: object) -> str:
        """The source of a constant: a literal, or a name where no literal is safe."""
        small = type(value) is int and -_LARGEST_LITERAL < value < _LARGEST_LITERAL
        return repr(value) if type(value) is str or small else self.give("constant", value)


def define(text: str, names: Names, *, filename: str) -> None:
    """Run ``text``, which defines functions, with ``names`` for its globals.

    Tracebacks show ``filename``, with a number where other source has that file name already.
    """
    exec(_compiled(text, _registered(filename, text)), names.objects)  # noqa: S102  # generated text


def name_like(made: FunctionType, function: Any) -> None:
    """Give a generated function the names of the function that it stands for."""
    if type(function) is FunctionType:
        code = function.__code__
        made.__code__ = made.__code__.replace(co_name=code.co_name, co_qualname=code.co_qualname)
        made.__name__, made.__qualname__ = function.__name__, function.__qualname__


@functools.lru_cache(maxsize=256)
def _compiled(text: str, filename: str) -> CodeType:
    """Compile, once for a function that is decorated at each call of the one around it."""
    return compile(text, filename, "exec", dont_inherit=True)


def _registered(filename: str, text: str) -> str:
    lines = text.splitlines(keepends=True)
    stem, number = filename, 1
    while (known := linecache.cache.get(filename)) is not None and known[2:3] != (lines,):
        number += 1
        filename = f"{stem[:-1]} #{number}>"
    linecache.cache[filename] = (len(text), None, lines, filename)
    return filename
