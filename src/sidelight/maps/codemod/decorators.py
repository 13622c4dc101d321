"""The decorators of a file, as text: a decorator has its lines for itself, and no other changes.

(Syntax trees that keep all formatting do so nearly: LibCST 1.9 loses a space in
``except (A, B) :``, and refuses ``while(x):``.)
"""

from __future__ import annotations

import ast
import tokenize
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import StringIO
from typing import Final, TypeAlias

from sidelight.maps.codemod.lines import lines_of, newline_of
from sidelight.maps.static.names import Function

_STAY_ON_TOP: Final = frozenset({"staticmethod", "classmethod"})
_INDENT: Final = "    "
Write: TypeAlias = Callable[[str], str]
"""Spells a decorator, given one level of indent."""


def put_on(text: str, decorators: Iterable[tuple[Function, Sequence[Write]]]) -> str:
    """Decorate functions; the last decorator of each is the outermost."""
    lines = lines_of(text)
    newline, indent = newline_of(lines), _indent_of(text)
    for node, writes in sorted(decorators, key=_from_below):
        at = node.lineno - 1
        for index, decorator in enumerate(node.decorator_list):
            if not (isinstance(decorator, ast.Name) and decorator.id in _STAY_ON_TOP):
                above = node.decorator_list[:index]
                at = (above[-1].end_lineno or at) if above else decorator.lineno - 1
                break
        before = lines[node.lineno - 1]
        before = before[: len(before) - len(before.lstrip(" \t\f"))]
        for write in writes:
            written = write(indent).split("\n")
            lines[at:at] = [f"{before}{line}{newline}" for line in written]
    return "".join(lines)


def take_off(text: str, decorators: Iterable[tuple[Function, Sequence[int]]]) -> str:
    """Take the decorators with these numbers, counted from the top, off functions."""
    lines = lines_of(text)
    for node, numbers in sorted(decorators, key=_from_below):
        for number in sorted(numbers, reverse=True):
            decorator = node.decorator_list[number]
            del lines[decorator.lineno - 1 : decorator.end_lineno]
    return "".join(lines)


def _from_below(task: tuple[Function, object]) -> int:
    """So that what is edited leaves the lines of what is still to come where they are."""
    return -task[0].lineno


def _indent_of(text: str) -> str:
    """One level of indent, as the file has it."""
    tokens = tokenize.generate_tokens(StringIO(text, newline="").readline)
    return next((token.string for token in tokens if token.type == tokenize.INDENT), _INDENT)


def definitions(body: Sequence[ast.stmt], around: str = "") -> Iterator[tuple[str, Function]]:
    """The functions of a module and its classes, in the order of the source."""
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
