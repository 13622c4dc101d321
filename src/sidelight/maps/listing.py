"""A listing of points: each instrumented function, with the declarations that the code has."""

from __future__ import annotations

from typing import Any

import msgspec

from sidelight.maps.declarations import (
    NO_PATH,
    Call,
    EventType,
    MapDeclaration,
    Opaque,
    Value,
    choice_type,
    constant_value,
    expression_value,
    is_toml_text,
)
from sidelight.maps.private_names import resolved
from sidelight.points import Choice, Declaration, Expression, Point, is_computed


class Registrar(msgspec.Struct, frozen=True):
    """A decorator that hands the bare function to a framework.

    Attributes:
        source: the decorator as the code spells it: ``@app.get('/')``.
        certain: whether it is known to do so; else its name only suggests it.
    """

    source: str
    certain: bool


class ListedPoint(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """An instrumented function.

    Attributes:
        module: the module that defines it.
        qualname: its name there: ``Class.method``.
        kind: "function", "coroutine", "generator", "async generator".
        file: the source file; None where the function has none.
        line: the first line of the function, decorators included.
        declarations: one for each ``@emits(…)``, the innermost first.
        registrar: a registrar below an ``@emits(…)``, as far as the source shows one.
    """

    module: str
    qualname: str
    kind: str
    file: str | None
    line: int | None
    declarations: tuple[MapDeclaration, ...]
    registrar: Registrar | None = None

    @property
    def path(self) -> str:
        """``package.module:Class.method``."""
        return f"{self.module}:{self.qualname}"

    @property
    def unnameable(self) -> str:
        """Why a map cannot name the function, with the remedy; "" where a map can."""
        if self.module == "__main__":
            return "functions of __main__ cannot be named: move it into a module"
        if "<" in self.qualname:
            return "it is made inside of a function, where nothing can be named: move it out"
        return ""

    @property
    def warning(self) -> str:
        """Why the point may never emit, with the remedy; "" where the source shows no reason."""
        if self.registrar is None:
            return ""
        verb = "hands" if self.registrar.certain else "may hand"
        return (
            f"@emits stands above {self.registrar.source}, which {verb} the bare function to a"
            " framework, whose calls emit nothing then; put @emits below it"
        )


def listed_point(point: Point) -> ListedPoint:
    """List a point of this process."""
    return ListedPoint(
        module=point.module,
        qualname=point.qualname,
        kind=point.kind,
        file=point.file,
        line=point.line,
        declarations=tuple(map(_map_declaration, point.declarations)),
    )


def _map_declaration(declaration: Declaration) -> MapDeclaration:
    return MapDeclaration.model_construct(
        success=_event_type(declaration.success),
        start=_event_type(declaration.start),
        failure=_event_type(declaration.failure),
        mode=declaration.mode,
        span=declaration.span,
        strict=declaration.strict,
        artifact_id=_optional(declaration.artifact_id),
        organization_id=_optional(declaration.organization_id),
        transaction=_optional(declaration.transaction),
        after_commit=_optional(declaration.after_commit),
        attributes={name: _value(value) for name, value in declaration.attributes.items()},
    )


def _event_type(declared: str | Choice | None) -> EventType | None:
    if not isinstance(declared, Choice):
        return None if declared is None else str.__str__(declared)  # the text of an Enum member
    cases = {
        str.__str__(key): str.__str__(type_)
        for key, type_ in declared.cases.items()
        if is_toml_text(key)
    }
    return choice_type(_value(declared.by), declared, cases)


def _optional(value: Any) -> Value | None:
    return None if value is None else _value(value)


def _value(value: Any) -> Value:
    if isinstance(value, Expression):
        return expression_value(value)
    return _call(value) if is_computed(value) else constant_value(value)


def _call(function: Any) -> Value:
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    path = f"{getattr(function, '__module__', None)}:{name}"
    try:
        if resolved(path) is function:
            return Call(call=path)
    except (ValueError, ImportError, AttributeError):
        pass
    return Opaque(name.rpartition("<locals>.")[2], NO_PATH)
