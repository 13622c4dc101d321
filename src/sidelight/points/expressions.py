"""Recorded expressions: ``arg``, ``result``, ``error`` and `choose`, as a decorator is given them.

``arg.org_context_candidates[0].organization_id`` is recorded when it is written. `fields` turns it
into Python source at decoration, so that a call interprets nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, NoReturn, TypeAlias

from sidelight.exceptions import ExpressionError, told_at_the_caller

Phase: TypeAlias = Literal["start", "success", "failure", "closed"]
"""A moment of one call; "closed" ends a generator or coroutine that its consumer did not finish."""
ROOTS: Final[Mapping[str, frozenset[Phase]]] = {
    "arg": frozenset({"start", "success", "failure", "closed"}),
    "result": frozenset({"success"}),
    "error": frozenset({"failure"}),
}
"""The roots of expressions, with the phases in which each has a value."""

#: Attributes of every object that are recorded all the same: ``error.__class__.__name__``.
_RECORDED_DUNDERS: Final = frozenset(
    {
        *("__class__", "__doc__", "__module__", "__name__", "__qualname__", "__dict__"),
        *("__cause__", "__context__", "__notes__"),
    }
)


class Expression:
    """Attribute and item accesses, recorded.

    Only ``.name`` and ``[key]`` can be recorded. Everything else needs a plain callable, whose
    parameters have the names of the function's parameters, or ``result`` or ``error``.
    """

    __slots__ = ("__root", "__steps")
    __root: str
    __steps: tuple[tuple[str, Any], ...]

    def __init__(self, root: str, steps: tuple[tuple[str, Any], ...] = ()) -> None:
        if root not in ROOTS:
            raise ValueError(f"{root!r} is no root of an expression; use {', '.join(ROOTS)}")
        object.__setattr__(self, "_Expression__root", root)
        object.__setattr__(self, "_Expression__steps", steps)

    def __getattribute__(self, name: str) -> Any:
        if name in _RECORDED_DUNDERS or not (name.startswith("__") and name.endswith("__")):
            return _step(self, "attribute", name)
        return object.__getattribute__(self, name)

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{self!r}.{name} cannot be recorded; give a callable")

    def __getitem__(self, key: object) -> Expression:
        return _step(self, "item", key)

    def __repr__(self) -> str:
        root, steps = parts(self)
        path = "".join(f".{v}" if kind == "attribute" else f"[{v!r}]" for kind, v in steps)
        return f"{root}{path}"

    def __reduce_ex__(self, _: Any) -> tuple[Any, ...]:
        return Expression, parts(self)

    __hash__ = object.__hash__


def _step(expression: Expression, kind: str, key: object) -> Expression:
    root, steps = parts(expression)
    return Expression(root, (*steps, (kind, key)))


def parts(expression: Expression) -> tuple[str, tuple[tuple[str, Any], ...]]:
    """Return the root of a recorded expression, and the accesses after it: (kind, name or key)."""
    get = object.__getattribute__
    return get(expression, "_Expression__root"), get(expression, "_Expression__steps")


def _parameter(expression: Expression) -> str:
    """Return the parameter of a callable that computes the same: ``audio`` for ``arg.audio.id``."""
    from sidelight.points.codegen import is_identifier  # noqa: PLC0415  # only refusals need it

    root, steps = parts(expression)
    named = [key for _, key in steps[:1] if is_identifier(key)]
    return root if root != "arg" else named[0] if named else "NAME"


def _refusal(action: str) -> Callable[..., NoReturn]:
    @told_at_the_caller
    def refuse(self: Expression, *_: object, **__: object) -> NoReturn:
        remedy = f"give a callable: lambda {_parameter(self)}: …"
        raise ExpressionError(expression=repr(self), action=action, remedy=remedy)

    return refuse


# Without these, ``arg.status == "done"`` would be the constant False.
for _names, _action in (
    ("call", "called"),
    ("bool", "used as a condition"),
    ("iter len contains", "iterated over"),
    ("eq ne lt le gt ge", "compared"),
    ("str format", "made text"),
    ("int float index neg abs round", "computed with"),
    ("add sub mul truediv floordiv mod pow or and", "computed with"),
    ("radd rsub rmul rtruediv rfloordiv rmod rpow ror rand", "computed with"),
    ("setattr delattr setitem delitem", "assigned to"),
):
    _refuse = _refusal(_action)
    for _name in _names.split():
        setattr(Expression, f"__{_name}__", _refuse)


arg: Any = Expression("arg")
"""The arguments of the call: ``arg.name``, or ``arg[0]`` by position."""
result: Any = Expression("result")
"""The value that the function returned."""
error: Any = Expression("error")
"""The exception that the function raised."""


class Choice:
    """An event type that depends on a value of the call (see `choose`)."""

    __slots__ = ("by", "cases", "otherwise")

    def __init__(self, by: Any, cases: Mapping[Any, str], otherwise: str | None) -> None:
        self.by = by
        self.cases = cases
        self.otherwise = otherwise

    @property
    def types(self) -> tuple[str, ...]:
        """Every event type that the choice can give, in the order written."""
        last = () if self.otherwise is None else (self.otherwise,)
        return tuple(dict.fromkeys((*self.cases.values(), *last)))


def choose(by: Any, cases: Mapping[Any, str], *, otherwise: str | None = None) -> Choice:
    """Let a value of the call decide the event's type.

    Args:
        by: an expression or callable, such as ``arg.status``.
        cases: value → event type. An Enum member is looked up by itself, then by its value.
        otherwise: the type for every other value. None emits nothing for other values.
    """
    return Choice(by, dict(cases), otherwise)


def is_computed(field: object) -> bool:
    """Return whether a field's value comes from the call; otherwise the field is a constant."""
    return isinstance(field, Expression) or callable(field)
