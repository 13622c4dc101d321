"""The event types that some code names: those of its catalogue, and those emitted by `emit`."""

from __future__ import annotations

import ast
from collections.abc import Sequence

import msgspec

from sidelight.maps.static.names import Codebase, Module, Public, Scope
from sidelight.maps.static.points import modules
from sidelight.maps.static.values import Values


class Events(msgspec.Struct):
    """What was found.

    Attributes:
        declared: by ``@catalogue.event``, and where.
        emitted: by a call of ``emit``, or by what the catalogue says of it.
        remarks: what the source does not show.
    """

    declared: dict[str, str] = msgspec.field(default_factory=dict)
    emitted: set[str] = msgspec.field(default_factory=set)
    remarks: list[str] = msgspec.field(default_factory=list)


def read_events(code: Codebase, names: Sequence[str]) -> Events:
    """The event types of modules and packages, with all that is in them."""
    events = Events()
    for module in modules(code, names, []):
        try:
            _Finder(code, module, events).walk(module.tree.body, module.scope)
        except RecursionError:
            events.remarks.append(f"{module.path}: it is nested too deep to be read")
    return events


class _Finder(ast.NodeVisitor):
    def __init__(self, code: Codebase, module: Module, events: Events) -> None:
        self._code = code
        self._values = Values(code)
        self._module = module
        self._scope = module.scope
        self._events = events

    def walk(self, body: Sequence[ast.AST], scope: Scope) -> None:
        outer, self._scope = self._scope, scope
        for node in body:
            self.visit(node)
        self._scope = outer

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.walk([*node.decorator_list, node.args], self._scope)
        self.walk(node.body, self._scope.inner(node))

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.walk([*node.decorator_list, *node.bases, *node.keywords], self._scope)
        self.walk(node.body, self._scope.inner(node))

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        if isinstance(node.func, ast.Attribute) and node.func.attr == "event":
            if self._code.resolve(node.func.value, self._scope) == Public("catalogue"):
                self._declares(node)
        elif self._code.resolve(node.func, self._scope) == Public("emit"):
            type_ = self._values.text(node.args[0], self._scope) if node.args else None
            if type_ is None:
                self._remark(node, "which event it emits")
            else:
                self._events.emitted.add(type_)

    def _declares(self, node: ast.Call) -> None:
        type_ = self._values.text(node.args[0], self._scope) if node.args else None
        if type_ is None:
            self._remark(node, "which event it declares")
            return
        self._events.declared[type_] = f"{self._module.path}:{node.lineno}"
        if any(keyword.arg == "emitted_by" for keyword in node.keywords):
            self._events.emitted.add(type_)

    def _remark(self, node: ast.Call, what: str) -> None:
        self._events.remarks.append(
            f"{self._module.path}:{node.lineno}: the source does not show {what}"
        )
