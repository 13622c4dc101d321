"""The names that a decorator may use in its module, and the imports that it needs."""

from __future__ import annotations

import ast
import builtins
import symtable
from collections import defaultdict
from collections.abc import Iterable, Iterator

from sidelight.maps.codemod.decorator_source import Names, Refusal
from sidelight.maps.codemod.import_lines import Alias
from sidelight.maps.private_names import as_expression
from sidelight.maps.static.functions import SourceFunctions
from sidelight.maps.static.names import (
    Codebase,
    Definition,
    External,
    Module,
    Scope,
    Sidelight,
    Target,
)


class Bindings:
    """The names of one module.

    Attributes:
        wanted: the imports to add, by module.
    """

    def __init__(self, code: Codebase, module: Module, text: str, scopes: Iterable[Scope]) -> None:
        self._code = code
        self._functions = SourceFunctions(code)
        self._module = module
        self._scopes = [module.scope, *scopes]
        self.wanted: dict[str, list[Alias]] = defaultdict(list)
        self._used = names_in(text)
        # A star import may bind any name: no name is certainly free then.
        self._star_import_unknown = any(map(self._is_unknown, module.scope.star_imports))
        self._bound = {name: self._target(name) for name in self._imported()}

    def names(self, public: Iterable[str], functions: Iterable[str], line: int) -> Names:
        """Choose a name in the module for each thing that a decorator uses.

        Args:
            public: public names of sidelight.
            functions: paths of functions.
            line: the line of the decorator; a function of the same module must stand above it.

        Raises:
            Refusal: a function cannot be named there.
        """
        return Names(
            sidelight={name: self._public(name) for name in public},
            functions={path: self._function(path, line) for path in functions},
        )

    def _public(self, name: str) -> str:
        for bound, target in self._bound.items():
            if target == Sidelight(name):
                return bound
        return self._import("sidelight", name, f"sidelight_{name}", Sidelight(name))

    def _function(self, path: str, line: int) -> str:
        module, _, qualname = path.partition(":")
        qualname = as_expression(qualname)
        root, dot, rest = qualname.partition(".")
        if module == "builtins" and hasattr(builtins, root) and not self._taken(root, None):
            return qualname
        found = self._functions.definition(f"{module}:{root}")
        if isinstance(found, Definition) and found.module == self._module.name:
            if found.node.lineno >= line:
                raise Refusal(f"{path} is defined below it", "move it above the point")
            if isinstance(found.node, ast.ClassDef) and line <= (found.node.end_lineno or 0):
                problem = f"{path} cannot be named before its class is complete"
                raise Refusal(problem, "move it out of the class")
            return qualname
        for bound, target in self._bound.items():
            if isinstance(found, Definition) and _path(target) == found.path:
                return f"{bound}{dot}{rest}"
            if target == External(module):
                return f"{bound}.{qualname}"
        if self._leads_back(module, set()):
            circle = f"{module} imports {self._module.name}, which would import it"
            raise Refusal(circle, "move the function into a module that does not")
        package, _, last = module.rpartition(".")
        # The module's name is preferred, because it says where the function comes from.
        if package and not self._star_import_unknown and not self._taken(last, None):
            return f"{self._import(package, last, last, External(module))}.{qualname}"
        target = found if isinstance(found, Definition) else None
        return f"{self._import(module, root, f'{last}_{root}', target)}{dot}{rest}"

    def _is_unknown(self, star: str) -> bool:
        """Return whether the source does not show which names a star import binds."""
        try:
            return self._code.load(star) is None
        except (SyntaxError, ValueError, OSError):
            return True

    def _leads_back(self, name: str, seen: set[str]) -> bool:
        """Return whether importing a module of the package imports the edited module."""
        top = self._module.name.partition(".")[0]
        if name in seen or name.partition(".")[0] != top:
            return False
        seen.add(name)
        try:
            module = self._code.load(name)
        except (SyntaxError, ValueError, OSError):
            return False  # importing it fails anyway
        for node in module.tree.body if module is not None else ():
            imported: list[str] = []
            if isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and module is not None:
                whole = module.absolute(node)
                imported = [whole, *(f"{whole}.{alias.name}" for alias in node.names)]
            if self._module.name in imported or any(self._leads_back(n, seen) for n in imported):
                return True
        return False

    def _import(self, module: str, name: str, otherwise: str, target: Target | None) -> str:
        """Ask for an import, under another name where the name is taken."""
        called = otherwise if self._star_import_unknown or self._taken(name, target) else name
        while called != name and self._taken(called, None):
            called += "_"
        self.wanted[module].append((name, None if called == name else called))
        self._bound[called] = target
        return called

    def _taken(self, name: str, target: Target | None) -> bool:
        """Return whether a name means something else where the decorator looks it up."""
        if name in self._bound:
            return True
        for scope in self._scopes:
            found = self._code.resolve(ast.Name(name), scope, anywhere=True)
            same = target is not None and _path(found) == _path(target)
            unknown = found is None or _path(found) == f"builtins:{name}"
            if not same and (not unknown or name in scope.bindings or name in self._used):
                return True  # a name that is used is bound somewhere, by a star import for example
        return False

    def _imported(self) -> Iterator[str]:
        """Yield the names that the module imports whenever it runs, not only for type checkers."""
        for node in self._module.tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                for alias in node.names:
                    yield alias.asname or alias.name.partition(".")[0]

    def _target(self, name: str) -> Target | None:
        return self._code.resolve(ast.Name(name), self._module.scope, anywhere=True)


def _path(target: Target | None) -> str | None:
    if isinstance(target, Sidelight):
        return f"sidelight:{target.name}"
    return getattr(target, "path", None)


def names_in(text: str) -> set[str]:
    """Return the names that a file uses; names in text annotations and in ``__all__`` count."""
    found = set(_looked_up(symtable.symtable(text, "", "exec")))
    for node in ast.walk(ast.parse(text)):
        for inside in filter(None, _text_holders(node)):
            for each in ast.walk(inside):
                if isinstance(each, ast.Name):
                    found.add(each.id)
                elif isinstance(each, ast.Constant) and isinstance(each.value, str):
                    found |= _names_of(each.value)
    return found


def _looked_up(table: symtable.SymbolTable) -> Iterator[str]:
    """Yield the names that are looked up in the module.

    Local variables of functions do not count.
    """
    for symbol in table.get_symbols():
        if symbol.is_referenced() and (table.get_type() == "module" or symbol.is_global()):
            yield symbol.get_name()
    for inner in table.get_children():
        yield from _looked_up(inner)


def _text_holders(node: ast.AST) -> list[ast.AST | None]:
    """Return the parts of a node in which a text can hold names."""
    if isinstance(node, ast.arg | ast.AnnAssign):
        return [node.annotation]
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return [node.returns]
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("cast", "TypeVar")):
        return [*node.args, *(keyword.value for keyword in node.keywords)]
    if isinstance(node, ast.Assign | ast.AugAssign) and "__all__" in ast.unparse(node):
        return [node.value]
    return []


def _names_of(expression: str) -> set[str]:
    try:
        tree = ast.parse(expression, mode="eval")
    except (SyntaxError, ValueError):
        return set()
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
