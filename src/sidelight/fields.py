"""Recorded expressions: what a point captures, and their Python source.

``arg.org_context_candidates[0].organization_id`` is recorded when it is written, checked when the
function is decorated and turned into the body of a generated getter. At run time nothing is
interpreted: it is the attribute access itself, and whatever is missing along the way gives None.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NoReturn, TypeAlias

from sidelight.exceptions import ExpressionError, PointError, UnknownParameterError

Root: TypeAlias = Literal["arg", "result", "error"]
Phase: TypeAlias = Literal["start", "success", "failure", "closed"]
"""Of one call; "closed" is a generator that its consumer did not finish."""

#: What a recorded expression may meet on its way without anything being wrong.
MISSING: Final = (AttributeError, KeyError, IndexError, TypeError)


class Expression:
    """Attribute and item accesses, recorded to be compiled at decoration.

    Only ``.name`` and ``[key]`` can be recorded; for everything else give the decorator a plain
    callable whose parameters are named after the function's, or ``result`` or ``error``.
    """

    __slots__ = ("_root", "_steps")
    _root: Root
    _steps: tuple[tuple[str, Any], ...]

    def __init__(self, root: Root, steps: tuple[tuple[str, Any], ...] = ()) -> None:
        object.__setattr__(self, "_root", root)
        object.__setattr__(self, "_steps", steps)

    def __getattr__(self, name: str) -> Expression:
        if name.startswith("__"):
            raise AttributeError(name)
        return Expression(self._root, (*self._steps, ("attribute", name)))

    def __getitem__(self, key: object) -> Expression:
        return Expression(self._root, (*self._steps, ("item", key)))

    def __repr__(self) -> str:
        path = "".join(f".{v}" if kind == "attribute" else f"[{v!r}]" for kind, v in self._steps)
        return f"{self._root}{path}"

    def _refuse(self, action: str) -> NoReturn:
        raise ExpressionError(
            expression=self, action=action, remedy="give a callable, such as lambda result: …"
        )

    def __call__(self, *_: object, **__: object) -> NoReturn:
        self._refuse("called")

    def __bool__(self) -> bool:
        self._refuse("used as a condition")

    def __iter__(self) -> NoReturn:
        self._refuse("iterated over")

    def __setattr__(self, name: str, value: object) -> None:
        self._refuse("assigned to")


arg: Any = Expression("arg")
"""The arguments of the call: ``arg.name``, or ``arg[0]`` by position."""
result: Any = Expression("result")
"""What the function returned."""
error: Any = Expression("error")
"""The exception that the function raised."""


@dataclass(frozen=True, slots=True)
class Choice:
    """An event type that depends on a value of the call (see `choose`)."""

    by: Any
    cases: Mapping[Any, str]
    otherwise: str | None

    @property
    def types(self) -> tuple[str, ...]:
        """Every event type that can come out, in the order written."""
        last = () if self.otherwise is None else (self.otherwise,)
        return tuple(dict.fromkeys((*self.cases.values(), *last)))


def choose(by: Any, cases: Mapping[Any, str], *, otherwise: str | None = None) -> Choice:
    """Let a value of the call decide the event's type.

    Args:
        by: an expression or callable, such as ``arg.status``.
        cases: value → event type. An Enum member is looked up by itself, then by its value.
        otherwise: the type for every other value; None emits nothing for it.
    """
    return Choice(by, dict(cases), otherwise)


@dataclass(frozen=True, slots=True)
class Signature:
    """How the generated code finds the arguments of a call by name.

    ``own`` are the parameters that the wrapper itself has; ``known`` all that may be named, which
    are more where another decorator hides them behind ``*args, **kwargs``: then a name is looked up
    in those two, at the position that the function below gives it.
    """

    function: str
    own: tuple[str, ...]
    known: tuple[str, ...]
    star: str | None = None
    stars: str | None = None

    def source(self, name: str) -> str:
        """The Python expression for the argument ``name``."""
        if name in self.own:
            return name
        if name not in self.known:
            if self.stars is not None and not self.known:
                return f"{self.stars}.get({name!r})"
            raise UnknownParameterError(self.function, name, self.known)
        position = self.known.index(name)
        found = "None"
        if self.star is not None:
            found = f"({self.star}[{position}] if len({self.star}) > {position} else None)"
        if self.stars is not None:
            found = f"({self.stars}[{name!r}] if {name!r} in {self.stars} else {found})"
        return found

    def position(self, index: int) -> str:
        """The Python expression for an argument by its position."""
        if 0 <= index < len(self.known):
            return self.source(self.known[index])
        if index < 0 or self.known or self.star is None:
            raise UnknownParameterError(self.function, f"[{index}]", self.known)
        return f"({self.star}[{index}] if len({self.star}) > {index} else None)"


def field_source(
    field: object, signature: Signature, phase: Phase, constants: dict[str, Any]
) -> str | None:
    """Python source that computes ``field`` in the given phase; None where the phase has no value.

    Args:
        field: an expression, a callable, or a constant.
        signature: the parameters that the generated code has at hand.
        phase: "start", "success" or "failure": ``result`` and ``error`` exist only in theirs.
        constants: filled with the objects that the source refers to.

    Raises:
        UnknownParameterError: the expression or callable names an argument that is not there.
        PointError: the expression ends where it began (``arg`` alone).
    """
    if isinstance(field, Expression):
        return _expression_source(field, signature, phase, constants)
    if callable(field):
        return _callable_source(field, signature, phase, constants)
    return _constant(field, constants)


def _available(root: str, phase: Phase) -> bool:
    return root == "arg" or (root, phase) in {("result", "success"), ("error", "failure")}


def _constant(value: object, constants: dict[str, Any]) -> str:
    name = f"_constant_{len(constants)}"
    constants[name] = value
    return name


def _expression_source(
    field: Expression, signature: Signature, phase: Phase, constants: dict[str, Any]
) -> str | None:
    root, steps = field._root, field._steps
    if root == "arg":
        if not steps:
            raise PointError(
                function=signature.function,
                problem="arg alone captures nothing",
                remedy="name an argument: arg.NAME",
            )
        (kind, key), *rest = steps
        if kind == "item" and isinstance(key, int):
            source = signature.position(key)
        else:
            source = signature.source(str(key))
    else:
        source, rest = f"_{root}", list(steps)
    if not _available(root, phase):
        return None
    for kind, key in rest:
        if kind == "attribute":
            source += f".{key}"
        else:
            literal = isinstance(key, int | str) and type(key) in {int, str}
            source += f"[{key!r}]" if literal else f"[{_constant(key, constants)}]"
    return source


def _callable_source(
    field: Callable[..., object], signature: Signature, phase: Phase, constants: dict[str, Any]
) -> str | None:
    """``lambda audio, result: …`` is called with what its parameters name."""
    try:
        parameters = inspect.signature(field).parameters.values()
    except (TypeError, ValueError) as problem:
        raise PointError(
            function=signature.function,
            problem=f"cannot tell the parameters of {field!r}",
            remedy="wrap it in a lambda that names them",
        ) from problem
    passed = []
    available = True
    for parameter in parameters:
        name = parameter.name
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            raise PointError(
                function=signature.function,
                problem=f"the field's callable takes *{name}, so what it wants is not known",
                remedy="name the arguments that it needs, or result, or error",
            )
        if name in {"result", "error"} and name not in signature.known:
            source = f"_{name}"
            available = available and _available(name, phase)
        elif parameter.default is not parameter.empty and name not in signature.known:
            continue
        else:
            source = signature.source(name)
        keyword = parameter.kind is parameter.KEYWORD_ONLY
        passed.append(f"{name}={source}" if keyword else source)
    if not available:
        return None
    return f"{_constant(field, constants)}({', '.join(passed)})"
