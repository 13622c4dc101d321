"""What is to be done where: each point of a map, in the file of its function."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from sidelight.exceptions import MapError
from sidelight.maps.codemod import imports
from sidelight.maps.codemod.bindings import Bindings, names_in
from sidelight.maps.codemod.decorators import Write, definitions, put_on, take_off
from sidelight.maps.codemod.files import Edit, source, width_of
from sidelight.maps.codemod.refusal import Refusal
from sidelight.maps.codemod.writing import check_writable, decorator, needed
from sidelight.maps.described import Described, of_map
from sidelight.maps.read import Map, MappedPoint
from sidelight.maps.static.checks import TWICE
from sidelight.maps.static.functions import Functions, Gone, Unseen
from sidelight.maps.static.names import Codebase, Defined, Function, Module, Scope
from sidelight.maps.static.points import declared_on

_WIDTH: Final = 88  # characters of a line, where no formatter's settings say otherwise
_LEAVE: Final = "leave it to sidelight.weave"


class _Task(msgspec.Struct, frozen=True):
    """One point, and the function that it is about."""

    point: MappedPoint
    module: Module
    node: Function
    scope: Scope
    declared: list[Described | None]  # by its decorators


class Plan:
    """The edits that one map asks for.

    Attributes:
        problems: what stands in the way; nothing is to be written where there is any.
    """

    def __init__(self, points: Map) -> None:
        self._map = points
        self._tops = {point.module.partition(".")[0] for point in points.points}
        self._code = Codebase(self._tops)
        self._functions = Functions(self._code)
        self.problems: list[MapError] = []

    def applied(self) -> list[Edit]:
        """The files with the points written into them; those that have them all are left out."""
        return list(self._edits(self._apply, there=True))

    def stripped(self) -> list[Edit]:
        """The files without the decorators that say what the map says."""
        return list(self._edits(self._strip, there=False))

    def _edits(
        self, edit: Callable[[str, Sequence[_Task]], tuple[str, int]], *, there: bool
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
            data, text, encoding = source(path)
            changed, count = edit(text, of_module)
            if changed != text:
                self._prove(changed.encode(encoding), of_module, there=there)
                yield Edit(path, data, changed, encoding, count)

    def _task(self, point: MappedPoint) -> _Task:
        """The function of a point.

        Raises:
            Refusal: nothing can be written to it.
        """
        found = self._functions.defined(point.function)
        if isinstance(found, Gone):
            raise Refusal(found.problem, found.remedy)
        if isinstance(found, Unseen):
            raise Refusal(found.why, _LEAVE)
        if isinstance(found.node, ast.ClassDef):
            raise Refusal("it is a class", "name its methods")
        if found.path != point.function:
            raise Refusal(f"it is defined as {found.path}", "name it so in the map")
        module = self._loaded(point.module)
        if not Path(module.path).resolve().is_relative_to(Path.cwd()):
            raise Refusal(f"{module.path} is not below this directory", _LEAVE)
        named = definitions(module.tree.body)
        same = [node for name, node in named if name == point.qualname]
        if sum(not _is(node, "overload") for node in same) != 1:
            raise Refusal("it is defined more than once", _LEAVE)
        if _is(found.node, "property", "cached_property", "setter"):
            raise Refusal("it is a property", "name what it calls")
        declared = declared_on(self._code, found.node, found.scope)
        return _Task(point, module, found.node, found.scope, declared)

    def _loaded(self, name: str) -> Module:
        module = self._code.load(name)
        assert module is not None  # noqa: S101  # a function was found in it
        return module

    def _refuse(self, point: MappedPoint, problem: str, remedy: str) -> None:
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
        width = width_of(path, _WIDTH)
        bindings = Bindings(self._code, module, text, (task.scope for task in tasks))
        added: dict[Function, list[Write]] = defaultdict(list)
        emitting: dict[Function, list[frozenset[Any]]] = defaultdict(list)
        for task in tasks:
            if self._there(task) is not None or self._contradicts(task):
                continue
            emitted = of_map(task.point).emitted
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
            room = width - task.node.col_offset
            added[task.node].append(partial(_written, task.point, names, room))
        if not added:
            return text, 0
        text = put_on(text, added.items())
        kind = imports.kind_in(partial(_is_own, module))
        for name in sorted(bindings.wanted):
            text = imports.add(text, name, bindings.wanted[name], kind, width=width)
        return text, sum(map(len, added.values()))

    def _strip(self, text: str, tasks: Sequence[_Task]) -> tuple[str, int]:
        removed: dict[Function, list[int]] = defaultdict(list)
        used: set[str] = set()
        for task in tasks:
            at = self._there(task)
            if at is None:
                self._contradicts(task)
                continue
            removed[task.node].append(at)
            inside = ast.walk(task.node.decorator_list[at])
            used |= {node.id for node in inside if isinstance(node, ast.Name)}
        if not removed:
            return text, 0
        text = take_off(text, removed.items())
        text = imports.remove(text, sorted(used - names_in(text)))
        return text, sum(map(len, removed.values()))

    def _there(self, task: _Task) -> int | None:
        """The number of the decorator that says what the map says."""
        wanted = self._facts(of_map(task.point))
        for index, described in enumerate(task.declared):
            if described is not None and not described.unsaid and self._facts(described) == wanted:
                return index
        return None

    def _contradicts(self, task: _Task) -> bool:
        """Whether decorators emit the same already, in another way: that is a problem."""
        emitted = [each.emitted for each in task.declared if each is not None]
        if not of_map(task.point).emitted <= frozenset().union(*emitted):
            return False
        problem = "a decorator emits the same, and captures something else than the map says"
        self._refuse(task.point, problem, "make them agree: sidelight points --check says what")
        return True

    def _facts(self, described: Described) -> Any:
        return self._canonical(described.facts())

    def _canonical(self, value: Any) -> Any:
        """With each function called by the path where it is defined."""
        if not isinstance(value, dict):
            return value
        if value.keys() == {"call"} and ":" in value["call"]:
            found = self._functions.defined(value["call"])
            return {"call": found.path} if isinstance(found, Defined) else value
        return {name: self._canonical(each) for name, each in value.items()}

    def _prove(self, data: bytes, tasks: Sequence[_Task], *, there: bool) -> None:
        """Read what would be written: it has to say what the map says, or no longer."""
        code = Codebase(self._tops)
        before = tasks[0].module
        try:
            module = Module(before.name, before.path, data, package=before.package)
        except (SyntaxError, ValueError) as error:
            self._refuse(tasks[0].point, f"it cannot be written: {error}", _LEAVE)
            return
        code.replace(module)
        functions = Functions(code)
        for task in tasks:
            found = functions.defined(task.point.function)
            says = False
            if isinstance(found, Defined) and not isinstance(found.node, ast.ClassDef):
                declared = declared_on(code, found.node, found.scope)
                says = self._there(msgspec.structs.replace(task, declared=declared)) is not None
            if says is not there and not self.problems:
                self._refuse(task.point, "it cannot be written so that it says the same", _LEAVE)


def _written(point: MappedPoint, names: Any, room: int, indent: str) -> str:
    return decorator(point, names, width=room, indent=indent)


def _is(node: Function, *decorators: str) -> bool:
    """Whether a function has one of these decorators, whoever's it is."""
    return any(
        getattr(each, "attr", getattr(each, "id", "")) in decorators for each in node.decorator_list
    )


def _is_own(module: Module, package: str) -> bool:
    """Whether a top-level package lies beside the one that the module is in."""
    levels = module.name.count(".") + module.package
    root = Path(module.path).parents[levels]
    return (root / package).is_dir() or (root / f"{package}.py").is_file()
