"""The points of some code: its functions under ``@emits``, whatever that is called there."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

import msgspec

from sidelight.maps.described import Described, Found
from sidelight.maps.static.files import below, find, folders, source_of
from sidelight.maps.static.names import Codebase, Function, Module, Public, Scope
from sidelight.maps.static.values import Values

_EMITS = Public("emits")


class Reading(msgspec.Struct):
    """What was found.

    Attributes:
        points: in the order of files and lines.
        problems: what could not be read.
        remarks: what may be a point, and only shows when the code is imported.
    """

    points: list[Found] = msgspec.field(default_factory=list)
    problems: list[str] = msgspec.field(default_factory=list)
    remarks: list[str] = msgspec.field(default_factory=list)


def read_points(code: Codebase, names: Sequence[str]) -> Reading:
    """The points of modules and packages, with all that is in them."""
    reading = Reading()
    for module in modules(code, names, reading.problems):
        finder = _Finder(code, module)
        try:
            finder.visit_body(module.tree.body, module.scope)
        except RecursionError:
            reading.problems.append(f"cannot read {module.name}: it is nested too deep")
            continue
        reading.points += finder.points
        reading.remarks += finder.remarks
    reading.points.sort(key=lambda point: (point.file or "", point.line or 0))
    return reading


def modules(code: Codebase, names: Sequence[str], problems: list[str]) -> Iterator[Module]:
    """Read modules and all below them; what cannot be read goes into ``problems``."""
    problems += [
        f"there is no module {name}; name it as in an import statement"
        for name in names
        if find(name) is None
    ]
    for name in code.chosen(names, _concerned):
        try:
            module = code.load(name)
        except SyntaxError as error:
            problems.append(f"cannot read {name}: line {error.lineno}: {error.msg}")
        except (ValueError, OSError, RecursionError) as error:
            problems.append(f"cannot read {name}: {error}")
        else:
            if module is not None:
                yield module
            elif name in names and not _is_folder(name):
                problems.append(f"{name} has no Python source: what it has shows with --import")


def _concerned(names: Sequence[str]) -> list[str]:
    """The modules in which there may be something of ours, by a look at their text.

    They mention sidelight, or one that does, or lie in a package that does: only these are parsed.
    """
    texts: dict[str, bytes] = {}
    chosen: set[str] = set()
    for name in dict.fromkeys(each for top in names for each in below(top)):
        spec = find(name)
        path = None if spec is None else source_of(spec)
        try:
            texts[name] = b"" if path is None else path.read_bytes()
        except OSError:
            chosen.add(name)  # which is said when it is parsed
        if path is None and name in names:
            chosen.add(name)
    new = chosen | {name for name, text in texts.items() if b"sidelight" in text}
    while new - chosen:
        chosen |= new
        marks = [name.rpartition(".")[2].encode() for name in new]
        inside = tuple(f"{name}." for name in new)  # relative imports name no module
        new = {
            name
            for name, text in texts.items()
            if name not in chosen
            and (name.startswith(inside) or any(mark in text for mark in marks))
        }
    return [name for name in texts if name in chosen] + sorted(chosen - texts.keys())


def _is_folder(name: str) -> bool:
    """Whether it is a package without ``__init__.py``."""
    spec = find(name)
    return spec is not None and spec.origin is None and bool(folders(spec))


def declared_on(code: Codebase, node: Function, scope: Scope) -> list[Described | None]:
    """What each decorator of a function asks for; None for those that are none of ours."""
    values = Values(code)
    return [
        values.described(each, scope)
        if isinstance(each, ast.Call) and code.resolve(each.func, scope) == _EMITS
        else None
        for each in node.decorator_list
    ]


class _Finder(ast.NodeVisitor):
    """Walks one module, with the scope that each node stands in."""

    def __init__(self, code: Codebase, module: Module) -> None:
        self._code = code
        self._module = module
        self._scope = module.scope
        self.points: list[Found] = []
        self.remarks: list[str] = []

    def visit_body(self, body: Sequence[ast.stmt], scope: Scope) -> None:
        outer, self._scope = self._scope, scope
        for statement in body:
            self.visit(statement)
        self._scope = outer

    def visit_FunctionDef(self, node: Function) -> None:  # ast calls it so
        decorators = declared_on(self._code, node, self._scope)
        found = [each for each in decorators if each is not None]
        if found:
            self.points.append(self._point(node, found))
        for decorator, described in zip(node.decorator_list, decorators, strict=True):
            if described is None:
                self.visit(decorator)
        self.visit(node.args)
        self.visit_body(node.body, self._scope.inner(node))

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for each in (*node.decorator_list, *node.bases, *node.keywords):
            self.visit(each)
        self.visit_body(node.body, self._scope.inner(node))

    def visit_Assign(self, node: ast.Assign) -> None:
        alias = len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)
        if not (alias and self._code.resolve(node.value, self._scope) == _EMITS):
            self.generic_visit(node)  # another name for it is followed

    def visit_Name(self, node: ast.Name) -> None:
        self._remark(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if not self._remark(node):
            self.generic_visit(node)

    def _remark(self, node: ast.Name | ast.Attribute) -> bool:
        """Whether it is ``emits``, at work where no reading can follow it."""
        if not isinstance(node.ctx, ast.Load):
            return False
        if self._code.resolve(node, self._scope) != _EMITS:
            return False
        self.remarks.append(
            f"{self._module.path}:{node.lineno}: {ast.unparse(node)} is no decorator here; what it"
            " decorates shows when the code is imported: --import"
        )
        return True

    def _point(self, node: Function, found: Sequence[Described]) -> Found:
        return Found(
            module=self._module.name,
            qualname=self._scope.named(node.name),
            kind=_kind(node),
            file=self._module.path,
            line=min(decorator.lineno for decorator in node.decorator_list),
            declarations=tuple(reversed(found)),  # as they are applied
        )


def _kind(node: Function) -> str:
    """As `kinds.kind_of` tells it of what this makes."""
    yields = _yields(node.body)
    if isinstance(node, ast.AsyncFunctionDef):
        return "async generator" if yields else "coroutine"
    return "generator" if yields else "function"


def _yields(nodes: Sequence[ast.AST]) -> bool:
    """Whether a function yields by itself, not by one inside of it."""
    for node in nodes:
        if isinstance(node, ast.Yield | ast.YieldFrom):
            return True
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            continue
        if _yields(list(ast.iter_child_nodes(node))):
            return True
    return False
