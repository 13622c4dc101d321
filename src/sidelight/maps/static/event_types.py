"""The event types that some code names: by its catalogue, and by calls of `emit`."""

from __future__ import annotations

import ast
from collections.abc import Sequence

import msgspec

from sidelight.maps.static.arguments import Arguments
from sidelight.maps.static.decorated import read_modules
from sidelight.maps.static.names import Codebase, Module, ScopeVisitor, Sidelight


class EventTypes(msgspec.Struct):
    """The event types of some code.

    Attributes:
        declared: each type of a ``@catalogue.event``, with its place.
        emitted: types that a call of ``emit`` names, or that the catalogue names an emitter for.
        remarks: calls whose type the source does not show.
    """

    declared: dict[str, str] = msgspec.field(default_factory=dict)
    emitted: set[str] = msgspec.field(default_factory=set)
    remarks: list[str] = msgspec.field(default_factory=list)


def read_event_types(code: Codebase, names: Sequence[str]) -> EventTypes:
    """Read the event types of modules and packages, submodules included."""
    found = EventTypes()
    for module in read_modules(code, names, []):
        try:
            _TypeFinder(code, module, found).visit_body(module.tree.body, module.scope)
        except RecursionError:
            found.remarks.append(f"{module.path}: it is nested too deep to be read")
    return found


class _TypeFinder(ScopeVisitor):
    def __init__(self, code: Codebase, module: Module, found: EventTypes) -> None:
        super().__init__(module.scope)
        self._code = code
        self._arguments = Arguments(code)
        self._path = module.path
        self._found = found

    def visit_Call(self, node: ast.Call) -> None:  # noqa: N802  # the name that ast calls
        self.generic_visit(node)
        if isinstance(node.func, ast.Attribute) and node.func.attr == "event":
            if self._code.resolve(node.func.value, self.scope) != Sidelight("catalogue"):
                return
            if (type_ := self._type(node, "declares")) is not None:
                self._found.declared[type_] = f"{self._path}:{node.lineno}"
                if any(keyword.arg == "emitted_by" for keyword in node.keywords):
                    self._found.emitted.add(type_)
        elif (
            self._code.resolve(node.func, self.scope) == Sidelight("emit")
            and (type_ := self._type(node, "emits")) is not None
        ):
            self._found.emitted.add(type_)

    def _type(self, node: ast.Call, verb: str) -> str | None:
        """Return the event type that is the first argument of a call."""
        type_ = self._arguments.text(node.args[0], self.scope) if node.args else None
        if type_ is None:
            place = f"{self._path}:{node.lineno}"
            self._found.remarks.append(f"{place}: the source does not show which event it {verb}")
        return type_
