"""The arguments of a decorator, read from its source: expressions, functions, constants."""

from __future__ import annotations

import ast
import builtins
import contextlib
import inspect
from collections.abc import Iterator, Sequence
from typing import Any, Final, get_args

import msgspec

from sidelight.maps.declarations import (
    NO_PATH,
    PHASES,
    Call,
    EventType,
    MapDeclaration,
    Opaque,
    Value,
    choice_type,
    constant_value,
    expression_value,
)
from sidelight.maps.static.names import (
    Assignment,
    Codebase,
    Definition,
    External,
    Scope,
    Sidelight,
    Target,
)
from sidelight.points import ROOTS, Choice, Expression
from sidelight.record import Mode

_ON_IMPORT: Final = "the source does not show it; import the code to see it: --import"
_OPTIONS: Final = {"span": (True, False), "strict": (True, False), "mode": get_args(Mode)}
_IDS: Final = ("artifact_id", "organization_id", "transaction", "after_commit")
_ELSEWHERE: Final = object()
_ENUMS: Final = ({"enum:StrEnum"}, {"enum:Enum", "builtins:str"})


class _NotInSource(Exception):  # noqa: N818  # an import shows the value
    """The source does not show a value."""


class Arguments:
    """Reads the arguments of calls in some code."""

    def __init__(self, code: Codebase) -> None:
        self._code = code

    def declaration(self, call: ast.Call, scope: Scope) -> MapDeclaration:
        """Read the declaration of a call of ``emits``."""
        given: dict[str, ast.expr] = {}
        rest: dict[str, Value] = {}
        for name, value in _named_arguments(call):
            if name is None:
                rest["**"] = Opaque(f"**{ast.unparse(value)}", _ON_IMPORT, on_import=True)
            else:
                given[name] = value
        fields: dict[str, Any] = {}
        for name in PHASES:
            fields[name] = self._type(given.pop(name, None), scope)
        for name in _IDS:
            node = given.pop(name, None)
            fields[name] = None if node is None or _is_none(node) else self._value(node, scope)
        for name, known in _OPTIONS.items():
            if (node := given.pop(name, None)) is not None:
                fields[name] = self._one_of(known, node, scope)
        if (node := given.pop("attributes", None)) is not None:
            if isinstance(node, ast.Dict) and (names := _texts(node.keys)) is not None:
                given |= dict(zip(names, node.values, strict=True))
            elif not _is_none(node):
                rest["**"] = Opaque(ast.unparse(node), _ON_IMPORT, on_import=True)
        attributes = {name: self._value(node, scope) for name, node in given.items()}
        return MapDeclaration.model_construct(**fields, attributes=attributes | rest)

    def text(self, node: ast.expr, scope: Scope) -> str | None:
        """Read a text; None where the source does not show it."""
        try:
            value = self._constant(node, scope)
        except _NotInSource:
            return None
        return value if isinstance(value, str) else None

    def _one_of(self, known: tuple[Any, ...], node: ast.expr, scope: Scope) -> Any:
        try:
            value = self._constant(node, scope)
        except _NotInSource:
            return _shown_on_import(node)
        return value if value in known else Opaque(repr(value), "the decorator refuses it")

    def _type(self, node: ast.expr | None, scope: Scope) -> EventType | None:
        if node is None or _is_none(node):
            return None
        if isinstance(node, ast.Call):
            if self._code.resolve(node.func, scope) == Sidelight("choose"):
                return self._choice(node, scope)
            return _shown_on_import(node)
        if isinstance(node, ast.IfExp):
            types = tuple(filter(None, (self.text(n, scope) for n in (node.body, node.orelse))))
            return Opaque(ast.unparse(node), _ON_IMPORT, on_import=True, types=types)
        target = self._code.resolve(node, scope)
        if isinstance(target, Assignment) and isinstance(target.value, ast.Call):
            return self._type(target.value, target.scope)
        return self.text(node, scope) or _shown_on_import(node)

    def _choice(self, call: ast.Call, scope: Scope) -> EventType:
        given = dict(zip(("by", "cases"), call.args, strict=False))
        given |= {each.arg: each.value for each in call.keywords if each.arg is not None}
        otherwise = given.get("otherwise")
        last = None if otherwise is None else self._type(otherwise, scope)
        cases = self._cases(given.get("cases"), scope)
        if isinstance(last, Opaque) or _ELSEWHERE in cases or "by" not in given:
            types = tuple(dict.fromkeys((*cases.values(), last)))
            known = tuple(type_ for type_ in types if isinstance(type_, str) and type_)
            return Opaque(ast.unparse(call), _ON_IMPORT, on_import=True, types=known)
        assert last is None or isinstance(last, str)  # noqa: S101  # for the type checker
        texts = {key: type_ for key, type_ in cases.items() if isinstance(key, str)}
        by = self._value(given["by"], scope)
        return choice_type(by, Choice(None, cases, last), texts)

    def _cases(self, node: ast.expr | None, scope: Scope) -> dict[Any, str]:
        """Return the cases of a choice; the key `_ELSEWHERE` stands for unknown cases."""
        target = None if node is None else self._code.resolve(node, scope)
        if isinstance(target, Assignment):
            node, scope = target.value, target.scope
        if not isinstance(node, ast.Dict):
            return {_ELSEWHERE: ""}
        cases: dict[Any, str] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            type_ = self.text(value, scope)
            try:
                read = _ELSEWHERE if key is None or type_ is None else self._constant(key, scope)
            except _NotInSource:
                read = _ELSEWHERE
            if read is _ELSEWHERE:  # keep its type
                cases[object()] = type_ or ""
            cases[read] = type_ or ""
        return cases

    def _value(self, node: ast.expr, scope: Scope) -> Value:
        if isinstance(node, ast.Attribute) and self._is_other_enum(node.value, scope):
            return _shown_on_import(node)
        target = self._code.resolve(node, scope, anywhere=True)
        if isinstance(target, Assignment):
            value = self._value(target.value, target.scope)
            if isinstance(value, Opaque):
                return msgspec.structs.replace(value, source=ast.unparse(node))
            return value
        if isinstance(node, ast.Lambda):
            return Opaque(ast.unparse(node), NO_PATH)
        recorded = self._expression(node, scope)
        if recorded is None:
            recorded = _function(target, node)
        if recorded is None:
            with contextlib.suppress(_NotInSource):
                recorded = constant_value(self._constant(node, scope))
        return _shown_on_import(node) if recorded is None else recorded

    def _expression(self, node: ast.expr, scope: Scope) -> Value | None:
        """Return a recorded expression; None where the node is something else."""
        steps: list[tuple[str, Any]] = []
        inner = node
        while not self._is_root(inner, scope):
            if isinstance(inner, ast.Attribute):
                steps.append(("attribute", scope.stored(inner.attr)))
            elif isinstance(inner, ast.Subscript):
                steps.append(("item", inner.slice))
            else:
                return None
            inner = inner.value
        root = self._code.resolve(inner, scope)
        assert isinstance(root, Sidelight)  # noqa: S101  # for the type checker
        try:
            known = tuple(
                (kind, self._constant(key, scope) if kind == "item" else key)
                for kind, key in reversed(steps)
            )
        except _NotInSource:
            return _shown_on_import(node)
        return expression_value(Expression(root.name, known))

    def _is_root(self, node: ast.expr, scope: Scope) -> bool:
        if not isinstance(node, ast.Name | ast.Attribute):
            return False
        target = self._code.resolve(node, scope)
        return isinstance(target, Sidelight) and target.name in ROOTS

    def _constant(self, node: ast.expr, scope: Scope) -> Any:
        """Return a constant: a literal, a name that is assigned once, a member of an Enum of texts.

        Raises:
            _NotInSource: the source does not show the value.
        """
        if isinstance(node, ast.Attribute) and self._is_other_enum(node.value, scope):
            raise _NotInSource
        if isinstance(node, ast.Name | ast.Attribute):
            target = self._code.resolve(node, scope, anywhere=True)
            if isinstance(target, Assignment):
                return self._constant(target.value, target.scope)
            raise _NotInSource
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            raise _NotInSource from None

    def _is_other_enum(self, node: ast.expr, scope: Scope) -> bool:
        """Return whether a node is an Enum class whose members are no texts."""
        target = self._code.resolve(node, scope, anywhere=True)
        if not isinstance(target, Definition) or not isinstance(target.node, ast.ClassDef):
            return False
        bases = {
            getattr(self._code.resolve(base, target.scope, anywhere=True), "path", "")
            for base in target.node.bases
        }
        if any(texts <= bases for texts in _ENUMS):
            return False
        return any(base.startswith("enum:") for base in bases)


