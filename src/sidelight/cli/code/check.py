"""`sidelight points --check`: compare a map with the code, for CI and before a commit."""

from __future__ import annotations

import inspect
from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import typer

from sidelight.cli.code.reading import read_by_import, read_source, search_current_directory
from sidelight.cli.output import clean, complain, print_json, remark
from sidelight.maps import (
    PHASES,
    Checks,
    Codebase,
    Difference,
    FoundFunction,
    ListedPoint,
    Map,
    MissingFunction,
    SourceFunctions,
    UnknownFunction,
    read_event_types,
    read_map,
    resolved,
    weaving_errors,
)
from sidelight.record import catalogue, unknown_types
from sidelight.store import plural


def check(path: Path, modules: Sequence[str], *, importing: bool, as_json: bool) -> None:
    """Print one line for each thing that does not fit, and exit with 1 if there is any.

    Args:
        path: the map.
        modules: the modules whose decorators and catalogue count; none means the packages that
            the map names.
        importing: import these modules, and the functions of the map.
        as_json: print one object per line.

    Raises:
        MapError: the map cannot be read.
    """
    points = read_map(path)
    search_current_directory(source=not importing)
    names = modules or list(dict.fromkeys(each.module.partition(".")[0] for each in points.points))
    code = Codebase(name.partition(".")[0] for name in names)
    reading = read_source(names, code)
    if importing:
        registrars = {point.path: point.registrar for point in reading.points}
        reading = read_by_import(names)
        reading.points = [
            msgspec.structs.replace(point, registrar=registrars.get(point.path))
            for point in reading.points
        ]
    types = read_event_types(code, names)
    if importing:
        for declared in catalogue:
            types.declared.setdefault(declared.name, declared.payload.__module__)
            types.emitted |= {declared.name} if declared.emitted_by else set()
    functions = _ImportedFunctions(SourceFunctions(code)) if importing else SourceFunctions(code)
    checks = Checks(points, reading.points, types, functions)
    differences = list(checks.differences())
    if importing:
        differences += _weaving_differences(points, {each.place for each in differences})
    if as_json:
        print_json(map(msgspec.structs.asdict, differences))
    else:
        for each in differences:
            typer.echo(clean(str(each)))
    warnings = [
        f"{point.path}: {point.warning}"
        for point in reading.points
        if point.registrar is not None and not point.registrar.certain
    ]
    emitted = types.declared.keys() | types.emitted
    misspelt, not_emitted = _unknown_types(points, reading.points, emitted)
    for note in (*reading.remarks, *warnings, *types.remarks, *checks.remarks, *not_emitted):
        remark(note)
    problems = [*reading.problems, *misspelt]
    for problem in problems:
        complain(problem)
    if differences or problems:
        raise typer.Exit(1)
    remark(f"{path}: {_content(points)}, and all of it fits")


def _content(points: Map) -> str:
    expectations = len(points.expectations)
    more = f", {plural(expectations, 'expectation')}" if expectations else ""
    return plural(len(points.points), "point") + more


def _unknown_types(
    points: Map, listed: Iterable[ListedPoint], others: Iterable[str]
) -> tuple[list[str], list[str]]:
    """Return what to say of the expected types that nothing emits.

    First of those where an emitted one has almost the same name. Then of those on which an
    expectation depends: they may be emitted by code that was not read.

    Args:
        points: the map.
        listed: the points of the code.
        others: the types of the catalogue, and those of calls of ``emit``.
    """
    declared = chain(points.points, *(each.declarations for each in listed))
    known = {name for each in declared for phase in PHASES for name in each.types(phase)}
    misspelt, not_emitted = [], []
    for each, name, close, decides in unknown_types(points.expectations, known.union(others)):
        problem = f"{points.path}: {each}: no point, catalogue or emit has the type {name};"
        if close:
            misspelt.append(f"{problem} did you mean {close}?")
        elif decides:
            never = "begins" if name == each.after else "ends"
            not_emitted.append(f"{problem} unless code that was not read does, no wait {never}")
    return misspelt, not_emitted


def _weaving_differences(points: Map, known: Container[str]) -> Iterator[Difference]:
    """Yield the refusals of weaving, at the places where nothing else differs."""
    for point, error in weaving_errors(points):
        place = points.place(point)
        if place not in known:
            problem = str(error.facts["problem"]).removeprefix(f"{point.function}: ")
            yield Difference(place, point.function, problem, str(error.facts["remedy"]))


class _ImportedFunctions:
    """Finds functions by importing their modules; registrars show in their source only."""

    def __init__(self, source: SourceFunctions) -> None:
        self._source = source

    def find(self, path: str) -> FoundFunction | MissingFunction | UnknownFunction:
        """Find ``package.module:Class.method``."""
        if "<locals>" in path:  # no import shows what a function makes when it is called
            return self._source.find(path)
        try:
            found: Any = resolved(path)
        except (ImportError, AttributeError) as error:
            return MissingFunction(str(error), "name its successor")
        if isinstance(found, type):
            return MissingFunction(f"{path} is a class", "name its methods")
        try:
            found = getattr(found, "__func__", found)  # a class method, with its first parameter
            parameters = tuple(inspect.signature(found).parameters.values())
        except (TypeError, ValueError) as error:
            return UnknownFunction(str(error))
        in_source = self._source.find(path)
        registrar = in_source.registrar if isinstance(in_source, FoundFunction) else None
        return FoundFunction(parameters, registrar=registrar)
