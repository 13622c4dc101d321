"""Points as they can be written down: what a reading of the code finds, in the terms of a map.

A map cannot say everything that a decorator can: a lambda has no name, TOML has no None. Nor does a
reading that imports nothing know all of it. What is not said stays here as the code has it, with
the reason.
"""

from __future__ import annotations

import enum
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias, TypeGuard

import msgspec

from sidelight.maps.read import Call, Cases, Constant, MappedPoint, parse
from sidelight.points import Choice, Declaration, Expression, Phase, Point, is_computed
from sidelight.record import Mode

PHASES: Final[Sequence[Phase]] = ("start", "success", "failure")
_NAMES: Final = (
    *("success", "start", "failure", "mode", "span", "strict"),
    *("artifact_id", "organization_id", "transaction", "after_commit"),
)
_DEFAULTS: Final = {"span": True, "strict": False}
NO_NAME: Final = "a map calls functions by their names: give it one"
_NO_CONSTANT: Final = "a constant in a map is a text, a number, true or false"


class Unsaid(msgspec.Struct, frozen=True):
    """What cannot be said.

    Attributes:
        source: as the code has it.
        why: with the remedy.
        hidden: it may be sayable; whoever imports the code will know.
        types: where it is an event type: those that are known all the same.
    """

    source: str
    why: str
    hidden: bool = False
    types: tuple[str, ...] = ()


Value: TypeAlias = Expression | Call | Constant | bool | int | float | Unsaid
Type: TypeAlias = str | Cases | Unsaid