def _function(target: Target | None, node: ast.expr) -> Value | None:
    """Return a function that has a path; None for everything else."""
    if isinstance(target, Definition) and not isinstance(target.node, ast.ClassDef):
        local = "<" in target.qualname
        return Opaque(ast.unparse(node), NO_PATH) if local else Call(call=target.path)
    if isinstance(target, External) and target.path.startswith("builtins:"):
        function = getattr(builtins, target.path.partition(":")[2], None)
        return Call(call=target.path) if inspect.isbuiltin(function) else None
    return None


def _named_arguments(call: ast.Call) -> Iterator[tuple[str | None, ast.expr]]:
    """Yield the arguments with their names; the name of ``*`` and ``**`` arguments is None."""
    for index, value in enumerate(call.args):
        yield ("success" if index == 0 and not isinstance(value, ast.Starred) else None), value
    for keyword in call.keywords:
        value = keyword.value
        unnamed = keyword.arg is None
        if unnamed and isinstance(value, ast.Dict) and (names := _texts(value.keys)):
            yield from zip(names, value.values, strict=True)
        else:
            yield keyword.arg, value


def _texts(nodes: Sequence[ast.expr | None]) -> list[str] | None:
    """Return the values of constants that are texts; None where one of the nodes is another."""
    found = [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return found if len(found) == len(nodes) else None


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _shown_on_import(node: ast.expr) -> Opaque:
    return Opaque(ast.unparse(node), _ON_IMPORT, on_import=True)
