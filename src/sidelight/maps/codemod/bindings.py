"""How things are called in a module that is to be written into, and what has to be imported."""

from __future__ import annotations

import ast
import builtins
import symtable
from collections import defaultdict
from collections.abc import Iterable, Iterator

from sidelight.maps.codemod.imports import Alias
from sidelight.maps.codemod.refusal import Refusal
from sidelight.maps.codemod.writing import Names
from sidelight.maps.static.functions import Functions
from sidelight.maps.static.names import Codebase, Defined, Module, Named, Public, Scope, Target


class Bindings:
    """The names of one module.

    Attributes:
        wanted: what has to be imported, by module.
    """

    def __init__(self, code: Codebase, module: Module, text: str, scopes: Iterable[Scope]) -> None:
        self._code = code
        self._functions = Functions(code)
        self._module = module
        self._scopes = [module.scope, *scopes]
        self.wanted: dict[str, list[Alias]] = defaultdict(list)
        self._used = names_in(text)
        self._veiled = any(map(self._is_opaque, module.scope.stars))
        self._here = {name: self._target(name) for name in self._imported()}

    def names(self, ours: Iterable[str], functions: Iterable[str], line: int) -> Names:
        """What to write for names of ours and for functions.

        Args:
            ours: "emits", "arg" and the like.
            functions: paths.
            line: where it will be written: what the module defines itself has to stand above.

        Raises:
            Refusal: a function cannot be named there.
        """
        return Names(
            ours={name: self._ours(name) for name in ours},
            functions={path: self._function(path, line) for path in functions},
        )

    def _ours(self, name: str) -> str:
        for bound, target in self._here.items():
            if target == Public(name):
                return bound
        return self._import("sidelight", name, f"sidelight_{name}", Public(name))

    def _function(self, path: str, line: int) -> str:
        module, _, qualname = path.partition(":")
        root, dot, rest = qualname.partition(".")
        if module == "builtins" and hasattr(builtins, root) and not self._taken(root, None):
            return qualname
        found = self._functions.defined(f"{module}:{root}")
        if isinstance(found, Defined) and found.module == self._module.name:
            if found.node.lineno >= line:
                raise Refusal(f"{path} is defined below it", "move it above, or elsewhere")
            return qualname
        for bound, target in self._here.items():
            if isinstance(found, Defined) and _path(target) == found.path:
                return f"{bound}{dot}{rest}"
            if target == Named(module):
                return f"{bound}.{qualname}"
        if self._leads_back(module, set()):
            circle = f"{module} imports {self._module.name}, which would import it"
            raise Refusal(circle, "move the function into a module that does not")
        package, _, last = module.rpartition(".")
        if (
            package and not self._veiled and not self._taken(last, None)
        ):  # a module's name says where it comes from
            return f"{self._import(package, last, last, Named(module))}.{qualname}"
        target = found if isinstance(found, Defined) else None
        return f"{self._import(module, root, f'{last}_{root}', target)}{dot}{rest}"

    def _is_opaque(self, star: str) -> bool:
        """Whether nobody can see which names it brings: even after an import of ours, then."""
        try:
            return self._code.load(star) is None
        except (SyntaxError, ValueError, OSError):
            return True

    def _leads_back(self, name: str, seen: set[str]) -> bool:
        """Whether importing a module of the same package imports the one that is written into."""
        top = self._module.name.partition(".")[0]
        if name in seen or name.partition(".")[0] != top:
            return False
        seen.add(name)
        try:
            module = self._code.load(name)
        except (SyntaxError, ValueError, OSError):
            return False  # it would fail by itself
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
        """Ask for an import, under another name where that one is taken."""
        called = otherwise if self._veiled or self._taken(name, target) else name
        while called != name and self._taken(called, None):
            called += "_"
        self.wanted[module].append((name, None if called == name else called))
        self._here[called] = target
        return called

    def _taken(self, name: str, target: Target | None) -> bool:
        """Whether a name stands for something else, where a decorator would look it up."""
        if name in self._here:
            return True
        for scope in self._scopes:
            found = self._code.resolve(ast.Name(name), scope, far=True)
            same = target is not None and _path(found) == _path(target)
            unknown = found is None or _path(found) == f"builtins:{name}"
            if not same and (not unknown or name in scope.bindings or name in self._used):
                return True  # a name that is used comes from somewhere: a star, for example
        return False

    def _imported(self) -> Iterator[str]:
        """What the module imports whenever it runs (not for type checkers only)."""
        for node in self._module.tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                for alias in node.names:
                    yield alias.asname or alias.name.partition(".")[0]

    def _target(self, name: str) -> Target | None:
        return self._code.resolve(ast.Name(name), self._module.scope, far=True)


def _path(target: Target | None) -> str | None:
    if isinstance(target, Public):
        return f"sidelight:{target.name}"
    return getattr(target, "path", None)


def names_in(text: str) -> set[str]:
    """The names that a file uses, in annotations that are texts and in ``__all__``, too."""
    found = set(_looked_up(symtable.symtable(text, "", "exec")))
    for node in ast.walk(ast.parse(text)):
        for inside in filter(None, _with_texts(node)):
            for each in ast.walk(inside):
                if isinstance(each, ast.Name):
                    found.add(each.id)
                elif isinstance(each, ast.Constant) and isinstance(each.value, str):
                    found |= _names_of(each.value)
    return found


def _looked_up(table: symtable.SymbolTable) -> Iterator[str]:
    """The names that are looked up in the module: variables of functions are others."""
    for symbol in table.get_symbols():
        if symbol.is_referenced() and (table.get_type() == "module" or symbol.is_global()):
            yield symbol.get_name()
    for inner in table.get_children():
        yield from _looked_up(inner)


def _with_texts(node: ast.AST) -> list[ast.AST | None]:
    """The parts of a node in which a text can be a name."""
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
