"""The function of a path, found in source: whether the code has what a map names."""

from __future__ import annotations

import ast
from inspect import Parameter
from itertools import pairwise
from typing import Final, TypeAlias

import msgspec

from sidelight.maps.listing import Registrar
from sidelight.maps.private_names import nearest
from sidelight.maps.static.modules import find
from sidelight.maps.static.names import Codebase, Definition, External, Function, Scope
from sidelight.maps.static.registrars import has_decorator, registrars_on, unknown_decorator
from sidelight.transactions import ANNOTATIONS

LOCALS: Final = "<locals>"
"""Stands in a path between a function and what it defines."""


class FoundFunction(msgspec.Struct, frozen=True):
    """A function.

    Attributes:
        parameters: the parameters of its definition.
        transaction: the parameter that is annotated as a database session or connection:
            "session: Session"; "" where there is none.
        registrar: a decorator that hands the bare function to a framework.
        is_property: whether a property holds the function.
        may_replace: a decorator that may leave an object with other parameters; "" where there is
            none.
    """

    parameters: tuple[Parameter, ...]
    transaction: str = ""
    registrar: Registrar | None = None
    is_property: bool = False
    may_replace: str = ""


class MissingFunction(msgspec.Struct, frozen=True):
    """The code has no such function."""

    problem: str
    remedy: str


class UnknownFunction(msgspec.Struct, frozen=True):
    """A function that the source does not show."""

    reason: str


_NotFound: TypeAlias = MissingFunction | UnknownFunction
FoundOrNot: TypeAlias = FoundFunction | _NotFound


class SourceFunctions:
    """Finds functions in source, without importing it."""

    def __init__(self, code: Codebase) -> None:
        self._code = code

    def find(self, path: str) -> FoundOrNot:
        """Find ``package.module:Class.method``, or ``…:function.<locals>.function``."""
        found = self.definition(path)
        if not isinstance(found, Definition):
            return found
        if isinstance(found.node, ast.ClassDef):
            return MissingFunction(f"{path} is a class", "name its methods")
        decorators = registrars_on(self._code, found.node.decorator_list, found.scope)
        return FoundFunction(
            _parameters(found.node, found.scope),
            transaction=self._transaction(found.node, found.scope),
            registrar=next((each for each in decorators if each and each.certain), None),
            is_property=has_decorator(found.node, "property", "cached_property", "setter"),
            may_replace=unknown_decorator(self._code, found.node, found.scope),
        )

    def definition(self, path: str) -> Definition | MissingFunction | UnknownFunction:
        """Find the definition of a path, by this name or another."""
        name, _, qualname = path.partition(":")
        if find(name) is None:
            here = find(name.partition(".")[0]) is not None
            remedy = "name its successor" if here else "run this in the directory of the code"
            return MissingFunction(f"there is no module {name}", remedy)
        try:
            module = self._code.load(name)
        except (SyntaxError, ValueError, OSError) as error:
            return UnknownFunction(f"{name} cannot be read: {error}")
        if module is None:
            return UnknownFunction(f"{name} has no Python source")
        *outer, last = qualname.split(".")
        scopes = [module.scope]
        for part, inner in pairwise((*outer, last)):
            if part == LOCALS:
                continue
            inside = self._inside(part, scopes, is_function=inner == LOCALS)
            if not isinstance(inside, list):
                return inside
            scopes = inside
        return self._find(last, scopes)

    def _inside(
        self, name: str, scopes: list[Scope], *, is_function: bool
    ) -> list[Scope] | _NotFound:
        """Return the scope of a function, or the scopes of a class and of its base classes."""
        found = self._find(name, scopes)
        if not isinstance(found, Definition):
            return found
        if is_function:
            return [found.scope.inner(found.node)]
        if not isinstance(found.node, ast.ClassDef):
            return MissingFunction(f"{found.path} is no class", "write package.module:Class.method")
        return self._with_bases(found, {found.path})

    def _with_bases(self, found: Definition, seen: set[str]) -> list[Scope]:
        assert isinstance(found.node, ast.ClassDef)  # noqa: S101  # for the type checker
        scope = found.scope.inner(found.node)
        scopes = [scope]
        for base in found.node.bases:
            target = self._code.resolve(base, found.scope, anywhere=True)
            if isinstance(target, Definition) and isinstance(target.node, ast.ClassDef):
                if target.path in seen:  # the class before had the same name
                    scope.incomplete = scope.incomplete or target.node is found.node
                else:
                    seen.add(target.path)
                    scopes += self._with_bases(target, seen)
            elif target != External("builtins:object"):
                scope.incomplete = True  # the base class is not known
        scope.incomplete = scope.incomplete or bool(found.node.keywords)  # a metaclass
        return scopes

    def _find(self, name: str, scopes: list[Scope]) -> Definition | _NotFound:
        known: set[str] = set()
        certain = True
        stored = scopes[0].stored(name)
        for scope in scopes:
            target = self._code.member(scope, stored)
            if isinstance(target, Definition):
                return target
            if stored in scope.bindings:
                return UnknownFunction(f"the source does not show what {name} is")
            incomplete = scope.incomplete or "__getattr__" in scope.bindings
            certain = certain and not incomplete and not scope.star_imports
            known |= scope.bindings.keys()
        if not certain:
            return UnknownFunction(f"the source does not show where {name} comes from")
        close = nearest(name, known, scopes[0].class_name)
        remedy = f"did you mean {close}?" if close else "name its successor"
        return MissingFunction("it is not there", remedy)

    def _transaction(self, node: Function, scope: Scope) -> str:
        arguments = node.args
        for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            if each.annotation is None:
                continue
            annotation = each.annotation
            if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
                try:
                    annotation = ast.parse(annotation.value, mode="eval").body
                except SyntaxError:
                    continue
            target = self._code.resolve(annotation, scope)
            if isinstance(target, External) and target.path in ANNOTATIONS:
                return f"{each.arg}: {ast.unparse(annotation)}"
        return ""


def _parameters(node: Function, scope: Scope) -> tuple[Parameter, ...]:
    """Return the parameters of a definition in ``scope``; a default value is None."""
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    first_default = len(positional) - len(arguments.defaults)
    found = []
    for index, each in enumerate(positional):
        only = index < len(arguments.posonlyargs)
        kind = Parameter.POSITIONAL_ONLY if only else Parameter.POSITIONAL_OR_KEYWORD
        default = None if index >= first_default else Parameter.empty
        found.append(Parameter(scope.stored(each.arg), kind, default=default))
    if arguments.vararg is not None:
        found.append(Parameter(scope.stored(arguments.vararg.arg), Parameter.VAR_POSITIONAL))
    for each, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        default = Parameter.empty if value is None else None
        found.append(Parameter(scope.stored(each.arg), Parameter.KEYWORD_ONLY, default=default))
    if arguments.kwarg is not None:
        found.append(Parameter(scope.stored(arguments.kwarg.arg), Parameter.VAR_KEYWORD))
    return tuple(found)
