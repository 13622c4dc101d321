"""A declaration in the terms of a map: what one ``@emits(…)`` or one ``[[point]]`` states.

Expressions are text, functions are paths, constants are what TOML has. A map cannot express all
that a decorator can: a lambda has no path, and TOML has no None. A reading of source that imports
nothing does not know every value. Both become an `Opaque` value, which gives the reason.
"""

from __future__ import annotations

import ast
import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from keyword import iskeyword
from typing import Annotated, Any, Final, NoReturn, TypeAlias, TypeGuard

import msgspec
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from sidelight.points import (
    OPTIONS,
    ROOTS,
    Choice,
    Declaration,
    Expression,
    Phase,
    choose,
    declare,
)
from sidelight.record import Mode

PHASES: Final[Sequence[Phase]] = ("start", "success", "failure")
NO_PATH: Final = "a map calls a function by its path; give the function a name in a module"
_NO_CONSTANT: Final = "a constant in a map is a text, a number, true or false"
_DEFAULTS: Final = {"span": True, "strict": False}
#: Without these values a map would emit something else than the decorator does.
_INDISPENSABLE: Final = ("mode", "span", "strict", "transaction", "after_commit", "**")
Resolve: TypeAlias = Callable[[str], Any]
"""Finds the function of a path, for ``{ call = … }``."""


def _checked_path(path: str) -> str:
    module, colon, qualname = path.partition(":")
    parts = [*module.split("."), *qualname.split(".")]
    if not colon or not all(part.isidentifier() and not iskeyword(part) for part in parts):
        raise ValueError(f"{path!r} is no path; write package.module:Class.method")
    return path


class Opaque(msgspec.Struct, frozen=True):
    """A value that a map cannot express, or that the source does not show.

    Attributes:
        source: the value as the code spells it.
        reason: why, with the remedy.
        on_import: importing the code may show the value.
        types: for an event type, the types that are known nevertheless.
    """

    source: str
    reason: str
    on_import: bool = False
    types: tuple[str, ...] = ()


class Call(BaseModel):
    """A value that a function computes: ``{ call = "package.module:function" }``.

    The function's parameters are named after the point's, or ``result``, or ``error``, as those of
    a callable in the decorator.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    call: str

    @field_validator("call")
    @classmethod
    def _check(cls, path: str) -> str:
        return _checked_path(path)


class Constant(BaseModel):
    """A text that stands for itself: ``{ value = "eu" }``."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    value: str


Value: TypeAlias = Expression | Call | Constant | bool | int | float | Opaque
_ReadValue: TypeAlias = Annotated[
    Value, BeforeValidator(lambda value: parse(value) if isinstance(value, str) else value)
]


