"""Decorators added and removed as lines of text; every other byte of the file stays.

LibCST is no use here, because LibCST 1.9 does not keep all formatting: it loses a space in
``except (A, B) :`` and refuses ``while(x):``.
"""

from __future__ import annotations

import ast
import tokenize
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import StringIO
from typing import Final, TypeAlias

from sidelight.maps.codemod.source_files import lines_of, newline_of
from sidelight.maps.static.names import Function

_INDENT: Final = "    "
Write: TypeAlias = Callable[[str], str]
"""Spells a decorator; its argument is one level of indent."""


def add_decorators(text: str, decorators: Iterable[tuple[Function, int, Sequence[Write]]]) -> str:
    """Decorate functions.

    Args:
        text: the text of the file.
        decorators: each function, the number of its decorators that stay above, and the new
            decorators, the outermost last.
    """
    lines = lines_of(text)
    newline, indent = newline_of(lines), _indent_of(text)
    for node, above, writes in sorted(decorators, key=_bottom_up):
        at = node.lineno - 1
        if above < len(node.decorator_list):
            last = node.decorator_list[above - 1].end_lineno if above else None
            at = last or node.decorator_list[0].lineno - 1
        before = lines[node.lineno - 1]
        before = before[: len(before) - len(before.lstrip(" \t\f"))]
        for write in writes:
            written = write(indent).split("\n")
            lines[at:at] = [f"{before}{line}{newline}" for line in written]
    return "".join(lines)


def remove_decorators(text: str, decorators: Iterable[tuple[Function, Sequence[int]]]) -> str:
    """Remove decorators by their numbers, counted from the top."""
    lines = lines_of(text)
    for node, numbers in sorted(decorators, key=_bottom_up):
        for number in sorted(numbers, reverse=True):
            decorator = node.decorator_list[number]
            del lines[decorator.lineno - 1 : decorator.end_lineno]
    return "".join(lines)


def _bottom_up(task: tuple[Function, *tuple[object, ...]]) -> int:
    """Sort from the end of the file, so that an edit does not move the lines of later tasks."""
    return -task[0].lineno


def _indent_of(text: str) -> str:
    """Return one level of indent in a file."""
    tokens = tokenize.generate_tokens(StringIO(text, newline="").readline)
    return next((token.string for token in tokens if token.type == tokenize.INDENT), _INDENT)


def definitions(body: Sequence[ast.stmt], around: str = "") -> Iterator[tuple[str, Function]]:
    """Yield the functions of a module and its classes with their names, in source order."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield around + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from definitions(node.body, f"{around}{node.name}.")
        else:
            inside: list[ast.stmt] = []
            for each in ast.iter_child_nodes(node):
                if isinstance(each, ast.ExceptHandler | ast.match_case):
                    inside += each.body
                elif isinstance(each, ast.stmt):
                    inside.append(each)
            yield from definitions(inside, around)
