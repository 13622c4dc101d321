"""Names followed to their definitions, through assignments and imports; nothing is imported.

A module outside of the packages that are read is parsed only if it mentions sidelight, because no
other module can hold another name of ``emits``.
"""

from __future__ import annotations

import ast
import builtins
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias

import msgspec

from sidelight.maps.private_names import mangled
from sidelight.maps.static.modules import find, source_of

_PACKAGE: Final = "sidelight"
_MAX_HOPS: Final = 30  # imports and assignments that are followed for one name
Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


class Sidelight(msgspec.Struct, frozen=True):
    """A public name of sidelight: ``emits``, ``arg``."""

    name: str


class External(msgspec.Struct, frozen=True):
    """A module (``path`` is its name), or a name in a module that is not read (``module:name``)."""

    path: str


class Definition(msgspec.Struct, frozen=True, eq=False):
    """The definition of a function or class."""

    module: str
    qualname: str
    node: Function | ast.ClassDef
    scope: Scope

    @property
    def path(self) -> str:
        """``package.module:Class.method``."""
        return f"{self.module}:{self.qualname}"


class Assignment(msgspec.Struct, frozen=True, eq=False):
    """The value of a name that is assigned exactly once."""

    value: ast.expr
    scope: Scope


Target: TypeAlias = Sidelight | External | Definition | Assignment


class _Import(msgspec.Struct, frozen=True):
    module: str
    name: str | None  # None for the module itself


class _Unknown(msgspec.Struct, frozen=True):
    """A binding whose value is not known: a loop variable, an element of a tuple."""


_Binding: TypeAlias = _Import | Function | ast.ClassDef | ast.expr | _Unknown


