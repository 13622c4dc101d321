"""A function found by its path, without importing it: what a map names is there or gone."""

from __future__ import annotations

import ast
from difflib import get_close_matches
from inspect import Parameter
from typing import Final

import msgspec

from sidelight.maps.static.files import find
from sidelight.maps.static.names import Codebase, Defined, Function, Named, Scope

_TRANSACTIONS: Final = frozenset(
    {
        "sqlalchemy.orm:Session",
        "sqlalchemy.orm.session:Session",
        "sqlalchemy.ext.asyncio:AsyncSession",
        "sqlalchemy.ext.asyncio:AsyncConnection",
        "sqlalchemy:Connection",
        "sqlalchemy.engine:Connection",
        "psycopg:Connection",
        "psycopg:AsyncConnection",
    }
)


class Seen(msgspec.Struct, frozen=True):
    """A function.

    Attributes:
        parameters: as its definition has them.
        transaction: the parameter whose type is a transaction of the caller's: "session: Session".
    """

    parameters: tuple[Parameter, ...]
    transaction: str = ""


class Gone(msgspec.Struct, frozen=True):
    """There is no such function."""

    problem: str
    remedy: str


class Unseen(msgspec.Struct, frozen=True):
    """It may be there: the source does not show it."""

    why: str


class Functions:
    """Finds functions in source."""

    def __init__(self, code: Codebase) -> None:
        self._code = code

    def look(self, path: str) -> Seen | Gone | Unseen:
        """Look for ``package.module:Class.method``."""
        found = self.defined(path)
        if not isinstance(found, Defined):
            return found
        if isinstance(found.node, ast.ClassDef):
            return Gone(f"{path} is a class", "name its methods")
        return Seen(parameters_of(found.node), self._transaction(found.node, found.scope))

    def defined(self, path: str) -> Defined | Gone | Unseen:
        """Where the function of a path is defined, by this name or another."""
        name, _, qualname = path.partition(":")
        if find(name) is None:
            return Gone(f"there is no module {name}", "see where it has gone")
        try:
            module = self._code.load(name)
        except (SyntaxError, ValueError, OSError) as error:
            return Unseen(f"{name} cannot be read: {error}")
        if module is None:
            return Unseen(f"{name} has no Python source")
        *outer, last = qualname.split(".")
        scopes = [module.scope]
        for part in outer:
            inside = self._classes(part, scopes)
            if not isinstance(inside, list):
                return inside
            scopes = inside
        return self._find(last, scopes)

    def _classes(self, name: str, scopes: list[Scope]) -> list[Scope] | Gone | Unseen:
        """The scope of a class and of those that it inherits from."""
        found = self._find(name, scopes)
        if not isinstance(found, Defined):
            return found
        if not isinstance(found.node, ast.ClassDef):
            return Gone(f"{found.path} is no class", "write package.module:Class.method")
        return self._with_bases(found, {found.path})

    def _with_bases(self, found: Defined, seen: set[str]) -> list[Scope]:
        assert isinstance(found.node, ast.ClassDef)  # noqa: S101  # for the type checker
        scope = found.scope.inner(found.node)
        scopes = [scope]
        for base in found.node.bases:
            target = self._code.resolve(base, found.scope, far=True)
            if isinstance(target, Defined) and isinstance(target.node, ast.ClassDef):
                if target.path in seen:  # of its own name: what it was before is not known
                    scope.open = scope.open or target.node is found.node
                else:
                    seen.add(target.path)
                    scopes += self._with_bases(target, seen)
            elif target != Named("builtins:object"):
                scope.open = True  # of what it inherits nothing is known
        scope.open = scope.open or bool(found.node.keywords)  # a metaclass
        return scopes

    def _find(self, name: str, scopes: list[Scope]) -> Defined | Gone | Unseen:
        known: set[str] = set()
        certain = True
        for scope in scopes:
            target = self._code.member(scope, name)
            if isinstance(target, Defined):
                return target
            if name in scope.bindings:
                return Unseen(f"the source does not show what {name} is")
            open_ = scope.open or bool(scope.stars) or "__getattr__" in scope.bindings
            certain = certain and not open_
            known |= scope.bindings.keys()
        if not certain:
            return Unseen(f"the source does not show where {name} comes from")
        close = get_close_matches(name, known, 1)
        remedy = f"did you mean {close[0]}?" if close else "see where it has gone"
        return Gone("it is not there", remedy)

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
            if isinstance(target, Named) and target.path in _TRANSACTIONS:
                return f"{each.arg}: {ast.unparse(annotation)}"
        return ""


def parameters_of(node: Function) -> tuple[Parameter, ...]:
    """The parameters of a definition."""
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    first_default = len(positional) - len(arguments.defaults)
    found = []
    for index, each in enumerate(positional):
        only = index < len(arguments.posonlyargs)
        kind = Parameter.POSITIONAL_ONLY if only else Parameter.POSITIONAL_OR_KEYWORD
        default = None if index >= first_default else Parameter.empty
        found.append(Parameter(each.arg, kind, default=default))
    if arguments.vararg is not None:
        found.append(Parameter(arguments.vararg.arg, Parameter.VAR_POSITIONAL))
    for each, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        default = Parameter.empty if value is None else None
        found.append(Parameter(each.arg, Parameter.KEYWORD_ONLY, default=default))
    if arguments.kwarg is not None:
        found.append(Parameter(arguments.kwarg.arg, Parameter.VAR_KEYWORD))
    return tuple(found)
