"""What a name stands for, followed through assignments and imports; nothing is imported.

Modules outside of the packages that are read are opened only if they mention sidelight: a
decorator of theirs cannot be one of ours then.
"""

from __future__ import annotations

import ast
import builtins
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias

import msgspec

from sidelight.maps.static.files import find, source_of

_OURS: Final = "sidelight"
_FOLLOWED: Final = 30  # imports and assignments on the way to one name
Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


class Public(msgspec.Struct, frozen=True):
    """One of sidelight's own: ``emits``, ``arg``."""

    name: str


class Named(msgspec.Struct, frozen=True):
    """A module, or a thing in one that nobody has looked into; ``path`` as in ``module:name``."""

    path: str


class Defined(msgspec.Struct, frozen=True, eq=False):
    """A function or class, and where it is."""

    module: str
    qualname: str
    node: Function | ast.ClassDef
    scope: Scope

    @property
    def path(self) -> str:
        """``package.module:Class.method``."""
        return f"{self.module}:{self.qualname}"


class Assigned(msgspec.Struct, frozen=True, eq=False):
    """What one assignment, and no other, gives to a name."""

    value: ast.expr
    scope: Scope


Target: TypeAlias = Public | Named | Defined | Assigned


class _Import(msgspec.Struct, frozen=True):
    module: str
    name: str | None  # None for the module itself


class _Other(msgspec.Struct, frozen=True):
    """A loop's variable, a value out of a tuple: it may be anything."""


_Binding: TypeAlias = _Import | Function | ast.ClassDef | ast.expr | _Other


