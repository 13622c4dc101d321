"""Points: a decorator's arguments, parsed and refused here, and the registry of what is woven."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias, get_args

from sidelight.exceptions import PointError
from sidelight.fields import Choice, Expression, Phase

Mode: TypeAlias = Literal["scheduled", "awaited"]
EventType: TypeAlias = str | Choice
_TYPE_NAME: Final = re.compile(r"[A-Za-z][\w.\-]{0,127}")
_OWN_COLUMNS: Final = frozenset({"event_id", "occurred_at", "recorded_at", "duration", "outcome"})
_LATER: Final = frozenset({"transaction", "after_commit"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """What one ``@emits(…)`` asks for, checked."""

    start: str | None = None
    success: EventType | None = None
    failure: EventType | None = None
    mode: Mode = "scheduled"
    artifact_id: Any = None
    organization_id: Any = None
    span: bool = True
    attributes: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def types(self, phase: Phase) -> tuple[str, ...]:
        """The event types that this declaration can emit in ``phase``."""
        declared: EventType | None = getattr(self, phase, None)
        if declared is None:
            return ()
        return declared.types if isinstance(declared, Choice) else (declared,)


def declare(
    success: object,
    start: object,
    failure: object,
    mode: object,
    fields: Mapping[str, object],
    *,
    span: bool = True,
) -> Declaration:
    """Parse the arguments of a decorator.

    Raises:
        PointError: names the argument and the remedy.
    """
    for name, value in (("the event type", success), ("start", start), ("failure", failure)):
        _check_type(name, value)
    if mode not in get_args(Mode):
        _refuse(f"mode={mode!r}", 'use mode="scheduled" or mode="awaited"')
    if success is None and start is None and failure is None:
        _refuse("no event is named", 'give a type: @emits("artifact_received")')
    if isinstance(start, Choice):
        _refuse("start= takes one type", "a choice needs the call's outcome or arguments: name one")
    for name in fields:
        if name in _OWN_COLUMNS:
            _refuse(f"{name}= is set by sidelight", "call the attribute something else")
        if name in _LATER:
            _refuse(f"{name}= is not there yet in this version", "leave it out")
    named = dict(fields)
    return Declaration(
        start=start,  # type: ignore[arg-type]  # narrowed by _check_type
        success=success,  # type: ignore[arg-type]
        failure=failure,  # type: ignore[arg-type]
        mode=mode,  # type: ignore[arg-type]
        artifact_id=named.pop("artifact_id", None),
        organization_id=named.pop("organization_id", None),
        span=span,
        attributes=MappingProxyType(named),
    )


def _refuse(problem: str, remedy: str) -> None:
    raise PointError(function="@emits", problem=problem, remedy=remedy)


def _check_type(name: str, value: object) -> None:
    if callable(value) and not isinstance(value, Expression):
        _refuse(f"{name} is {value!r}", 'write the parentheses: @emits("artifact_received")')
    if isinstance(value, Choice):
        for each in value.types:
            _check_type(name, each)
        if not value.types:
            _refuse(f"{name}: choose() has no cases", "give at least one value → type")
    elif value is not None and not (isinstance(value, str) and _TYPE_NAME.fullmatch(value)):
        _refuse(
            f"{name} is {value!r}",
            "use a name of letters, digits and _ . - that starts with a letter, or choose(…)",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A function with its instrumentation."""

    module: str
    qualname: str
    kind: str
    file: str | None
    line: int | None
    declarations: tuple[Declaration, ...]

    @property
    def path(self) -> str:
        """``package.module:Class.method``."""
        return f"{self.module}:{self.qualname}"

    @property
    def span(self) -> bool:
        """Whether a call of the function makes a span."""
        return any(declaration.span for declaration in self.declarations)


class Registry:
    """The points of this process, in the order in which they were decorated."""

    def __init__(self) -> None:
        self._points: dict[str, Point] = {}

    def add(self, point: Point) -> None:
        """Enter a point; the same function decorated again replaces what it was."""
        self._points[point.path] = point

    def __iter__(self) -> Iterator[Point]:
        return iter(tuple(self._points.values()))

    def __len__(self) -> int:
        return len(self._points)


registry = Registry()
