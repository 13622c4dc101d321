"""What a decorator is given, read from its source: expressions, functions, constants, choices."""

from __future__ import annotations

import ast
import builtins
import contextlib
import inspect
from collections.abc import Iterator
from typing import Any, Final, get_args

import msgspec

from sidelight.maps.described import (
    NO_NAME,
    Described,
    Type,
    Unsaid,
    Value,
    cases_of,
    constant,
    expression,
)
from sidelight.maps.read import Call
from sidelight.maps.static.names import Assigned, Codebase, Defined, Named, Public, Scope, Target
from sidelight.points import ROOTS, Choice, Expression
from sidelight.record import Mode

_HIDDEN: Final = "what it is shows when the code is imported: --import"
_TYPES: Final = ("start", "success", "failure")
_FLAGS: Final = ("span", "strict")
_IDS: Final = ("artifact_id", "organization_id", "transaction", "after_commit")
_UNKNOWN: Final = object()
_ENUMS: Final = ({"enum:StrEnum"}, {"enum:Enum", "builtins:str"})


class _Unknown(Exception):  # noqa: N818  # no error: it only shows on import
    """A value that is not in the source."""


class Values:
    """Reads values as they stand in some scope."""

    def __init__(self, code: Codebase) -> None:
        self._code = code

    def described(self, call: ast.Call, scope: Scope) -> Described:
        """What a call of ``emits`` asks for."""
        given: dict[str, ast.expr] = {}
        rest = None
        for name, value in _arguments(call):
            if name is None:
                rest = Unsaid(f"**{ast.unparse(value)}", _HIDDEN, hidden=True)
            else:
                given[name] = value
        said: dict[str, Any] = {"rest": rest}
        for name in _TYPES:
            said[name] = self._type(given.pop(name, None), scope)
        for name in _IDS:
            node = given.pop(name, None)
            said[name] = None if node is None or _is_none(node) else self._value(node, scope)
        for name in _FLAGS:
            if (node := given.pop(name, None)) is not None:
                said[name] = self._one_of((True, False), node, scope)
        if (node := given.pop("mode", None)) is not None:
            said["mode"] = self._one_of(get_args(Mode), node, scope)
        attributes = {name: self._value(node, scope) for name, node in given.items()}
        return Described(**said, attributes=attributes)

    def text(self, node: ast.expr, scope: Scope) -> str | None:
        """A text that stands in the source; None where it does not."""
        try:
            value = self._plain(node, scope)
        except _Unknown:
            return None
        return value if isinstance(value, str) else None

    def _one_of(self, known: tuple[Any, ...], node: ast.expr, scope: Scope) -> Any:
        try:
            value = self._plain(node, scope)
        except _Unknown:
            return _hidden(node)
        return value if value in known else Unsaid(repr(value), "the decorator refuses it")

    def _type(self, node: ast.expr | None, scope: Scope) -> Type | None:
        if node is None or _is_none(node):
            return None
        if isinstance(node, ast.Call):
            if self._code.resolve(node.func, scope) == Public("choose"):
                return self._choice(node, scope)
            return _hidden(node)
        if isinstance(node, ast.IfExp):
            types = tuple(filter(None, (self.text(n, scope) for n in (node.body, node.orelse))))
            return Unsaid(ast.unparse(node), _HIDDEN, hidden=True, types=types)
        target = self._code.resolve(node, scope)
        if isinstance(target, Assigned) and isinstance(target.value, ast.Call):
            return self._type(target.value, target.scope)
        return self.text(node, scope) or _hidden(node)

    def _choice(self, call: ast.Call, scope: Scope) -> Type:
        given = dict(zip(("by", "cases"), call.args, strict=False))
        given |= {each.arg: each.value for each in call.keywords if each.arg is not None}
        otherwise = given.get("otherwise")
        last = None if otherwise is None else self._type(otherwise, scope)
        cases = self._cases(given.get("cases"), scope)
        if isinstance(last, Unsaid) or _UNKNOWN in cases or "by" not in given:
            types = tuple(dict.fromkeys((*cases.values(), last)))
            known = tuple(type_ for type_ in types if isinstance(type_, str) and type_)
            return Unsaid(ast.unparse(call), _HIDDEN, hidden=True, types=known)
        assert last is None or isinstance(last, str)  # noqa: S101  # for the type checker
        texts = {key: type_ for key, type_ in cases.items() if isinstance(key, str)}
        by = self._value(given["by"], scope)
        return cases_of(by, texts, Choice(None, cases, last), whole=len(texts) == len(cases))

    def _cases(self, node: ast.expr | None, scope: Scope) -> dict[Any, str]:
        """The cases of a choice; one with the key `_UNKNOWN` where not all are in the source."""
        target = None if node is None else self._code.resolve(node, scope)
        if isinstance(target, Assigned):
            node, scope = target.value, target.scope
        if not isinstance(node, ast.Dict):
            return {_UNKNOWN: ""}
        cases: dict[Any, str] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            type_ = self.text(value, scope)
            try:
                read = _UNKNOWN if key is None or type_ is None else self._plain(key, scope)
            except _Unknown:
                read = _UNKNOWN
            if read is _UNKNOWN:  # its type is kept
                cases[object()] = type_ or ""
            cases[read] = type_ or ""
        return cases

    def _value(self, node: ast.expr, scope: Scope) -> Value:
        if isinstance(node, ast.Attribute) and self._is_other_enum(node.value, scope):
            return _hidden(node)
        target = self._code.resolve(node, scope, far=True)
        if isinstance(target, Assigned):
            value = self._value(target.value, target.scope)
            if isinstance(value, Unsaid):
                return msgspec.structs.replace(value, source=ast.unparse(node))
            return value
        if isinstance(node, ast.Lambda):
            return Unsaid(ast.unparse(node), NO_NAME)
        recorded = self._expression(node, scope)
        if recorded is None:
            recorded = _function(target, node)
        if recorded is None:
            with contextlib.suppress(_Unknown):
                recorded = constant(self._plain(node, scope))
        return _hidden(node) if recorded is None else recorded

    def _expression(self, node: ast.expr, scope: Scope) -> Value | None:
        """A recorded expression; None where it is something else."""
        steps: list[tuple[str, Any]] = []
        inner = node
        while not self._is_root(inner, scope):
            if isinstance(inner, ast.Attribute):
                steps.append(("attribute", inner.attr))
            elif isinstance(inner, ast.Subscript):
                steps.append(("item", inner.slice))
            else:
                return None
            inner = inner.value
        root = self._code.resolve(inner, scope)
        assert isinstance(root, Public)  # noqa: S101  # for the type checker
        try:
            known = tuple(
                (kind, self._plain(key, scope) if kind == "item" else key)
                for kind, key in reversed(steps)
            )
        except _Unknown:
            return _hidden(node)
        return expression(Expression(root.name, known))

    def _is_root(self, node: ast.expr, scope: Scope) -> bool:
        if not isinstance(node, ast.Name | ast.Attribute):
            return False
        target = self._code.resolve(node, scope)
        return isinstance(target, Public) and target.name in ROOTS

    def _plain(self, node: ast.expr, scope: Scope) -> Any:
        """A constant: as it stands, under a name that is assigned once, of an Enum of texts.

        Raises:
            _Unknown: it does not stand in the source.
        """
        if isinstance(node, ast.Attribute) and self._is_other_enum(node.value, scope):
            raise _Unknown
        if isinstance(node, ast.Name | ast.Attribute):
            target = self._code.resolve(node, scope, far=True)
            if isinstance(target, Assigned):
                return self._plain(target.value, target.scope)
            raise _Unknown
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            raise _Unknown from None

    def _is_other_enum(self, node: ast.expr, scope: Scope) -> bool:
        """Whether it is a class of an Enum whose members are no texts themselves."""
        target = self._code.resolve(node, scope, far=True)
        if not isinstance(target, Defined) or not isinstance(target.node, ast.ClassDef):
            return False
        resolved = (self._code.resolve(base, target.scope, far=True) for base in target.node.bases)
        bases = {getattr(base, "path", "") for base in resolved}
        if any(texts <= bases for texts in _ENUMS):
            return False
        return any(base.startswith("enum:") for base in bases)