class Described(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One ``@emits(…)``, or one ``[[point]]``."""

    start: Type | None = None
    success: Type | None = None
    failure: Type | None = None
    mode: Mode | Unsaid = "scheduled"
    span: bool | Unsaid = True
    strict: bool | Unsaid = False
    artifact_id: Value | None = None
    organization_id: Value | None = None
    transaction: Value | None = None
    after_commit: Value | None = None
    attributes: Mapping[str, Value] = msgspec.field(default_factory=dict)
    rest: Unsaid | None = None  # ``**options``: it may be anything

    @property
    def how(self) -> str:
        """The mode, or what the code has in its place."""
        return self.mode.source if isinstance(self.mode, Unsaid) else self.mode

    def types(self, phase: Phase) -> tuple[str, ...]:
        """The event types that can be emitted in ``phase``, as far as they are known."""
        value: Type | None = getattr(self, phase)
        if isinstance(value, Cases):
            last = () if value.otherwise is None else (value.otherwise,)
            return tuple(dict.fromkeys((*value.cases.values(), *last)))
        if isinstance(value, Unsaid):
            return value.types
        return () if value is None else (value,)

    @property
    def emitted(self) -> frozenset[tuple[Phase, str]]:
        """Every event type that can be emitted, with its phase."""
        return frozenset((phase, each) for phase in PHASES for each in self.types(phase))

    @property
    def captured(self) -> dict[str, str]:
        """What is captured, each value as text."""
        fields = {
            "artifact_id": self.artifact_id,
            "organization_id": self.organization_id,
            **self.attributes,
        }
        return {name: spelled(value) for name, value in fields.items() if value is not None}

    @property
    def unsaid(self) -> dict[str, Unsaid]:
        """What cannot be said, by the names of a map."""
        return {name: value for name, value in self._named() if isinstance(value, Unsaid)}

    @property
    def sayable(self) -> bool:
        """Whether a map can say it without meaning something else.

        A captured value may be missing there; what decides whether and how it is emitted may not.
        """
        unsaid = self.unsaid
        if unsaid.keys() & {"mode", "span", "strict", "transaction", "after_commit", "**"}:
            return False
        return any(self.types(phase) and phase not in unsaid for phase in PHASES)

    def facts(self) -> dict[str, Any]:
        """All that can be said, as a map's TOML has it; defaults are left out, but the mode."""
        said = {
            name: _as_toml(value)
            for name in _NAMES
            if (value := getattr(self, name)) is not _DEFAULTS.get(name)
            and not isinstance(value, Unsaid)
        }
        attributes = {
            name: _as_toml(value)
            for name, value in self.attributes.items()
            if not isinstance(value, Unsaid)
        }
        return said | {"attributes": attributes} if attributes else said

    def _named(self) -> Iterator[tuple[str, Any]]:
        yield from ((name, getattr(self, name)) for name in _NAMES)
        yield from ((f"attributes.{name}", value) for name, value in self.attributes.items())
        yield "**", self.rest


class Found(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A function with what was found of its instrumentation.

    Attributes:
        kind: "function", "coroutine", "generator", "async generator".
        file, line: where it begins, with its decorators.
    """

    module: str
    qualname: str
    kind: str
    file: str | None
    line: int | None
    declarations: tuple[Described, ...]

    @property
    def path(self) -> str:
        """``package.module:Class.method``."""
        return f"{self.module}:{self.qualname}"

    @property
    def nameless(self) -> str:
        """Why a map cannot name the function; "" where it can."""
        if self.module == "__main__":
            return "functions of __main__ cannot be named: move it into a module"
        if "<" in self.qualname:
            return "it is made inside of a function, where nothing can be named: move it out"
        return ""


def spelled(value: Value) -> str:
    """A value as a person reads it."""
    if isinstance(value, Unsaid):
        return value.source
    if isinstance(value, Call):
        return value.call
    return repr(value.value if isinstance(value, Constant) else value)


def _as_toml(value: Any) -> Any:
    if isinstance(value, Expression):
        return repr(value)
    if isinstance(value, Call | Constant):
        return value.model_dump()
    if isinstance(value, Cases):
        said = {"choose": _as_toml(value.choose), "cases": dict(value.cases)}
        return said if value.otherwise is None else said | {"otherwise": value.otherwise}
    return value


def of_map(point: MappedPoint) -> Described:
    """What a map says of a point."""
    return Described(
        **{name: getattr(point, name) for name in Described.__struct_fields__ if name != "rest"}
    )


def of_code(point: Point) -> Found:
    """A point of this process."""
    return Found(
        module=point.module,
        qualname=point.qualname,
        kind=point.kind,
        file=point.file,
        line=point.line,
        declarations=tuple(map(_described, point.declarations)),
    )


def _described(declaration: Declaration) -> Described:
    return Described(
        start=_type(declaration.start),
        success=_type(declaration.success),
        failure=_type(declaration.failure),
        mode=declaration.mode,
        span=declaration.span,
        strict=declaration.strict,
        artifact_id=_optional(declaration.artifact_id),
        organization_id=_optional(declaration.organization_id),
        transaction=_optional(declaration.transaction),
        after_commit=_optional(declaration.after_commit),
        attributes={name: _value(value) for name, value in declaration.attributes.items()},
    )


def _type(declared: str | Choice | None) -> Type | None:
    if not isinstance(declared, Choice):
        return None if declared is None else str.__str__(declared)  # an Enum's text
    cases = {
        str.__str__(key): str.__str__(type_)
        for key, type_ in declared.cases.items()
        if _is_text(key)
    }
    return cases_of(_value(declared.by), cases, declared, whole=len(cases) == len(declared.cases))


def cases_of(by: Value, cases: Mapping[str, str], choice: Choice, *, whole: bool) -> Type:
    """A choice; ``whole`` says whether all of its cases are texts."""
    if isinstance(by, Unsaid):
        source = f"choose({by.source}, …)"
        return Unsaid(source, by.why, hidden=by.hidden, types=choice.types)
    if not whole:
        keys = ", ".join(repr(key) for key in choice.cases if not isinstance(key, str))
        why = f"a map chooses by texts, and it has {keys}: choose by a function that returns one"
        return Unsaid(f"choose({spelled(by)}, …)", why, types=choice.types)
    return Cases(choose=by, cases=dict(cases), otherwise=choice.otherwise)


def _optional(value: Any) -> Value | None:
    return None if value is None else _value(value)


def _value(value: Any) -> Value:
    if isinstance(value, Expression):
        return expression(value)
    if is_computed(value):
        return _call(value)
    return constant(value)


def expression(value: Expression) -> Value:
    """An expression, if its text leads back to it."""
    try:
        if repr(parse(repr(value))) == repr(value):
            return value
    except ValueError:
        pass
    return Unsaid(repr(value), "in a map keys are texts or whole numbers: give a function")


def constant(value: object) -> Value:
    """A constant, if TOML has such."""
    if type(value) in {bool, int, float}:
        return value  # type: ignore[return-value]
    if _is_text(value) and (type(value) is str or isinstance(value, enum.Enum)):
        return Constant(value=str.__str__(value))
    if value is None:
        return Unsaid("None", "TOML has no None: leave it out")
    return Unsaid(repr(value), _NO_CONSTANT)


def _is_text(value: object) -> TypeGuard[str]:
    """Whether TOML can have it: a text without halves of characters."""
    return isinstance(value, str) and value.encode("utf-8", "replace").decode() == value


def _call(function: Any) -> Value:
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    path = f"{getattr(function, '__module__', None)}:{name}"
    try:
        if pkgutil.resolve_name(path) is function:
            return Call(call=path)
    except (ValueError, ImportError, AttributeError):
        pass
    return Unsaid(name.rpartition("<locals>.")[2], NO_NAME)