class Cases(BaseModel):
    """An event type that depends on a value of the call: `sidelight.choose` as TOML."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)
    choose: _ReadValue
    cases: dict[str, str]
    otherwise: str | None = None


EventType: TypeAlias = str | Cases | Opaque


class MapDeclaration(BaseModel):
    """The statement of one ``@emits(…)`` or one ``[[point]]``.

    ``**options`` of a decorator is the attribute ``**``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    success: EventType | None = None
    start: EventType | None = None
    failure: EventType | None = None
    mode: Mode | Opaque = "scheduled"
    span: bool | Opaque = True
    strict: bool | Opaque = False
    artifact_id: _ReadValue | None = None
    organization_id: _ReadValue | None = None
    transaction: _ReadValue | None = None
    after_commit: _ReadValue | None = None
    attributes: dict[str, _ReadValue] = Field(default_factory=dict)

    @property
    def mode_source(self) -> str:
        """The mode, or its source where it is opaque."""
        return self.mode.source if isinstance(self.mode, Opaque) else self.mode

    def types(self, phase: Phase) -> tuple[str, ...]:
        """Return the event types that can be emitted in ``phase``, as far as they are known."""
        value: EventType | None = getattr(self, phase)
        if isinstance(value, Cases):
            last = () if value.otherwise is None else (value.otherwise,)
            return tuple(dict.fromkeys((*value.cases.values(), *last)))
        if isinstance(value, Opaque):
            return value.types
        return () if value is None else (value,)

    def shown_types(self, phase: Phase) -> tuple[str, ...]:
        """Return the event types of ``phase`` for a reader: the source where no type is known."""
        value = getattr(self, phase)
        unknown = isinstance(value, Opaque) and not value.types
        return (" ".join(value.source.split()),) if unknown else self.types(phase)

    @property
    def emitted(self) -> frozenset[tuple[Phase, str]]:
        """Every event type that can be emitted, with its phase."""
        return frozenset((phase, each) for phase in PHASES for each in self.types(phase))

    @property
    def captured(self) -> dict[str, str]:
        """The source of each captured value."""
        ids = {"artifact_id": self.artifact_id, "organization_id": self.organization_id}
        return _sources(ids | self.attributes)

    @property
    def joined(self) -> dict[str, str]:
        """The source of the transaction that the event on success joins, by its option."""
        return _sources({"transaction": self.transaction, "after_commit": self.after_commit})

    @property
    def opaque(self) -> dict[str, Opaque]:
        """Every opaque value, by its name in a map: ``attributes.size``."""
        return {name: value for name, value in self._values() if isinstance(value, Opaque)}

    @property
    def expressible(self) -> bool:
        """Whether a map can state this without a different meaning.

        A map may lack a captured value, but no value that decides whether and how an event is
        emitted.
        """
        opaque = self.opaque
        if not opaque.keys().isdisjoint(_INDISPENSABLE):
            return False
        return any(self.types(phase) and phase not in opaque for phase in PHASES)

    def facts(self) -> dict[str, Any]:
        """Return all that a map can express, as TOML has it.

        Defaults are left out, except the mode.
        """
        values: Iterator[tuple[str, Any]] = (
            (name, getattr(self, name)) for name in MapDeclaration.model_fields
        )
        facts = {
            name: _as_toml(value)
            for name, value in values
            if value is not _DEFAULTS.get(name) and not isinstance(value, Opaque)
        }
        if not facts["attributes"]:
            del facts["attributes"]
        return facts

    def declaration(self, function: str, resolve: Resolve) -> Declaration:
        """Make the declaration that the decorator would make; opaque values are left out.

        Args:
            function: the name of the function in errors.
            resolve: finds the function of a path, for ``{ call = … }``.

        Raises:
            PointError: the decorator would refuse it.
        """
        ids = {"artifact_id": self.artifact_id, "organization_id": self.organization_id}
        values = {name: _resolved(v, resolve) for name, v in (ids | self.attributes).items()}
        given = {name: value for name, value in values.items() if value is not None}
        attributes = {name: given.pop(name) for name in OPTIONS if name in given}
        options = {
            name: value
            for name in ("mode", "span", "strict")
            if not isinstance(value := getattr(self, name), Opaque)
        }
        return declare(
            function,
            _resolved(self.success, resolve),
            _resolved(self.start, resolve),
            _resolved(self.failure, resolve),
            options.pop("mode", "scheduled"),
            given,
            attributes=attributes,
            transaction=_resolved(self.transaction, resolve),
            after_commit=_resolved(self.after_commit, resolve),
            **options,
        )

    def _values(self) -> Iterator[tuple[str, Any]]:
        for name in MapDeclaration.model_fields:
            if name != "attributes":
                yield name, getattr(self, name)
        for name, value in self.attributes.items():
            yield name if name == "**" else f"attributes.{name}", value


class MapPoint(MapDeclaration):
    """One ``[[point]]``: a declaration, and the path of its function."""

    function: str

    @field_validator("function")
    @classmethod
    def _check(cls, path: str) -> str:
        return _checked_path(path)

    @property
    def module(self) -> str:
        """The module of the function."""
        return self.function.partition(":")[0]

    @property
    def qualname(self) -> str:
        """The function's name in its module: ``Class.method``."""
        return self.function.partition(":")[2]