def _function(target: Target | None, node: ast.expr) -> Value | None:
    """A function that has a name of its own; None for everything else."""
    if isinstance(target, Defined) and not isinstance(target.node, ast.ClassDef):
        nowhere = "<" in target.qualname
        return Unsaid(ast.unparse(node), NO_NAME) if nowhere else Call(call=target.path)
    if isinstance(target, Named) and target.path.startswith("builtins:"):
        function = getattr(builtins, target.path.partition(":")[2], None)
        return Call(call=target.path) if inspect.isbuiltin(function) else None
    return None


def _arguments(call: ast.Call) -> Iterator[tuple[str | None, ast.expr]]:
    """The arguments by name; None for what comes with stars."""
    for index, value in enumerate(call.args):
        yield ("success" if index == 0 and not isinstance(value, ast.Starred) else None), value
    for keyword in call.keywords:
        value = keyword.value
        keys = value.keys if keyword.arg is None and isinstance(value, ast.Dict) else None
        if keys and all(isinstance(k, ast.Constant) and isinstance(k.value, str) for k in keys):
            assert isinstance(value, ast.Dict)  # noqa: S101  # for the type checker
            for key, each in zip(keys, value.values, strict=True):
                yield key.value, each  # type: ignore[union-attr]
        else:
            yield keyword.arg, value


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _hidden(node: ast.expr) -> Unsaid:
    return Unsaid(ast.unparse(node), _HIDDEN, hidden=True)
