"""A map held against the code, and both against the catalogue: what does not fit together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from inspect import Signature as PythonSignature
from typing import Any, Final, Protocol

import msgspec

from sidelight.exceptions import PointError
from sidelight.maps.described import PHASES, Described, Found, Unsaid, of_map
from sidelight.maps.read import Map, MappedPoint
from sidelight.maps.static.events import Events
from sidelight.maps.static.files import near
from sidelight.maps.static.functions import Gone, Seen, Unseen
from sidelight.points import Signature, check_fields

TWICE: Final = ("another point of the map emits the same, which is not emitted twice", "keep one")


class Difference(msgspec.Struct, frozen=True):
    """Something that does not fit.

    Attributes:
        place: a file and its line.
        what: the function or the event type.
    """

    place: str
    what: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.place}: {self.what}: {self.problem}; {self.remedy}"


class Looking(Protocol):
    """Finds functions by their paths."""

    def look(self, path: str) -> Seen | Gone | Unseen:
        """Find one."""
        ...


class _Stated(msgspec.Struct, frozen=True):
    """One point, by a map or a decorator."""

    place: str
    path: str
    described: Described
    mapped: bool


class Checks:
    """The checks of one map.

    Attributes:
        remarks: what could not be checked.
    """

    def __init__(
        self, points: Map, found: Sequence[Found], events: Events, functions: Looking
    ) -> None:
        self._map = points
        self._found = found
        self._events = events
        self._functions = functions
        self.remarks: list[str] = []

    def differences(self) -> Iterator[Difference]:
        """All that does not fit."""
        mapped = [
            _Stated(self._map.place(point), point.function, of_map(point), mapped=True)
            for point in self._map.points
        ]
        decorated = [
            _Stated(near(f"{point.file}:{point.line}"), point.path, described, mapped=False)
            for point in self._found
            for described in point.declarations
        ]
        of_functions: dict[str, list[_Stated]] = {}
        for each in (*mapped, *decorated):
            of_functions.setdefault(each.path, []).append(each)
        for path, stated in of_functions.items():
            yield from self._function(path, stated)
        yield from self._unknown_types((*mapped, *decorated))
        yield from self._emitted_nowhere((*mapped, *decorated))

    def _function(self, path: str, stated: Sequence[_Stated]) -> Iterator[Difference]:
        seen = self._functions.look(path)
        if isinstance(seen, Gone):
            for each in stated:
                yield Difference(each.place, path, seen.problem, seen.remedy)
            return
        if isinstance(seen, Unseen):
            self.remarks.append(f"{path} is not checked: {seen.why}: --import")
        else:
            for each in stated:
                yield from self._arguments(each, seen)
            yield from _waiting_in_a_transaction(path, stated, seen)
        yield from _without_success(path, stated)
        yield from _twice(path, stated)
        yield from _contradictions(path, stated)

    def _arguments(self, stated: _Stated, seen: Seen) -> Iterator[Difference]:
        """What the decorator would refuse, each value by itself so that all of it is told."""
        described = stated.described
        if any(isinstance(getattr(described, phase), Unsaid) for phase in PHASES):
            return
        name = stated.path.partition(":")[2]
        told = set()
        for one in _one_value_each(described):
            gone: list[Difference] = []
            try:
                declaration = _mapped(stated.path, one).declaration(self._callee(stated, gone))
                check_fields(declaration, Signature(name, seen.parameters, seen.parameters))
            except PointError as error:
                problem, _, remedy = str(error).rpartition("; ")
                problem = problem.removeprefix(f"{name}: ").replace(f"{name} has", "it has")
                gone.append(Difference(stated.place, stated.path, problem, remedy))
            yield from (each for each in gone if each not in told)
            told.update(gone)

    def _callee(self, stated: _Stated, gone: list[Difference]) -> Callable[[str], Any]:
        """Stands in for the functions that compute values: of these the parameters are known."""

        def resolve(path: str) -> Any:
            seen = self._functions.look(path)
            if isinstance(seen, Gone):
                problem = f"it calls {path}: {seen.problem}"
                gone.append(Difference(stated.place, stated.path, problem, seen.remedy))
            stand_in: Any = lambda: None  # noqa: E731  # each has a signature of its own
            if isinstance(seen, Seen):
                stand_in.__signature__ = PythonSignature(seen.parameters)
                stand_in.__name__ = path
            return stand_in

        return resolve

    def _unknown_types(self, stated: Iterable[_Stated]) -> Iterator[Difference]:
        declared = self._events.declared
        if not declared:
            return
        for each in stated:
            types = dict.fromkeys(t for phase in PHASES for t in each.described.types(phase))
            for type_ in types:
                if type_ not in declared:
                    close = get_close_matches(type_, declared, 1)
                    remedy = f"did you mean {close[0]}?" if close else "declare it"
                    problem = f"{type_} is not in the catalogue"
                    yield Difference(each.place, each.path, problem, remedy)

    def _emitted_nowhere(self, stated: Iterable[_Stated]) -> Iterator[Difference]:
        emitted = {type_ for each in stated for _, type_ in each.described.emitted}
        for type_, place in self._events.declared.items():
            if type_ not in emitted | self._events.emitted:
                yield Difference(
                    near(place), type_, "nothing emits it", "emit it, or say who does: emitted_by="
                )


def _one_value_each(described: Described) -> Iterator[Described]:
    """The same point with no value at all, and with each of its values alone."""
    ids = dict.fromkeys(("artifact_id", "organization_id"))
    bare = msgspec.structs.replace(described, **ids, attributes={}, rest=None)
    yield bare
    for name in ids:
        if getattr(described, name) is not None:
            yield msgspec.structs.replace(bare, **{name: getattr(described, name)})
    for name, value in described.attributes.items():
        yield msgspec.structs.replace(bare, attributes={name: value})


def _mapped(path: str, described: Described) -> MappedPoint:
    """A point as a map has it, without what that cannot say."""
    said: Mapping[str, Any] = {
        name: value
        for name in Described.__struct_fields__
        if name not in {"rest", "attributes"}
        and not isinstance(value := getattr(described, name), Unsaid)
    }
    values = described.attributes.items()
    attributes = {name: value for name, value in values if not isinstance(value, Unsaid)}
    return MappedPoint.model_construct(function=path, **said, attributes=attributes)


def _without_success(path: str, stated: Sequence[_Stated]) -> Iterator[Difference]:
    scheduled = [each for each in stated if each.described.mode == "scheduled"]
    if any(each.described.success is not None for each in scheduled):
        return
    for each in scheduled:
        yield Difference(
            each.place,
            path,
            "it is scheduled, and has no event on success",
            'name one, or use mode = "awaited"',
        )


def _waiting_in_a_transaction(
    path: str, stated: Sequence[_Stated], seen: Seen
) -> Iterator[Difference]:
    joins = any(
        each.described.transaction is not None or each.described.after_commit is not None
        for each in stated
    )
    what = seen.transaction or ("transaction" if joins else "")
    for each in stated:
        if what and each.described.mode == "awaited":
            yield Difference(
                each.place,
                path,
                f"it is awaited inside of a transaction ({what}), whose locks are held meanwhile",
                'use mode = "scheduled"',
            )


def _twice(path: str, stated: Sequence[_Stated]) -> Iterator[Difference]:
    emitted: frozenset[Any] = frozenset()
    for each in stated:
        if each.mapped and each.described.emitted <= emitted:
            yield Difference(each.place, path, *TWICE)
        emitted |= each.described.emitted if each.mapped else frozenset()


def _contradictions(path: str, stated: Sequence[_Stated]) -> Iterator[Difference]:
    """Where the map and a decorator emit the same, and capture something else."""
    for each in stated:
        for other in stated:
            if not each.mapped or other.mapped:
                continue
            if each.described.emitted != other.described.emitted or other.described.unsaid:
                continue
            here, there = _flat(each.described), _flat(other.described)
            names = [name for name in {**here, **there} if here.get(name) != there.get(name)]
            if names:
                yield Difference(
                    each.place,
                    path,
                    f"its decorator says another {', '.join(names)}",
                    f"see {other.place}",
                )


def _flat(described: Described) -> dict[str, Any]:
    facts = described.facts()
    attributes = facts.pop("attributes", {})
    return facts | {f"attributes.{name}": value for name, value in attributes.items()}
