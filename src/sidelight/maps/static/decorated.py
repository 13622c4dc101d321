"""The decorated functions of some code: those below ``@emits``, under any name."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

import msgspec

from sidelight.maps.declarations import MapDeclaration
from sidelight.maps.listing import ListedPoint
from sidelight.maps.static.arguments import Arguments
from sidelight.maps.static.modules import find, is_namespace, source_of, with_submodules
from sidelight.maps.static.names import Codebase, Function, Module, Scope, ScopeVisitor, Sidelight
from sidelight.maps.static.registrars import registrars_on

_EMITS = Sidelight("emits")


class Reading(msgspec.Struct):
    """The result of reading some code.

    Attributes:
        points: the points, in the order of files and lines.
        problems: code that cannot be read.
        remarks: places that may hold a point, which only an import can show.
    """

    points: list[ListedPoint] = msgspec.field(default_factory=list)
    problems: list[str] = msgspec.field(default_factory=list)
    remarks: list[str] = msgspec.field(default_factory=list)


def read_points(code: Codebase, names: Sequence[str]) -> Reading:
    """Read the points of modules and packages, submodules included."""
    reading = Reading()
    for module in read_modules(code, names, reading.problems):
        finder = _PointFinder(code, module)
        try:
            finder.visit_body(module.tree.body, module.scope)
        except RecursionError:
            reading.problems.append(f"cannot read {module.name}: it is nested too deep")
            continue
        reading.points += finder.points
        reading.remarks += finder.remarks
    reading.points.sort(key=lambda point: (point.file or "", point.line or 0))
    return reading


def read_modules(code: Codebase, names: Sequence[str], problems: list[str]) -> Iterator[Module]:
    """Read modules and their submodules; what cannot be read goes into ``problems``."""
    problems += [
        f"there is no module {name}; name it as in an import statement"
        for name in names
        if find(name) is None
    ]
    for name in code.selection(names, _related_to_sidelight):
        try:
            module = code.load(name)
        except SyntaxError as error:
            problems.append(f"cannot read {name}: line {error.lineno}: {error.msg}")
        except (ValueError, OSError, RecursionError) as error:
            problems.append(f"cannot read {name}: {error}")
        else:
            if module is not None:
                yield module
            elif name in names and not is_namespace(name):
                problems.append(f"{name} has no Python source; import it to see it: --import")


def _related_to_sidelight(names: Sequence[str]) -> list[str]:
    """Return the modules that may hold a point, by a look at their text; only these are parsed.

    Such a module mentions sidelight or a module that does, or lies in a package that does.
    """
    texts: dict[str, bytes] = {}
    selected: set[str] = set()
    for name in dict.fromkeys(each for top in names for each in with_submodules(top)):
        spec = find(name)
        path = None if spec is None else source_of(spec)
        try:
            texts[name] = b"" if path is None else path.read_bytes()
        except OSError:
            selected.add(name)  # parsing it reports the problem
        if path is None and name in names:
            selected.add(name)
    new = selected | {name for name, text in texts.items() if b"sidelight" in text}
    while new - selected:
        selected |= new
        marks = [name.rpartition(".")[2].encode() for name in new]
        inside = tuple(f"{name}." for name in new)  # a relative import names no package
        new = {
            name
            for name, text in texts.items()
            if name not in selected
            and (name.startswith(inside) or any(mark in text for mark in marks))
        }
    return [name for name in texts if name in selected] + sorted(selected - texts.keys())


def declarations_on(code: Codebase, node: Function, scope: Scope) -> list[MapDeclaration | None]:
    """Return the declaration of each decorator of a function; None for one that is no ``emits``."""
    arguments = Arguments(code)
    return [
        arguments.declaration(each, scope)
        if isinstance(each, ast.Call) and code.resolve(each.func, scope) == _EMITS
        else None
        for each in node.decorator_list
    ]


class _PointFinder(ScopeVisitor):
    """Finds the points of one module, and each ``emits`` that a reading cannot follow."""

    def __init__(self, code: Codebase, module: Module) -> None:
        super().__init__(module.scope)
        self._code = code
        self._module = module
        self.points: list[ListedPoint] = []
        self.remarks: list[str] = []

    def visit_decorators(self, node: Function) -> None:
        declarations = declarations_on(self._code, node, self.scope)
        for decorator, declared in zip(node.decorator_list, declarations, strict=True):
            if declared is None:
                self.visit(decorator)
        if found := [each for each in declarations if each is not None]:
            outermost = next(n for n, each in enumerate(declarations) if each is not None)
            below = registrars_on(self._code, node.decorator_list[outermost:], self.scope)
            registrars = [each for each in below if each is not None]
            self.points.append(
                ListedPoint(
                    module=self._module.name,
                    qualname=self.scope.named(node.name),
                    kind=_kind(node),
                    file=self._module.path,
                    line=min(decorator.lineno for decorator in node.decorator_list),
                    declarations=tuple(reversed(found)),  # decorators apply from below
                    registrar=max(registrars, key=lambda each: each.certain, default=None),
                )
            )

    def visit_Assign(self, node: ast.Assign) -> None:  # noqa: N802  # the name that ast calls
        alias = len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)
        if not (alias and self._code.resolve(node.value, self.scope) == _EMITS):
            self.generic_visit(node)  # a reading follows another name of ``emits``

    def visit_Name(self, node: ast.Name) -> None:  # noqa: N802  # the name that ast calls
        self._remark_on(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:  # noqa: N802  # the name that ast calls
        if not self._remark_on(node):
            self.generic_visit(node)

    def _remark_on(self, node: ast.Name | ast.Attribute) -> bool:
        """Remark on ``emits`` where no reading can follow it; answers whether it is ``emits``."""
        if not isinstance(node.ctx, ast.Load):
            return False
        if self._code.resolve(node, self.scope) != _EMITS:
            return False
        self.remarks.append(
            f"{self._module.path}:{node.lineno}: {ast.unparse(node)} is no decorator here; import"
            " the code to see what it decorates: --import"
        )
        return True


def _kind(node: Function) -> str:
    """Return the kind of a function, by the same words as `points.callables.kind_of`."""
    yields = _yields(node.body)
    if isinstance(node, ast.AsyncFunctionDef):
        return "async generator" if yields else "coroutine"
    return "generator" if yields else "function"


def _yields(nodes: Sequence[ast.AST]) -> bool:
    """Return whether a function itself yields; the functions inside it do not count."""
    for node in nodes:
        if isinstance(node, ast.Yield | ast.YieldFrom):
            return True
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            continue
        if _yields(list(ast.iter_child_nodes(node))):
            return True
    return False
