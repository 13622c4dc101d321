"""Generated Python: templates are filled, compiled, and shown to tracebacks and debuggers.

A template is Python with ``{part}`` where wrappers differ. A part that stands alone on its line may
have any number of lines, or none. Text from outside enters the source only as an identifier
(`is_identifier`) or as a constant (`literal`).
"""

from __future__ import annotations

import functools
import itertools
import keyword
import linecache
import re
import weakref
from collections import deque
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any, Final, TypeAlias

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
    """Return whether ``text`` can be a name in source, and Python reads it as that very name."""
    return (
        type(text) is str
        and text.isidentifier()
        and not keyword.iskeyword(text)
        and text != "__debug__"
        and (text.isascii() or _is_normal(text))
    )


def _is_normal(text: str) -> bool:
    import unicodedata  # noqa: PLC0415  # few names need it

    return unicodedata.normalize("NFKC", text) == text


class Names:
    """The objects that generated code refers to, by name.

    ``objects`` becomes the code's globals, which are fast only in a dict that is no subclass.
    """

    def __init__(self, objects: dict[str, Any] | None = None) -> None:
        self.objects = objects or {}

    def give(self, stem: str, value: object) -> str:
        """Give an object a new name."""
        name = f"_{stem}_{len(self.objects)}"
        self.objects[name] = value
        return name

    def literal(self, value: object) -> str:
        """Return the source of a constant: a literal, or a name where no literal is safe."""
        small = type(value) is int and -_LARGEST_LITERAL < value < _LARGEST_LITERAL
        return repr(value) if type(value) is str or small else self.give("constant", value)


def define(
    text: str, globals_: dict[str, Any], *, filename: str, shown: str | None = None
) -> dict[str, Any]:
    """Run ``text``, which defines functions, and return them by name.

    Tracebacks show ``filename``, with a number where other source has that file name already, and
    the lines of ``shown``, which differs from ``text`` in names only.
    """
    defined: dict[str, Any] = {}
    filename = _registered(filename, shown or text)
    exec(_compiled(text), globals_, defined)  # noqa: S102  # generated
    for function in defined.values():  # a copy, because `_compiled` keeps what it has compiled
        function.__code__ = _named(function.__code__, filename)
    return defined


def _named(code: CodeType, filename: str) -> CodeType:
    inner = (_named(c, filename) if type(c) is CodeType else c for c in code.co_consts)
    return code.replace(co_filename=filename, co_consts=tuple(inner))


def name_like(made: FunctionType, function: Any) -> None:
    """Give a generated function the names of the function that it stands for."""
    if type(function) is FunctionType:
        code = function.__code__
        made.__code__ = made.__code__.replace(co_name=code.co_name, co_qualname=code.co_qualname)
        made.__name__, made.__qualname__ = function.__name__, function.__qualname__


def keep_source(code: CodeType) -> None:
    """Let `linecache` have the source of generated code until the last such code is collected."""
    filename, identity = code.co_filename, id(code)
    _users.setdefault(filename, set()).add(identity)
    when_collected(code, _release, filename, identity)


def when_collected(code: CodeType, do: Callable[..., object], *args: object) -> None:
    """Call ``do`` when the code is collected, but not at the end of the process."""
    weakref.finalize(code, do, *args).atexit = False


@functools.lru_cache(maxsize=256)
def _compiled(text: str) -> CodeType:
    """Compile, once for all functions of one shape."""
    return compile(text, "<sidelight>", "exec", dont_inherit=True)


@functools.lru_cache(maxsize=1024)
def _same(line: str) -> str:
    """Return the same object for equal lines, because most lines of two wrappers are equal."""
    return line


#: The live code of each source file, by identity, because equal code is not the same.
_users: Final[dict[str, set[int]]] = {}
#: The file name of each source, which is a stem and lines; and the source of each file name.
_Source: TypeAlias = tuple[str, tuple[str, ...]]
_filenames: Final[dict[_Source, str]] = {}
_sources: Final[dict[str, _Source]] = {}
_numbers: Final = itertools.count(2)
#: The file names that were given last. Their sources stay, because `keep_source` comes after
#: `define`, and in between the last older code with the same source may be collected.
_latest: Final[deque[str]] = deque()
_LATEST: Final = 16


def _registered(stem: str, text: str) -> str:
    source = stem, tuple(map(_same, text.splitlines(keepends=True)))
    filename = _filenames.get(source)
    if filename is None:
        taken = stem in _sources
        filename = f"{stem[:-1]} #{next(_numbers)}>" if taken else stem
    _latest.append(filename)
    _filenames[source], _sources[filename] = filename, source
    linecache.cache[filename] = (len(text), None, list(source[1]), filename)
    while len(_latest) > _LATEST:  # more than one after an interruption here
        _drop_unused(_latest.popleft())
    return filename


def _release(filename: str, identity: int) -> None:
    _users.get(filename, set()).discard(identity)
    _drop_unused(filename)


def _drop_unused(filename: str) -> None:
    if not _users.get(filename) and filename in _sources and filename not in _latest:
        _users.pop(filename, None)
        _filenames.pop(_sources.pop(filename), None)
        linecache.cache.pop(filename, None)
