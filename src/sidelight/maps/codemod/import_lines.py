"""Imports added and removed as lines of text; removing is the exact inverse of adding.

A new statement goes into the block of its kind (standard library, third party, first party), in
the order of isort and ruff. Where the file has no such block the statement makes one, with blank
lines that `remove` computes again from the result.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias

import msgspec

from sidelight.maps.codemod.source_files import lines_of, newline_of

Alias: TypeAlias = tuple[str, str | None]
Kind: TypeAlias = Callable[[str], int]
_STANDARD, _THIRD_PARTY, _FIRST_PARTY = 1, 2, 3
_KINDS: Final = {"__future__": 0, "": 4}


class _Import(msgspec.Struct, frozen=True):
    """An import at the top of a file; lines count from 0, ``end`` is the line after it."""

    node: ast.Import | ast.ImportFrom
    first: int
    end: int

    @property
    def module(self) -> str:
        if isinstance(self.node, ast.ImportFrom):
            return "." * self.node.level + (self.node.module or "")
        return self.node.names[0].name

    @property
    def order(self) -> tuple[bool, str]:
        """The sort key in a block: ``import`` comes before ``from``."""
        return isinstance(self.node, ast.ImportFrom), self.module

    @property
    def aliases(self) -> list[Alias]:
        return [(alias.name, alias.asname) for alias in self.node.names]


def kind_in(own: Callable[[str], bool]) -> Kind:
    """Make a function that tells the kind of a module; ``own`` tells first-party packages."""

    def kind(module: str) -> int:
        top = module.partition(".")[0]
        if top in _KINDS:
            return _KINDS[top]
        if top in sys.stdlib_module_names:
            return _STANDARD
        return _FIRST_PARTY if own(top) else _THIRD_PARTY

    return kind


def add(text: str, module: str, names: Sequence[Alias], kind: Kind, *, width: int) -> str:
    """Import names from a module.

    Args:
        text: the text of the file.
        module: the module.
        names: each name to import, and its other name or None.
        kind: tells the kind of a module.
        width: the length of a line, in characters.
    """
    lines = lines_of(text)
    newline = newline_of(lines)
    imports = list(_imports(text))
    for each in imports:
        style = _style(each, lines, newline) if _is_from(each, module) else None
        if style is None:
            continue
        merged = each.aliases
        for alias in names:
            later = [i for i, other in enumerate(merged) if _rank(other) > _rank(alias)]
            merged.insert(later[0] if later else len(merged), alias)
        written = _statement(module, merged, style, newline)
        if style or len(written.rstrip()) <= width:
            lines[each.first : each.end] = [written]
            return "".join(lines)
    written = _statement(module, sorted(names, key=_rank), "", newline)
    if len(written.rstrip()) > width:
        written = _statement(module, sorted(names, key=_rank), "    ", newline)
    at, own_block = _place(text, lines, imports, module, kind)
    blanks = _blanks(lines, at) if own_block else 0
    if at == len(lines) and lines and not lines[-1].endswith(("\n", "\r")):
        lines[-1] += newline
    lines[at:at] = [written, *[newline] * blanks]
    return "".join(lines)


def remove(text: str, names: Sequence[str]) -> str:
    """Remove imports of names; an import stays where its removal would remove a comment.

    Args:
        text: the text of the file.
        names: the names as the file has them.
    """
    for each in reversed(list(_imports(text))):
        left = [alias for alias in each.aliases if (alias[1] or alias[0]) not in names]
        if len(left) == len(each.aliases):
            continue
        if isinstance(each.node, ast.Import) and (left or each.module != "sidelight"):
            continue  # the import may have an effect that the program needs
        lines = lines_of(text)
        newline = newline_of(lines)
        if not left:
            if "#" not in "".join(lines[each.first : each.end]):
                text = _without(lines, each)
            continue
        style = _style(each, lines, newline)
        if style is None and "#" not in "".join(lines[each.first : each.end]):
            style = "" if each.end - each.first == 1 else "    "
        if style is not None:
            lines[each.first : each.end] = [_statement(each.module, left, style, newline)]
            text = "".join(lines)
    return text


def _without(lines: list[str], each: _Import) -> str:
    """Return the file without a statement and the blank lines that `_blanks` added with it."""
    first, end = each.first, each.end
    others = {n for other in _imports("".join(lines)) for n in range(other.first, other.end)}
    blanks = 0
    if first - 1 not in others and end not in others:
        rest = [*lines[:first], *lines[end + 1 :]]
        blanks = _blanks(rest if end < len(lines) and _blank(lines[end]) else lines[:first], first)
    while blanks and end < len(lines) and _blank(lines[end]):
        end += 1
        blanks -= 1
    return "".join([*lines[:first], *lines[end:]])


def _blanks(lines: Sequence[str], at: int) -> int:
    """Return the number of blank lines after a statement that makes a block at this line."""
    if at > 0 and _blank(lines[at - 1]):
        return 1
    follows = next((line for line in lines[at:] if not _blank(line)), "")
    return 1 if follows.startswith(("import ", "from ")) else 2


def _place(
    text: str, lines: Sequence[str], imports: Sequence[_Import], module: str, kind: Kind
) -> tuple[int, bool]:
    """Return the line for a new statement, and whether the statement makes a block there."""
    wanted = kind(module)
    block = [each for each in imports if kind(each.module) == wanted]
    if block:
        before = [each for each in block if each.order <= (True, module)]
        if before:
            return before[-1].end, False
        first = block[0].first
        commented = first > 0 and lines[first - 1].lstrip().startswith("#")
        return (block[0].end if commented else first), False
    later = [each for each in imports if kind(each.module) > wanted]
    if later:
        at = _above_comments(lines, later[0].first)
        return at, all(each.end != at for each in imports)  # else it joins a block
    if imports:
        return _after(lines, imports[-1].end, tight=False)
    return _place_of_first(text, lines)


def _place_of_first(text: str, lines: Sequence[str]) -> tuple[int, bool]:
    """Return the same for a file without imports: after its docstring and comments."""
    body = ast.parse(text).body
    if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        return _after(lines, body[0].end_lineno or 1, tight=True)
    if not body:
        return len(lines), False
    decorators = getattr(body[0], "decorator_list", ())
    first = min([body[0].lineno, *(each.lineno for each in decorators)]) - 1
    return _above_comments(lines, first) or first, True


def _after(lines: Sequence[str], at: int, *, tight: bool) -> tuple[int, bool]:
    if at < len(lines) and _blank(lines[at]):
        return at + 1, True
    return at, tight


def _above_comments(lines: Sequence[str], at: int) -> int:
    while at > 0 and lines[at - 1].startswith("#"):
        at -= 1
    return at


def _imports(text: str) -> Iterator[_Import]:
    """Yield the imports at the top of a file that share no line with another statement."""
    previous_end = 0
    for index, node in enumerate(ast.parse(text).body):
        first, end = node.lineno - 1, node.end_lineno or node.lineno
        if isinstance(node, ast.Import | ast.ImportFrom):
            if first >= previous_end:
                yield _Import(node, first, end)
        elif index or not isinstance(node, ast.Expr):
            return
        previous_end = end


def _is_from(each: _Import, module: str) -> bool:
    node = each.node
    return isinstance(node, ast.ImportFrom) and each.module == module and node.names[0].name != "*"


def _style(each: _Import, lines: Sequence[str], newline: str) -> str | None:
    """Return the layout of a statement: "" for one line, else the indent of its names.

    Return None where it is unknown.
    """
    if not isinstance(each.node, ast.ImportFrom):
        return None
    written = "".join(lines[each.first : each.end])
    for style in ("", "    ", "  ", "\t"):
        if written == _statement(each.module, each.aliases, style, newline):
            return style
    return None


def _statement(module: str, names: Sequence[Alias], style: str, newline: str) -> str:
    source = [name if as_ is None else f"{name} as {as_}" for name, as_ in names]
    if not style:
        return f"from {module} import {', '.join(source)}{newline}"
    inside = "".join(f"{style}{each},{newline}" for each in source)
    return f"from {module} import ({newline}{inside}){newline}"


def _rank(alias: Alias) -> tuple[int, str]:
    """Return the sort key of a name: constants, classes, the rest; each in alphabetical order."""
    name = alias[0]
    return (0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2), name


def _blank(line: str) -> bool:
    return not line.strip()
