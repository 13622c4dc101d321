"""The edits that a map asks for: each point in the file of its function."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from sidelight.exceptions import MapError
from sidelight.maps.checks import TWICE
from sidelight.maps.codemod import import_lines
from sidelight.maps.codemod.bindings import Bindings, names_in
from sidelight.maps.codemod.decorator_lines import (
    Write,
    add_decorators,
    definitions,
    remove_decorators,
)
from sidelight.maps.codemod.decorator_source import Refusal, check_writable, decorator, needed
from sidelight.maps.codemod.source_files import Edit, line_length, read_source
from sidelight.maps.declarations import MapDeclaration, MapPoint
from sidelight.maps.private_names import source_path
from sidelight.maps.reader import Map
from sidelight.maps.static.decorated import declarations_on
from sidelight.maps.static.functions import MissingFunction, SourceFunctions, UnknownFunction
from sidelight.maps.static.names import Codebase, Definition, Function, Module, Scope
from sidelight.maps.static.registrars import has_decorator, registrars_on

_LINE_LENGTH: Final = 88  # characters, where no formatter is configured
_STAY_ON_TOP: Final = frozenset({"staticmethod", "classmethod"})
_LEAVE: Final = "leave it to sidelight.weave"


class _Task(msgspec.Struct, frozen=True):
    """One point, and its function.

    Attributes:
        declared: the declaration of each decorator; None for a decorator that is no ``emits``.
    """

    point: MapPoint
    module: Module
    node: Function
    scope: Scope
    declared: list[MapDeclaration | None]


class CodeEdits:
    """The edits that one map asks for.

    Attributes:
        problems: the points that cannot be written; with any problem, no edit may be written.
    """

    def __init__(self, points: Map) -> None:
        self._map = points
        self._tops = {point.module.partition(".")[0] for point in points.points}
        self._code = Codebase(self._tops)
        self._functions = SourceFunctions(self._code)
        self.problems: list[MapError] = []

    def applied(self) -> list[Edit]:
        """Return the edits that write the points into the code.

        A file that has them all has no edit.
        """
        return list(self._edits(self._apply, present=True))

    def stripped(self) -> list[Edit]:
        """Return the edits that remove the decorators that state the same as the map."""
        return list(self._edits(self._strip, present=False))

    def _edits(
        self, edit: Callable[[str, Sequence[_Task]], tuple[str, int]], *, present: bool
    ) -> Iterator[Edit]:
        tasks: dict[str, list[_Task]] = defaultdict(list)
        for point in self._map.points:
            try:
                task = self._task(point)
            except Refusal as refusal:
                self._refuse(point, refusal.problem, refusal.remedy)
            else:
                tasks[point.module].append(task)
        for of_module in tasks.values():
            path = Path(of_module[0].module.path).resolve()
            data, text, encoding = read_source(path)
            changed, count = edit(text, of_module)
            if changed != text:
                self._prove(changed.encode(encoding), of_module, present=present)
                yield Edit(path, data, changed, encoding, count)

    def _task(self, point: MapPoint) -> _Task:
        """Find the function of a point.

        Raises:
            Refusal: no decorator can be written to the function.
        """
        found = self._functions.definition(point.function)
        if isinstance(found, MissingFunction):
            raise Refusal(found.problem, found.remedy)
        if isinstance(found, UnknownFunction):
            raise Refusal(found.reason, _LEAVE)
        if isinstance(found.node, ast.ClassDef):
            raise Refusal("it is a class", "name its methods")
        if source_path(found.path) != source_path(point.function):
            raise Refusal(f"it is defined as {found.path}", "name that path in the map")
        module = self._loaded(point.module)
        if not Path(module.path).resolve().is_relative_to(Path.cwd()):
            raise Refusal(f"{module.path} is not below this directory", _LEAVE)
        named = definitions(module.tree.body)
        qualname = source_path(found.qualname)
        same = [node for name, node in named if source_path(name) == qualname]
        if sum(not has_decorator(node, "overload") for node in same) != 1:
            raise Refusal("it is defined more than once", _LEAVE)
        if has_decorator(found.node, "property", "cached_property", "setter"):
            raise Refusal("it is a property", "name the function that it calls")
        declared = declarations_on(self._code, found.node, found.scope)
        return _Task(point, module, found.node, found.scope, declared)

    def _loaded(self, name: str) -> Module:
        module = self._code.load(name)
        assert module is not None  # noqa: S101  # a function was found in it
        return module

    def _refuse(self, point: MapPoint, problem: str, remedy: str) -> None:
        self.problems.append(
            MapError(
                place=self._map.place(point),
                problem=f"{point.function}: {problem}",
                remedy=remedy,
            )
        )

    def _apply(self, text: str, tasks: Sequence[_Task]) -> tuple[str, int]:
        module = tasks[0].module
        path = Path(module.path).resolve()
        width = line_length(path, _LINE_LENGTH)
        bindings = Bindings(self._code, module, text, (task.scope for task in tasks))
        added: dict[Function, list[Write]] = defaultdict(list)
        emitting: dict[Function, list[frozenset[Any]]] = defaultdict(list)
        for task in tasks:
            if self._matching_decorator(task) is not None or self._contradicts(task):
                continue
            emitted = task.point.emitted
            if any(emitted <= each for each in emitting[task.node]):
                self._refuse(task.point, *TWICE)
                continue
            emitting[task.node].append(emitted)
            try:
                check_writable(task.point)
                names = bindings.names(*needed(task.point), task.node.lineno)
            except Refusal as refusal:
                self._refuse(task.point, refusal.problem, refusal.remedy)
                continue
            width_here = width - task.node.col_offset
            added[task.node].append(partial(_written, task.point, names, width_here))
        if not added:
            return text, 0
        above = {task.node: self._decorators_above(task) for task in tasks}
        text = add_decorators(text, ((node, above[node], new) for node, new in added.items()))
        kind = import_lines.kind_in(partial(_is_own, module))
        for name in sorted(bindings.wanted):
            text = import_lines.add(text, name, bindings.wanted[name], kind, width=width)
        return text, sum(map(len, added.values()))

    def _strip(self, text: str, tasks: Sequence[_Task]) -> tuple[str, int]:
        removed: dict[Function, list[int]] = defaultdict(list)
        used: set[str] = set()
        for task in tasks:
            at = self._matching_decorator(task)
            if at is None:
                self._contradicts(task)
                continue
            removed[task.node].append(at)
            inside = ast.walk(task.node.decorator_list[at])
            used |= {node.id for node in inside if isinstance(node, ast.Name)}
        if not removed:
            return text, 0
        text = remove_decorators(text, removed.items())
        text = import_lines.remove(text, sorted(used - names_in(text)))
        return text, sum(map(len, removed.values()))

    def _decorators_above(self, task: _Task) -> int:
        """Return how many decorators stay above a new one, for which they must leave a function.

        Those are ``staticmethod`` and ``classmethod``, and everything down to the last registrar,
        because a framework calls the function that its registrar has seen.
        """
        decorators = task.node.decorator_list
        above = 0
        while above < len(decorators) and getattr(decorators[above], "id", "") in _STAY_ON_TOP:
            above += 1
        for number, registrar in enumerate(registrars_on(self._code, decorators, task.scope)):
            if registrar is not None and registrar.certain:
                above = number + 1
        return above

    def _matching_decorator(self, task: _Task) -> int | None:
        """Return the number of the decorator that states the same as the map.

        Return None where no decorator does.
        """
        wanted = self._facts(task.point)
        for index, declared in enumerate(task.declared):
            if declared is not None and not declared.opaque and self._facts(declared) == wanted:
                return index
        return None

    def _contradicts(self, task: _Task) -> bool:
        """Report decorators that emit the same events; answers whether there are any."""
        emitted = [each.emitted for each in task.declared if each is not None]
        if not task.point.emitted <= frozenset().union(*emitted):
            return False
        problem = "a decorator emits the same, and captures something else than the map"
        remedy = "make them agree; sidelight points --check shows the difference"
        self._refuse(task.point, problem, remedy)
        return True

    def _facts(self, declared: MapDeclaration) -> Any:
        return self._canonical(declared.facts())

    def _canonical(self, value: Any) -> Any:
        """Return a value with each function named by the path of its definition."""
        if not isinstance(value, dict):
            return value
        if value.keys() == {"call"} and ":" in value["call"]:
            found = self._functions.definition(value["call"])
            return {"call": found.path} if isinstance(found, Definition) else value
        return {name: self._canonical(each) for name, each in value.items()}

    def _prove(self, data: bytes, tasks: Sequence[_Task], *, present: bool) -> None:
        """Read the new text: its decorators must state the points, or no longer state them."""
        code = Codebase(self._tops)
        before = tasks[0].module
        try:
            module = Module(before.name, before.path, data, package=before.package)
        except (SyntaxError, ValueError) as error:
            self._refuse(tasks[0].point, f"it cannot be written: {error}", _LEAVE)
            return
        code.replace(module)
        functions = SourceFunctions(code)
        for task in tasks:
            found = functions.definition(task.point.function)
            stated = False
            if isinstance(found, Definition) and not isinstance(found.node, ast.ClassDef):
                declared = declarations_on(code, found.node, found.scope)
                written = msgspec.structs.replace(task, declared=declared)
                stated = self._matching_decorator(written) is not None
            if stated is not present and not self.problems:
                self._refuse(task.point, "it cannot be written so that it states the same", _LEAVE)


def _written(point: MapPoint, names: Any, width: int, indent: str) -> str:
    return decorator(point, names, width=width, indent=indent)


def _is_own(module: Module, package: str) -> bool:
    """Return whether a top-level package lies beside the package of the module."""
    levels = module.name.count(".") + module.package
    root = Path(module.path).parents[levels]
    return (root / package).is_dir() or (root / f"{package}.py").is_file()
