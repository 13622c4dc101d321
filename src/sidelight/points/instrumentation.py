"""`instrument` makes a point of a callable and its declarations, for the decorator and the map."""

from __future__ import annotations

import functools
import inspect
from types import CodeType, FunctionType
from typing import Any

import msgspec

from sidelight.exceptions import PointError
from sidelight.points.callables import kind_of, made_from
from sidelight.points.declaration import Declaration
from sidelight.points.other_decorators import (
    context_manager_maker,
    framework_handle,
    hides_context_manager,
)
from sidelight.points.registry import POINTS, Point
from sidelight.points.wrapper import wrap
from sidelight.settings import disabled


class Instrumentation(msgspec.Struct, frozen=True):
    """The mark of a wrapper: its point, and the bare function."""

    point: Point
    function: Any
    wrapper: Any


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
    raise PointError(function=name_of(_held(function)), problem=problem, remedy=remedy)


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


def name_of(function: Any) -> str:
    """Return the name of a callable in errors."""
    named = _named(function)
    return str(named.__qualname__).rpartition("<locals>.")[2]


def path_of(function: Any) -> str:
    """Return the path that the point of a callable has."""
    named = _named(function)
    return f"{_module_of(named)}:{named.__qualname__}"


def _module_of(named: Any) -> str:
    return getattr(named, "__module__", None) or "builtins"


def _point(function: Any, declarations: tuple[Declaration, ...]) -> Point:
    named = _named(function)
    try:
        code = getattr(inspect.unwrap(named), "__code__", None)
    except ValueError:  # a chain that leads back to itself
        code = None
    if type(code) is not CodeType:
        code = None
    return Point(
        module=_module_of(named),
        qualname=named.__qualname__,
        kind=kind_of(function).name,
        file=code.co_filename if code else None,
        line=code.co_firstlineno if code else None,
        declarations=declarations,
    )