class Scope:
    """The names of a module, class or function, and the scopes around it.

    Attributes:
        stars: modules of which it imports everything.
        open: there may be names in it that nobody can tell.
    """

    def __init__(
        self, module: Module, body: Iterable[ast.stmt], qualname: str, outer: Scope | None
    ) -> None:
        self.module = module
        self.qualname = qualname
        self.outer = outer
        self.bindings: dict[str, list[_Binding]] = defaultdict(list)
        self.stars: list[str] = []
        self.open = False
        self.known: dict[tuple[str, bool], Target | None] = {}
        for statement in body:
            self._collect(statement)

    def inner(self, node: Function | ast.ClassDef) -> Scope:
        """The scope of a function or class in this one."""
        qualname = self.named(node.name)
        if isinstance(node, ast.ClassDef):
            return Scope(self.module, node.body, qualname, self)
        outer = self
        while outer.is_class and outer.outer is not None:  # a function does not see its class
            outer = outer.outer
        scope = Scope(self.module, node.body, f"{qualname}.<locals>", outer)
        arguments = node.args
        named = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
        for each in (*named, arguments.vararg, arguments.kwarg):
            if each is not None:
                scope.bindings[each.arg].append(_Other())
        return scope

    @property
    def is_class(self) -> bool:
        """Whether it is the body of a class."""
        return bool(self.qualname) and not self.qualname.endswith("<locals>")

    def named(self, name: str) -> str:
        """The qualified name of what is called so in here."""
        return f"{self.qualname}.{name}" if self.qualname else name

    def _collect(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            self.bindings[statement.name].append(statement)
        elif isinstance(statement, ast.Import):
            for alias in statement.names:
                name = alias.asname or alias.name.partition(".")[0]
                self.bindings[name].append(_Import(alias.name if alias.asname else name, None))
        elif isinstance(statement, ast.ImportFrom):
            module = self.module.absolute(statement)
            for alias in statement.names:
                if alias.name == "*":
                    self.stars.append(module)
                else:
                    self.bindings[alias.asname or alias.name].append(_Import(module, alias.name))
        elif isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            self._assign(statement.targets[0], statement.value)
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            self._assign(statement.target, statement.value)
        elif not isinstance(statement, ast.AnnAssign):
            self._collect_parts(statement)

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self.bindings[target.id].append(value)
        else:
            self._collect_parts(target)

    def _collect_parts(self, node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt):
                self._collect(child)
            elif isinstance(child, ast.Name) and not isinstance(child.ctx, ast.Load):
                self.bindings[child.id].append(_Other())
            elif not isinstance(child, ast.Lambda):
                self._collect_parts(child)


class Module:
    """A module's source."""

    def __init__(self, name: str, path: str, text: bytes, *, package: bool) -> None:
        """Parse it.

        Raises:
            SyntaxError, ValueError: it is no Python.
        """
        self.name = name
        self.path = path
        self.package = package
        self.tree = ast.parse(text, path)
        self.scope = Scope(self, self.tree.body, "", None)

    def absolute(self, statement: ast.ImportFrom) -> str:
        """The module that ``from … import`` names."""
        if not statement.level:
            return statement.module or ""
        parts = self.name.split(".")
        keep = len(parts) - statement.level + self.package
        return ".".join([*parts[:keep], *filter(None, [statement.module])])


class Codebase:
    """Modules that are read, once each.

    Args:
        packages: the top-level packages that are read in full.
    """

    def __init__(self, packages: Iterable[str]) -> None:
        self._packages = frozenset(packages)
        self._modules: dict[str, Module | None] = {}
        self._passed_over: set[str] = set()
        self._chosen: dict[tuple[str, ...], list[str]] = {}

    def load(self, name: str, *, far: bool = True) -> Module | None:
        """Read a module; None where there is no Python source of it, or nobody asked for it.

        Args:
            name: of the module.
            far: also if it is of another package and does not mention sidelight.

        Raises:
            SyntaxError, ValueError, OSError: it cannot be read, or is no Python.
        """
        if name in self._modules:
            return self._modules[name]
        if not far and name in self._passed_over:
            return None
        spec = find(name)
        path = None if spec is None else source_of(spec)
        if spec is None or path is None:
            self._modules[name] = None
            return None
        text = path.read_bytes()
        if not far and name.partition(".")[0] not in self._packages and b"sidelight" not in text:
            self._passed_over.add(name)
            return None
        package = spec.submodule_search_locations is not None
        module = self._modules[name] = Module(name, str(path), text, package=package)
        return module

    def chosen(
        self, names: Sequence[str], choose: Callable[[Sequence[str]], list[str]]
    ) -> list[str]:
        """Which modules of these packages are read, decided once."""
        if tuple(names) not in self._chosen:
            self._chosen[tuple(names)] = choose(names)
        return self._chosen[tuple(names)]

    def replace(self, module: Module) -> None:
        """Read this in place of what is in the file."""
        self._modules[module.name] = module

    def resolve(self, node: ast.expr, scope: Scope, *, far: bool = False) -> Target | None:
        """What an expression of names and dots stands for; None where that is not known.

        Args:
            node: the expression.
            scope: where it stands.
            far: also look into modules that have nothing to do with sidelight.
        """
        return self._resolve(node, scope, far, _FOLLOWED)

    def member(self, scope: Scope, name: str) -> Target | None:
        """What a name of a scope stands for, wherever else it may be looked for."""
        return self._in_scope(name, scope, far=True, left=_FOLLOWED)

    def _resolve(self, node: ast.expr, scope: Scope, far: bool, left: int) -> Target | None:
        if left <= 0:
            return None
        if isinstance(node, ast.Name):
            return self._by_name(node.id, scope, far, left)
        if isinstance(node, ast.Attribute):
            owner = self._resolve(node.value, scope, far, left - 1)
            return self._member(owner, node.attr, far, left)
        return None

    def _by_name(self, name: str, scope: Scope, far: bool, left: int) -> Target | None:
        around: Scope | None = scope
        while around is not None:
            if name in around.bindings or around.stars:
                found = self._in_scope(name, around, far, left)
                if found is not None or name in around.bindings:
                    return found
            around = around.outer
        return Named(f"builtins:{name}") if hasattr(builtins, name) else None

    def _in_scope(self, name: str, scope: Scope, far: bool, left: int) -> Target | None:
        key = (name, far)
        if key not in scope.known:
            scope.known[key] = None  # a name that leads back to itself
            scope.known[key] = self._search(name, scope, far, left)
        return scope.known[key]

    def _search(self, name: str, scope: Scope, far: bool, left: int) -> Target | None:
        found = scope.bindings.get(name, [])
        for each in reversed(found):  # the last definition counts
            target = self._bound(each, name, scope, len(found) == 1, far, left)
            if target is not None:
                return target
        for module in scope.stars if not found else ():
            target = self._in_module(module, name, far, left - 1)
            if target is not None and not isinstance(target, Named):
                return target
        return None

    def _bound(
        self, binding: _Binding, name: str, scope: Scope, alone: bool, far: bool, left: int
    ) -> Target | None:
        if isinstance(binding, _Import):
            if binding.name is None:
                return Named(binding.module)
            return self._in_module(binding.module, binding.name, far, left - 1)
        if isinstance(binding, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            return Defined(scope.module.name, scope.named(name), binding, scope)
        if isinstance(binding, _Other) or not alone:
            return None
        if isinstance(binding, ast.Name | ast.Attribute):  # another name for the same
            target = self._resolve(binding, scope, far, left - 1)
            if target is not None:
                return target
        return Assigned(binding, scope)

    def _in_module(self, module: str, name: str, far: bool, left: int) -> Target | None:
        if module.partition(".")[0] == _OURS:
            return Named(f"{module}.{name}") if find(f"{module}.{name}") else Public(name)
        if left <= 0:
            return None
        try:
            loaded = self.load(module, far=far)
        except (SyntaxError, ValueError, OSError):
            loaded = None
        if loaded is not None:
            target = self._in_scope(name, loaded.scope, far, left)
            if target is not None:
                return target
        if find(f"{module}.{name}") is not None:
            return Named(f"{module}.{name}")
        return None if loaded is not None else Named(f"{module}:{name}")

    def _member(self, owner: Target | None, name: str, far: bool, left: int) -> Target | None:
        if isinstance(owner, Named) and ":" not in owner.path:
            return self._in_module(owner.path, name, far, left - 1)
        if isinstance(owner, Named):
            return Named(f"{owner.path}.{name}")
        if isinstance(owner, Defined) and isinstance(owner.node, ast.ClassDef):
            inside = owner.scope.inner(owner.node)
            return self._in_scope(name, inside, far, left)
        return None