def parse(text: str) -> Expression:
    """Read ``arg.audio.seconds``, ``result[0].id`` or ``error.code`` as an expression.

    Raises:
        ValueError: the text is no expression; the message gives the remedy.
    """

    def refuse() -> NoReturn:
        raise ValueError(
            f'{text!r} is no expression; write arg.NAME, result or error, and .name or ["key"] or'
            f' [0] behind it; for a text as it stands {{ value = "{text}" }}'
        )

    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError):
        refuse()
    steps: list[tuple[str, Any]] = []
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Attribute):
            steps.append(("attribute", node.attr))
        elif isinstance(node, ast.Subscript):
            try:
                key = ast.literal_eval(node.slice)
            except ValueError:
                refuse()
            if not isinstance(key, str | int):
                refuse()
            steps.append(("item", key))
        else:
            refuse()
        node = node.value
    if node.id not in ROOTS:
        refuse()
    return Expression(node.id, tuple(reversed(steps)))


def value_source(value: Value) -> str:
    """Return a value as a person reads it."""
    if isinstance(value, Opaque):
        return value.source
    if isinstance(value, Call):
        return value.call
    return repr(value.value if isinstance(value, Constant) else value)


def expression_value(value: Expression) -> Value:
    """Return an expression; opaque where its text does not lead back to it."""
    try:
        if repr(parse(repr(value))) == repr(value):
            return value
    except ValueError:
        pass
    return Opaque(repr(value), "a map has identifiers, and keys that are texts or whole numbers")


def constant_value(value: object) -> Value:
    """Return a constant; opaque where TOML has no such value."""
    if type(value) in {bool, int, float}:
        return value  # type: ignore[return-value]
    if is_toml_text(value) and (type(value) is str or isinstance(value, enum.Enum)):
        return Constant(value=str.__str__(value))
    if value is None:
        return Opaque("None", "TOML has no None; leave it out")
    return Opaque(repr(value), _NO_CONSTANT)


def choice_type(by: Value, choice: Choice, cases: Mapping[str, str]) -> EventType:
    """Return the event type of a ``choose(…)``; opaque where a case is no text.

    Args:
        by: the value that decides.
        choice: the choice as the decorator has it.
        cases: those of its cases whose keys are texts.
    """
    if isinstance(by, Opaque):
        source = f"choose({by.source}, …)"
        return Opaque(source, by.reason, on_import=by.on_import, types=choice.types)
    if len(cases) < len(choice.cases):
        keys = ", ".join(repr(key) for key in choice.cases if not isinstance(key, str))
        reason = f"a map chooses by texts, and it has {keys}; choose by a function that returns one"
        return Opaque(f"choose({value_source(by)}, …)", reason, types=choice.types)
    return Cases(choose=by, cases=dict(cases), otherwise=choice.otherwise)


def is_toml_text(value: object) -> TypeGuard[str]:
    """Return whether TOML can hold a text: it has no lone surrogates."""
    return isinstance(value, str) and value.encode("utf-8", "replace").decode() == value


def _sources(values: Mapping[str, Value | None]) -> dict[str, str]:
    return {name: value_source(value) for name, value in values.items() if value is not None}


def _resolved(value: Value | EventType | None, resolve: Resolve) -> Any:
    """Return a value as the decorator takes it."""
    if isinstance(value, Opaque):
        return None
    if isinstance(value, Call):
        return resolve(value.call)
    if isinstance(value, Cases):
        return choose(_resolved(value.choose, resolve), value.cases, otherwise=value.otherwise)
    return value.value if isinstance(value, Constant) else value


def _as_toml(value: Any) -> Any:
    if isinstance(value, Expression):
        return repr(value)
    if isinstance(value, Call | Constant):
        return value.model_dump()
    if isinstance(value, Cases):
        facts = {"choose": _as_toml(value.choose), "cases": dict(value.cases)}
        return facts if value.otherwise is None else facts | {"otherwise": value.otherwise}
    if isinstance(value, dict):
        return {k: _as_toml(v) for k, v in value.items() if not isinstance(v, Opaque)}
    return value
