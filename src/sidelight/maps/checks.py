"""A map compared with the code, and both with the catalogue: everything that does not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from inspect import Signature as PythonSignature
from typing import Any, Final, Protocol

import msgspec

from sidelight.exceptions import PointError
from sidelight.maps.declarations import PHASES, MapDeclaration, Opaque
from sidelight.maps.listing import ListedPoint
from sidelight.maps.private_names import source_path
from sidelight.maps.reader import Map
from sidelight.maps.static.event_types import EventTypes
from sidelight.maps.static.functions import (
    FoundFunction,
    FoundOrNot,
    MissingFunction,
    UnknownFunction,
)
from sidelight.maps.static.modules import relative_place
from sidelight.points import Signature, check_fields
from sidelight.record import alike

_ALIKE: Final = 0.9  # of 1: event types that differ in a letter or two
_LESS_ALIKE: Final = 0.75
TWICE: Final = ("another point of the map emits the same, which is not emitted twice", "keep one")


class Difference(msgspec.Struct, frozen=True):
    """One thing that does not fit.

    Attributes:
        place: a file and its line.
        what: the path of a function, or an event type.
        problem: the difference.
        remedy: a way to remove it.
    """

    place: str
    what: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.place}: {self.what}: {self.problem}; {self.remedy}"


class FunctionFinder(Protocol):
    """Finds functions by their paths."""

    def find(self, path: str) -> FoundOrNot:
        """Find one function."""
        ...


class _Statement(msgspec.Struct, frozen=True):
    """A declaration with its place, in a map or in the code."""

    place: str
    path: str
    declared: MapDeclaration
    in_map: bool

    def differs(self, problem: str, remedy: str) -> Difference:
        return Difference(self.place, self.path, problem, remedy)


class Checks:
    """The checks of one map.

    Attributes:
        remarks: functions that could not be checked.
    """

    def __init__(
        self,
        points: Map,
        listed: Sequence[ListedPoint],
        types: EventTypes,
        functions: FunctionFinder,
    ) -> None:
        self._listed = listed
        self._types = types
        self._functions = functions
        self._statements = [
            _Statement(points.place(point), point.function, point, in_map=True)
            for point in points.points
        ] + [
            _Statement(relative_place(f"{p.file}:{p.line}"), p.path, declared, in_map=False)
            for p in listed
            for declared in p.declarations
        ]
        self._emitted = types.emitted | {
            type_ for each in self._statements for _, type_ in each.declared.emitted
        }
        self.remarks: list[str] = []

    def differences(self) -> Iterator[Difference]:
        """Everything that does not fit."""
        by_function: dict[str, list[_Statement]] = {}
        for each in self._statements:
            by_function.setdefault(source_path(each.path), []).append(each)
        for path, statements in by_function.items():
            yield from self._of_function(path, statements)
        yield from _above_registrars(self._listed)
        yield from self._undeclared_types()
        yield from self._types_without_emitter()

    def _of_function(self, path: str, statements: Sequence[_Statement]) -> Iterator[Difference]:
        function = self._functions.find(path)
        if isinstance(function, MissingFunction):
            for each in statements:
                yield each.differs(function.problem, function.remedy)
            return
        if isinstance(function, UnknownFunction):
            self.remarks.append(f"{path} is not checked: {function.reason}: --import")
        else:
            if function.may_replace and any(each.in_map for each in statements):
                remark = f"{function.may_replace} may replace it, and its source does not show by"
                self.remarks.append(f"{path} is checked as defined; {remark} what: --import")
            for each in statements:
                yield from self._arguments(each, function)
            yield from _awaited_in_transaction(statements, function)
            yield from _never_called(statements, function)
        yield from _scheduled_without_success(statements)
        yield from _emitted_twice(statements)
        yield from _contradictions(statements)

    def _arguments(self, statement: _Statement, function: FoundFunction) -> Iterator[Difference]:
        """Yield the refusals of the decorator; each value is tried alone, so that all are named."""
        if any(isinstance(getattr(statement.declared, phase), Opaque) for phase in PHASES):
            return
        name = statement.path.partition(":")[2]
        named = set()
        for one in _one_value_each(statement.declared):
            found: list[Difference] = []
            try:
                declaration = one.declaration(name, self._stand_ins(statement, found))
                check_fields(declaration, Signature(name, function.parameters, function.parameters))
            except PointError as error:
                problem, _, remedy = str(error).rpartition("; ")
                problem = problem.removeprefix(f"{name}: ").replace(f"{name} has", "it has")
                found.append(statement.differs(problem, remedy))
            yield from (each for each in found if each not in named)
            named.update(found)

    def _stand_ins(self, statement: _Statement, found: list[Difference]) -> Callable[[str], Any]:
        """Stand-ins for the functions that compute values, with the same parameters."""

        def resolve(path: str) -> Any:
            function = self._functions.find(path)
            if isinstance(function, MissingFunction):
                problem = f"it calls {path}: {function.problem}"
                found.append(statement.differs(problem, function.remedy))
            stand_in: Any = lambda: None  # noqa: E731  # each has a signature of its own
            if isinstance(function, FoundFunction):
                stand_in.__signature__ = PythonSignature(function.parameters)
                stand_in.__name__ = path
            return stand_in

        return resolve

    def _undeclared_types(self) -> Iterator[Difference]:
        declared = self._types.declared
        waiting = [type_ for type_ in declared if type_ not in self._emitted]
        for each in self._statements if declared else ():
            types = dict.fromkeys(t for phase in PHASES for t in each.declared.types(phase))
            for type_ in types:
                if type_ not in declared:
                    # A misspelt type leaves the type that was meant without an emitter.
                    close = alike(type_, waiting, least=_LESS_ALIKE)
                    close = close or alike(type_, declared, least=_ALIKE)
                    remedy = f"did you mean {close}?" if close else "declare it"
                    yield each.differs(f"{type_} is not in the catalogue", remedy)

    def _types_without_emitter(self) -> Iterator[Difference]:
        for type_, place in self._types.declared.items():
            if type_ not in self._emitted:
                remedy = "emit it, or name the function that does: emitted_by="
                yield Difference(relative_place(place), type_, "nothing emits it", remedy)


def _one_value_each(declared: MapDeclaration) -> Iterator[MapDeclaration]:
    """Yield the same declaration without any value, and with each of its values alone."""
    ids = dict.fromkeys(("artifact_id", "organization_id"))
    bare = declared.model_copy(update={**ids, "attributes": {}})
    yield bare
    for name in ids:
        if (value := getattr(declared, name)) is not None:
            yield bare.model_copy(update={name: value})
    for name, value in declared.attributes.items():
        yield bare.model_copy(update={"attributes": {name: value}})


def _scheduled_without_success(statements: Sequence[_Statement]) -> Iterator[Difference]:
    scheduled = [each for each in statements if each.declared.mode == "scheduled"]
    if any(each.declared.success is not None for each in scheduled):
        return
    for each in scheduled:
        problem = "it is scheduled, and has no event on success"
        yield each.differs(problem, 'name one, or use mode = "awaited"')


def _awaited_in_transaction(
    statements: Sequence[_Statement], function: FoundFunction
) -> Iterator[Difference]:
    joins = any(each.declared.joined for each in statements)
    transaction = function.transaction or ("transaction" if joins else "")
    for each in statements:
        if transaction and each.declared.mode == "awaited":
            problem = f"it is awaited inside of a transaction ({transaction}), whose locks are held"
            yield each.differs(f"{problem} meanwhile", 'use mode = "scheduled"')


def _never_called(
    statements: Sequence[_Statement], function: FoundFunction
) -> Iterator[Difference]:
    """Yield points of the map whose function a framework or a property calls past the wrapper."""
    in_code = frozenset[Any]().union(*(s.declared.emitted for s in statements if not s.in_map))
    for each in statements:
        if not each.in_map or each.declared.emitted <= in_code:
            continue
        if function.is_property:
            yield each.differs("it is a property", "name the function that it calls")
        elif function.registrar:
            problem = f"{function.registrar.source} hands the bare function to a framework, whose"
            remedy = "write the decorator below it: sidelight apply"
            yield each.differs(f"{problem} calls emit nothing then", remedy)


def _above_registrars(listed: Sequence[ListedPoint]) -> Iterator[Difference]:
    """Yield points of the code whose ``@emits`` stands above a registrar."""
    for point in listed:
        if point.registrar is not None and point.registrar.certain:
            problem, _, remedy = point.warning.rpartition("; ")
            place = relative_place(f"{point.file}:{point.line}")
            yield Difference(place, point.path, problem, remedy)


def _emitted_twice(statements: Sequence[_Statement]) -> Iterator[Difference]:
    emitted: frozenset[Any] = frozenset()
    for each in statements:
        if each.in_map:
            if each.declared.emitted <= emitted:
                yield each.differs(*TWICE)
            emitted |= each.declared.emitted


def _contradictions(statements: Sequence[_Statement]) -> Iterator[Difference]:
    """Yield points of the map that emit the same as a decorator, and capture something else."""
    mapped = [each for each in statements if each.in_map]
    decorated = [each for each in statements if not each.in_map]
    for each in mapped:
        for other in decorated:
            if each.declared.emitted != other.declared.emitted or other.declared.opaque:
                continue
            here, there = _flat(each.declared), _flat(other.declared)
            names = [name for name in {**here, **there} if here.get(name) != there.get(name)]
            if names:
                problem = f"its decorator says another {', '.join(names)}"
                yield each.differs(problem, f"see {other.place}")


def _flat(declared: MapDeclaration) -> dict[str, Any]:
    facts = declared.facts()
    attributes = facts.pop("attributes", {})
    return facts | {f"attributes.{name}": value for name, value in attributes.items()}
