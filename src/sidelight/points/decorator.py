"""`emits`, the decorator, and `instrument`, which it shares with the map."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from types import CodeType, FunctionType
from typing import Any, TypeVar

import msgspec

from sidelight.exceptions import PointError, told_at_the_caller
from sidelight.points.callables import kind_of, made_from
from sidelight.points.declaration import Declaration, EventType, declare
from sidelight.points.expressions import Expression
from sidelight.points.other_decorators import (
    context_manager_maker,
    framework_handle,
    hides_context_manager,
)
from sidelight.points.registry import POINTS, Point
from sidelight.points.wrapper import wrap
from sidelight.record import Mode
from sidelight.settings import disabled

F = TypeVar("F")


class Instrumentation(msgspec.Struct, frozen=True):
    """The mark of a wrapper: its point, and the bare function."""

    point: Point
    function: Any
    wrapper: Any


@told_at_the_caller
def emits(
    type: EventType | None = None,  # noqa: A002  # positional
    /,
    *,
    start: EventType | None = None,
    failure: EventType | None = None,
    mode: Mode = "scheduled",
    span: bool = True,
    transaction: Any = None,
    after_commit: Any = None,
    strict: bool = False,
    attributes: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Callable[[F], F]:
    """Emit events, and make a span, each time the decorated function is called.

    Args:
        type: the event's type, emitted when the function succeeds. `choose` lets a value of the
            call decide the type.
        start: an event type that is emitted before the call.
        failure: an event type that is emitted when the function raises. The event has the
            exception's type and message. The exception goes on unchanged.
        mode: "scheduled" returns at once. "awaited" waits until the store acknowledges the event,
            at most until the deadline (10 ms), and never raises.
        span: whether the call makes a span in the trace.
        transaction: the caller's SQLAlchemy session or connection, psycopg connection, or alias of
            a Django database. The event on success is a row in the outbox of that database: it
            exists if and only if the transaction commits.
        after_commit: the same without an outbox. The event is emitted after the commit, and lost
            if the process dies between commit and emission.
        strict: with ``transaction=``, raise TransactionError where the event cannot be in the
            transaction. Otherwise such an event goes to the spool, and is counted.
        attributes: attributes by name, for names that are options as well (``mode``, ``start``) or
            no identifiers. Its values are those of ``fields``.
        fields: ``artifact_id`` and ``organization_id`` name the artifact and its organization.
            Every other field is an attribute. A value is a constant; a recorded expression
            (``arg.name``, ``result.id``, ``error.code``), where anything missing gives None; or a
            callable whose parameters have the names of the function's parameters, or ``result``
            or ``error``. Values are captured when the event is emitted: before the call for
            ``start=``, else after the call.

    Returns:
        A decorator for any kind of callable. It keeps the signature. Several decorators on one
        function make one wrapper and one span. With ``SIDELIGHT_DISABLED=1`` the decorator returns
        the function itself.

    Raises:
        PointError: at decoration; it names the function, the argument and the remedy.
    """
    if callable(type) and not isinstance(type, Expression):
        raise PointError(
            function=_name(type),
            problem="@emits names no event",
            remedy='write it in parentheses: @emits("artifact_received")',
        )

    @told_at_the_caller
    def decorate(function: F) -> F:
        if disabled():
            return function
        name = _name(function)
        declaration = declare(
            name,
            type,
            start,
            failure,
            mode,
            fields,
            attributes=attributes,
            span=span,
            transaction=transaction,
            after_commit=after_commit,
            strict=strict,
        )
        wrapper: F = instrument(function, (declaration,))
        return wrapper

    return decorate


def instrument(function: Any, declarations: tuple[Declaration, ...]) -> Any:
    """Wrap a callable; a callable that has a wrapper already gets one wrapper for everything."""
    kind = type(function)
    if issubclass(kind, staticmethod | classmethod):  # not `isinstance`: a proxy claims to be one
        return kind(instrument(function.__func__, declarations))
    below = instrumentation_of(function)
    if below is not None:
        function, declarations = below.function, (*below.point.declarations, *declarations)
    elif (context_manager := context_manager_maker(function)) is not None:
        return _with_attributes(
            context_manager(instrument(function.__wrapped__, declarations)), function
        )
    _refuse_unfit(function)
    point = _point(function, declarations)
    wrapper = wrap(point, function, rewrap)
    instrumentation = Instrumentation(point, function, wrapper)
    if type(function) is FunctionType:
        wrapper.__sidelight__ = instrumentation
    else:
        wrapper._self_sidelight = instrumentation  # noqa: SLF001  # an attribute of the wrapt proxy itself
    POINTS.add(point, replacing=None if below is None else below.point)
    return wrapper


def rewrap(function: Any, path: str, declarations: tuple[Declaration, ...] | None) -> Any:
    """Wrap a copy of a decorated callable as its original was.

    Args:
        function: the copy.
        path: the path of the original's point.
        declarations: the original's; None where pickle could not take them along. Then the copy
            gets those that ``path`` has in this process, or stays as it is where it has none.
    """
    if declarations is None:
        point = POINTS.get(path)
        declarations = () if point is None else point.declarations
    return instrument(function, declarations) if declarations and not disabled() else function


def instrumentation_of(function: Any) -> Instrumentation | None:
    """Return the instrumentation of one of sidelight's wrappers; None for everything else.

    ``functools.wraps`` of other decorators copies the mark, so the mark has to name its wrapper.
    """
    for mark in ("_self_sidelight", "__sidelight__"):
        found = getattr(function, mark, None)
        if isinstance(found, Instrumentation) and found.wrapper is function:
            return found
    return None


def _refuse_unfit(function: Any) -> None:
    if isinstance(function, type):
        problem, remedy = "it is a class", "decorate its methods"
    elif isinstance(function, property | functools.cached_property):
        problem, remedy = "it is a property", "put @emits under @property"
    elif handle := framework_handle(function):
        problem = f"it is {handle}, which calls the function past @emits"
        remedy = "put @emits below that decorator"
    elif hides_context_manager(function):
        problem = "a decorator stands between @emits and a context manager"
        remedy = "put @emits below @contextmanager"
    elif not callable(function) and not hasattr(function, "__get__"):
        problem, remedy = "it cannot be called", "decorate a function"
    else:
        return
    raise PointError(function=_name(_held(function)), problem=problem, remedy=remedy)


def _held(function: Any) -> Any:
    """Return the function in an object of a framework, where it has one of the usual names."""
    for name in ("callback", "fn", "run"):
        inner = None if isinstance(function, type) else getattr(function, name, None)
        if inspect.isroutine(inner):
            return inner
    return function


def _with_attributes(made: Any, function: Any) -> Any:
    """Give ``made`` the attributes that other code has set on the function in its place."""
    vars(made).update({n: v for n, v in vars(function).items() if n not in vars(made)})
    return made


def _named(function: Any) -> Any:
    """Return the object that names a callable: itself, the function in a partial, or its class."""
    while not hasattr(function, "__qualname__"):
        inner = function.fget if isinstance(function, property) else made_from(function)
        if inner is None:
            return type(function)
        function = inner
    return function


def _name(function: Any) -> str:
    """Return the name of a callable in errors."""
    named = _named(function)
    return str(named.__qualname__).rpartition("<locals>.")[2]


def _point(function: Any, declarations: tuple[Declaration, ...]) -> Point:
    named = _named(function)
    try:
        code = getattr(inspect.unwrap(named), "__code__", None)
    except ValueError:  # a chain that leads back to itself
        code = None
    if type(code) is not CodeType:
        code = None
    return Point(
        module=getattr(named, "__module__", None) or "builtins",
        qualname=named.__qualname__,
        kind=kind_of(function).name,
        file=code.co_filename if code else None,
        line=code.co_firstlineno if code else None,
        declarations=declarations,
    )
