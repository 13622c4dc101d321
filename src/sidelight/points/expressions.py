"""Recorded expressions: what a point captures, and their Python source.

``arg.org_context_candidates[0].organization_id`` is recorded when it is written, checked when the
function is decorated and turned into the body of a generated getter. At run time nothing is
interpreted: it is the attribute access itself, and whatever is missing along the way gives None.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

import msgspec

from sidelight.exceptions import ExpressionError, PointError
from sidelight.points.callables import Phase
from sidelight.points.codegen import Names
from sidelight.points.signature import Signature

ROOTS: Final[Mapping[str, Phase | None]] = {"arg": None, "result": "success", "error": "failure"}
"""Each root of an expression, with the only phase that has its value; None means every phase."""
#: What a recorded expression may meet on its way without anything being wrong.
MISSING: Final = (AttributeError, KeyError, IndexError, TypeError)

#: Recorded like every other attribute, though each object has them: ``error.__class__.__name__``.
_ON_EVERY_OBJECT: Final = frozenset({"__class__", "__doc__", "__module__"})
_RECORDED_DUNDERS: Final = frozenset(
    {"__name__", "__qualname__", "__dict__", "__cause__", "__context__", "__notes__"}
)


class Expression:
    """Attribute and item accesses, recorded to be compiled at decoration.

    Only ``.name`` and ``[key]`` can be recorded; for everything else give the decorator a plain
    callable whose parameters are named after the function's, or ``result`` or ``error``.
    """

    __slots__ = ("__root", "__steps")
    __root: str
    __steps: tuple[tuple[str, Any], ...]

    def __init__(self, root: str, steps: tuple[tuple[str, Any], ...] = ()) -> None:
        object.__setattr__(self, "_Expression__root", root)
        object.__setattr__(self, "_Expression__steps", steps)

    def __getattribute__(self, name: str) -> Any:
        if name in _ON_EVERY_OBJECT:
            return _step(self, "attribute", name)
        return object.__getattribute__(self, name)

    def __getattr__(self, name: str) -> Expression:
        if name.startswith("__") and name.endswith("__") and name not in _RECORDED_DUNDERS:
            raise AttributeError(f"{self!r}.{name} cannot be recorded; give a callable")
        return _step(self, "attribute", name)

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
    """The root of a recorded expression and the accesses that follow it."""
    get = object.__getattribute__
    return get(expression, "_Expression__root"), get(expression, "_Expression__steps")


def _refusal(action: str) -> Callable[..., NoReturn]:
    def refuse(self: Expression, *_: object, **__: object) -> NoReturn:
        raise ExpressionError(
            expression=repr(self), action=action, remedy="give a callable: lambda result: …"
        )

    return refuse


# What would otherwise give a constant that nobody meant, such as `arg.status == "done"`: False.
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
    for _name in _names.split():
        setattr(Expression, f"__{_name}__", _refusal(_action))


arg: Any = Expression("arg")
"""The arguments of the call: ``arg.name``, or ``arg[0]`` by position."""
result: Any = Expression("result")
"""What the function returned."""
error: Any = Expression("error")
"""The exception that the function raised."""


class Choice(msgspec.Struct, frozen=True, eq=False):
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


def is_computed(field: object) -> bool:
    """Whether a field's value comes from the call; otherwise it is a constant."""
    return isinstance(field, Expression) or callable(field)


def field_source(
    field: Any, signature: Signature, phase: Phase, names: Names, *, mapped: bool = False
) -> str | None:
    """Python source that computes ``field`` in the given phase; None where the phase has no value.

    Args:
        field: an expression, a callable, or a constant.
        signature: the parameters that the generated code has at hand.
        phase: ``result`` exists only in "success", ``error`` only in "failure".
        names: filled with the objects that the source refers to.
        mapped: read attributes by `late.read`, for the sake of mapped objects.

    Raises:
        UnknownParameterError: the expression or callable names an argument that is not there.
        PointError: the expression ends where it began (``arg`` alone), or the callable cannot be
            called with what its parameters name.
    """
    if isinstance(field, Expression):
        return _expression_source(field, signature, phase, names, mapped=mapped)
    if callable(field):
        return _callable_source(field, signature, phase, names)
    return names.give("constant", field)


def transaction_source(field: Any, signature: Signature, names: Names) -> str | None:
    """Python source for the transaction that an event is to join; None where the call has none yet.

    An object that is no function stands for itself, though it may be called: a `scoped_session`.
    """
    if callable(field) and not inspect.isroutine(field) and not isinstance(field, Expression):
        return names.give("constant", field)
    return field_source(field, signature, "start", names)


def _available(root: str, phase: Phase) -> bool:
    return ROOTS[root] in {None, phase}


def _expression_source(
    field: Expression, signature: Signature, phase: Phase, names: Names, *, mapped: bool
) -> str | None:
    root, steps = parts(field)
    rest = list(steps)
    if root == "arg":
        if not rest:
            raise PointError(
                function=signature.function,
                problem="arg alone captures nothing",
                remedy="name an argument: arg.NAME",
            )
        kind, key = rest.pop(0)
        by_position = kind == "item" and isinstance(key, int)
        source = signature.position(key, names) if by_position else signature.name(str(key), names)
    else:
        source = f"_{root}"
    if not _available(root, phase):
        return None
    for kind, key in rest:
        if kind == "attribute":
            source = f"_read({source}, {key!r})" if mapped else f"{source}.{key}"
        else:
            literal = type(key) in {int, str}
            source += f"[{key!r}]" if literal else f"[{names.give('key', key)}]"
    return source


def _callable_source(
    field: Callable[..., object], signature: Signature, phase: Phase, names: Names
) -> str | None:
    """``lambda audio, result: …`` is called with what its parameters name."""

    def refuse(problem: str, remedy: str) -> NoReturn:
        raise PointError(function=signature.function, problem=problem, remedy=remedy)

    if isinstance(field, type):
        refuse(f"the field's {field!r} is a class", "give its name, or a lambda that calls it")
    if inspect.iscoroutinefunction(field):
        refuse(f"the field's {field!r} is a coroutine function", "give one that returns the value")
    try:
        parameters = inspect.signature(field).parameters.values()
    except (TypeError, ValueError):
        refuse(f"cannot tell the parameters of {field!r}", "wrap it in a lambda that names them")
    passed = []
    available = True
    for parameter in parameters:
        name = parameter.name
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            refuse(
                f"the field's callable takes *{name}, so what it wants is not known",
                "name the arguments that it needs, or result, or error",
            )
        if ROOTS.get(name) is not None and not signature.has(name):
            source = f"_{name}"
            available = available and _available(name, phase)
        elif parameter.default is not parameter.empty and not signature.has(name):
            continue
        else:
            source = signature.name(name, names)
        keyword = parameter.kind is parameter.KEYWORD_ONLY
        passed.append(f"{name}={source}" if keyword else source)
    if not available:
        return None
    return f"{names.give('field', field)}({', '.join(passed)})"