class Scope:
    """The names of a module, class or function, and the scopes around it.

    Attributes:
        class_name: the innermost class around it, which completes private names; "" for none.
        bindings: by name; a private name is mangled, as Python stores it.
        star_imports: the modules of ``from … import *``.
        incomplete: the scope may hold further names, which the source does not show.
    """

    def __init__(
        self,
        module: Module,
        body: Iterable[ast.stmt],
        qualname: str = "",
        outer: Scope | None = None,
        class_name: str = "",
    ) -> None:
        self.module = module
        self.qualname = qualname
        self.outer = outer
        self.class_name = class_name
        self.bindings: dict[str, list[_Binding]] = defaultdict(list)
        self.star_imports: list[str] = []
        self.incomplete = False
        self.resolved: dict[tuple[str, bool], Target | None] = {}
        for statement in body:
            self._collect(statement)

    def inner(self, node: Function | ast.ClassDef) -> Scope:
        """Return the scope of a function or class that this scope defines."""
        qualname = self.named(node.name)
        if isinstance(node, ast.ClassDef):
            return Scope(self.module, node.body, qualname, self, node.name)
        outer = self
        while outer.is_class and outer.outer is not None:  # a method does not see its class
            outer = outer.outer
        scope = Scope(self.module, node.body, f"{qualname}.<locals>", outer, self.class_name)
        arguments = node.args
        named = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
        for each in (*named, arguments.vararg, arguments.kwarg):
            if each is not None:
                scope._bind(each.arg, _Unknown())
        return scope

    @property
    def is_class(self) -> bool:
        """Whether this is the body of a class."""
        return bool(self.qualname) and not self.qualname.endswith("<locals>")

    def named(self, name: str) -> str:
        """Return the qualified name of a name in this scope."""
        return f"{self.qualname}.{name}" if self.qualname else name

    def stored(self, name: str) -> str:
        """Return the name that Python uses for a name in this scope."""
        return mangled(name, self.class_name)

    def _bind(self, name: str, binding: _Binding) -> None:
        self.bindings[self.stored(name)].append(binding)

    def _collect(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            self._bind(statement.name, statement)
        elif isinstance(statement, ast.Import):
            for alias in statement.names:
                name = alias.asname or alias.name.partition(".")[0]
                self._bind(name, _Import(alias.name if alias.asname else name, None))
        elif isinstance(statement, ast.ImportFrom):
            module = self.module.absolute(statement)
            for alias in statement.names:
                if alias.name == "*":
                    self.star_imports.append(module)
                else:
                    self._bind(alias.asname or alias.name, _Import(module, alias.name))
        elif isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            self._assign(statement.targets[0], statement.value)
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            self._assign(statement.target, statement.value)
        elif not isinstance(statement, ast.AnnAssign):
            self._collect_parts(statement)

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self._bind(target.id, value)
        else:
            self._collect_parts(target)

    def _collect_parts(self, node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt):
                self._collect(child)
            elif isinstance(child, ast.Name) and not isinstance(child.ctx, ast.Load):
                self._bind(child.id, _Unknown())
            elif not isinstance(child, ast.Lambda):
                self._collect_parts(child)


class Module:
    """The source of a module."""

    def __init__(self, name: str, path: str, text: bytes, *, package: bool) -> None:
        """Parse the source.

        Raises:
            SyntaxError, ValueError: the text is no Python.
        """
        self.name = name
        self.path = path
        self.package = package
        self.tree = ast.parse(text, path)
        self.scope = Scope(self, self.tree.body)

    def absolute(self, statement: ast.ImportFrom) -> str:
        """Return the absolute name of the module that ``from … import`` names."""
        if not statement.level:
            return statement.module or ""
        parts = self.name.split(".")
        keep = len(parts) - statement.level + self.package
        return ".".join([*parts[:keep], *filter(None, [statement.module])])


class Codebase:
    """The modules of some code, each read once.

    Args:
        packages: the top-level packages that are read in full.
    """

    def __init__(self, packages: Iterable[str]) -> None:
        self._packages = frozenset(packages)
        self._modules: dict[str, Module | None] = {}
        self._unrelated: set[str] = set()
        self._selections: dict[tuple[str, ...], list[str]] = {}

    def load(self, name: str, *, anywhere: bool = True) -> Module | None:
        """Read a module; None where it has no Python source, or is not to be read.

        Args:
            name: the module's name.
            anywhere: read it even if it is of another package and does not mention sidelight.

        Raises:
            SyntaxError, ValueError, OSError: it cannot be read, or is no Python.
        """
        # Checked first, because a module that is loaded already must not change the answer.
        if not anywhere and name in self._unrelated:
            return None
        if name in self._modules:
            return self._modules[name]
        spec = find(name)
        path = None if spec is None else source_of(spec)
        if spec is None or path is None:
            self._modules[name] = None
            return None
        text = path.read_bytes()
        if name.partition(".")[0] not in self._packages and b"sidelight" not in text:
            self._unrelated.add(name)
            if not anywhere:
                return None
        package = spec.submodule_search_locations is not None
        module = self._modules[name] = Module(name, str(path), text, package=package)
        return module

    def selection(
        self, names: Sequence[str], select: Callable[[Sequence[str]], list[str]]
    ) -> list[str]:
        """Return the modules of these packages that are read; ``select`` decides once."""
        if tuple(names) not in self._selections:
            self._selections[tuple(names)] = select(names)
        return self._selections[tuple(names)]

    def replace(self, module: Module) -> None:
        """Read this module in place of its file."""
        self._modules[module.name] = module

    def resolve(self, node: ast.expr, scope: Scope, *, anywhere: bool = False) -> Target | None:
        """Resolve an expression of names and dots; None where its target is not known.

        Args:
            node: the expression.
            scope: the scope in which it stands.
            anywhere: follow it into modules that do not mention sidelight, too.
        """
        return self._resolve(node, scope, anywhere, _MAX_HOPS)

    def member(self, scope: Scope, name: str) -> Target | None:
        """Resolve a name of one scope, without a look at the scopes around it."""
        return self._in_scope(name, scope, anywhere=True, hops=_MAX_HOPS)

    def _resolve(self, node: ast.expr, scope: Scope, anywhere: bool, hops: int) -> Target | None:
        if hops <= 0:
            return None
        if isinstance(node, ast.Name):
            return self._by_name(scope.stored(node.id), scope, anywhere, hops)
        if isinstance(node, ast.Attribute):
            owner = self._resolve(node.value, scope, anywhere, hops - 1)
            return self._member(owner, scope.stored(node.attr), anywhere, hops)
        return None

    def _by_name(self, name: str, scope: Scope, anywhere: bool, hops: int) -> Target | None:
        around: Scope | None = scope
        while around is not None:
            if name in around.bindings or around.star_imports:
                found = self._in_scope(name, around, anywhere, hops)
                if found is not None or name in around.bindings:
                    return found
            around = around.outer
        return External(f"builtins:{name}") if hasattr(builtins, name) else None

    def _in_scope(self, name: str, scope: Scope, anywhere: bool, hops: int) -> Target | None:
        key = (name, anywhere)
        if key not in scope.resolved:
            scope.resolved[key] = None  # ends a name that leads back to itself
            scope.resolved[key] = self._search(name, scope, anywhere, hops)
        return scope.resolved[key]

    def _search(self, name: str, scope: Scope, anywhere: bool, hops: int) -> Target | None:
        found = scope.bindings.get(name, [])
        for each in reversed(found):  # the last definition counts
            target = self._bound(each, scope, len(found) == 1, anywhere, hops)
            if target is not None:
                return target
        for module in scope.star_imports if not found else ():
            target = self._in_module(module, name, anywhere, hops - 1)
            if target is not None and not isinstance(target, External):
                return target
        return None

    def _bound(
        self, binding: _Binding, scope: Scope, alone: bool, anywhere: bool, hops: int
    ) -> Target | None:
        if isinstance(binding, _Import):
            if binding.name is None:
                return External(binding.module)
            return self._in_module(binding.module, binding.name, anywhere, hops - 1)
        if isinstance(binding, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            return Definition(scope.module.name, scope.named(binding.name), binding, scope)
        if isinstance(binding, _Unknown) or not alone:
            return None
        if isinstance(binding, ast.Name | ast.Attribute):  # another name of the same target
            target = self._resolve(binding, scope, anywhere, hops - 1)
            if target is not None:
                return target
        return Assignment(binding, scope)

    def _in_module(self, module: str, name: str, anywhere: bool, hops: int) -> Target | None:
        if module.partition(".")[0] == _PACKAGE:
            return External(f"{module}.{name}") if find(f"{module}.{name}") else Sidelight(name)
        if hops <= 0:
            return None
        try:
            loaded = self.load(module, anywhere=anywhere)
        except (SyntaxError, ValueError, OSError):
            loaded = None
        if loaded is not None:
            target = self._in_scope(name, loaded.scope, anywhere, hops)
            if target is not None:
                return target
        if find(f"{module}.{name}") is not None:
            return External(f"{module}.{name}")
        return None if loaded is not None else External(f"{module}:{name}")

    def _member(self, owner: Target | None, name: str, anywhere: bool, hops: int) -> Target | None:
        if isinstance(owner, External) and ":" not in owner.path:
            return self._in_module(owner.path, name, anywhere, hops - 1)
        if isinstance(owner, External):
            return External(f"{owner.path}.{name}")
        if isinstance(owner, Definition) and isinstance(owner.node, ast.ClassDef):
            inside = owner.scope.inner(owner.node)
            return self._in_scope(name, inside, anywhere, hops)
        return None


class ScopeVisitor(ast.NodeVisitor):
    """Walks the code of a module.

    Attributes:
        scope: the scope of the node that is visited.
    """

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    def visit_body(self, body: Sequence[ast.AST], scope: Scope) -> None:
        """Visit statements that stand in ``scope``."""
        outer, self.scope = self.scope, scope
        for node in body:
            self.visit(node)
        self.scope = outer

    def visit_decorators(self, node: Function) -> None:
        """Visit the decorators of a function."""
        self.visit_body(node.decorator_list, self.scope)

    def visit_FunctionDef(self, node: Function) -> None:
        """Visit decorators and defaults in this scope, and the body in its own."""
        self.visit_decorators(node)
        self.visit(node.args)
        self.visit_body(node.body, self.scope.inner(node))

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Visit bases and decorators in this scope, and the body in its own."""
        self.visit_body([*node.decorator_list, *node.bases, *node.keywords], self.scope)
        self.visit_body(node.body, self.scope.inner(node))
