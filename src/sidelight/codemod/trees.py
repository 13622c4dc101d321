"""The decorators of a file: put on and taken off with LibCST, which keeps every other byte."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

import libcst as cst

_NESTED: Final = "<locals>"
_STAY_ON_TOP: Final = frozenset({"staticmethod", "classmethod"})
Write: TypeAlias = Callable[[str], str]
"""Spells a decorator, given one level of indent."""
Which: TypeAlias = tuple[str, int]
"""A function by its qualified name, and the how-manieth it is that is called so."""


def put_on(text: str, decorators: Mapping[Which, Sequence[Write]]) -> str:
    """Decorate functions; the last decorator is the outermost."""
    tree = cst.parse_module(text)

    def edit(which: Which, node: cst.FunctionDef) -> cst.FunctionDef:
        kept = list(node.decorators)
        at = 0
        while at < len(kept) and _name(kept[at]) in _STAY_ON_TOP:
            at += 1
        for write in decorators.get(which, ()):
            kept.insert(at, _parsed(write(tree.default_indent), tree))
        return node.with_changes(decorators=kept)

    return tree.visit(_Editor(edit)).code


def take_off(text: str, decorators: Mapping[Which, Sequence[int]]) -> str:
    """Take the decorators with these numbers, counted from the top, off functions.

    Comments above a decorator stay.
    """
    tree = cst.parse_module(text)

    def edit(which: Which, node: cst.FunctionDef) -> cst.FunctionDef:
        gone = decorators.get(which, ())
        kept: list[cst.Decorator] = []
        comments: list[cst.EmptyLine] = []
        for index, each in enumerate(node.decorators):
            if index in gone:
                comments += each.leading_lines
            else:
                kept.append(each.with_changes(leading_lines=[*comments, *each.leading_lines]))
                comments = []
        below = [*comments, *node.lines_after_decorators]
        return node.with_changes(decorators=kept, lines_after_decorators=below)

    return tree.visit(_Editor(edit)).code


class _Editor(cst.CSTTransformer):
    """Edits functions; the names of its methods are LibCST's."""

    def __init__(self, edit: Callable[[Which, cst.FunctionDef], cst.FunctionDef]) -> None:
        super().__init__()
        self._edit = edit
        self._names: list[str] = []
        self._seen: Counter[str] = Counter()

    def visit_ClassDef(self, node: cst.ClassDef) -> None:  # noqa: N802
        self._names.append(node.name.value)

    def leave_ClassDef(  # noqa: N802
        self,
        original_node: cst.ClassDef,  # noqa: ARG002
        updated_node: cst.ClassDef,
    ) -> cst.ClassDef:
        self._names.pop()
        return updated_node

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:  # noqa: N802
        self._names += [node.name.value, _NESTED]

    def leave_FunctionDef(  # noqa: N802
        self,
        original_node: cst.FunctionDef,  # noqa: ARG002
        updated_node: cst.FunctionDef,
    ) -> cst.FunctionDef:
        self._names.pop()
        name = ".".join(self._names)
        self._names.pop()
        self._seen[name] += 1
        return self._edit((name, self._seen[name] - 1), updated_node)


def _name(decorator: cst.Decorator) -> str:
    node = decorator.decorator
    return node.value if isinstance(node, cst.Name) else ""


def _parsed(source: str, tree: cst.Module) -> cst.Decorator:
    written = f"{source}\ndef f(): pass\n".replace("\n", tree.default_newline)
    function = cst.parse_statement(written, config=tree.config_for_parsing)
    assert isinstance(function, cst.FunctionDef)  # noqa: S101  # for the type checker
    return function.decorators[0]
