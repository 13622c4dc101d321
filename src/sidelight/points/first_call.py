"""Wrappers whose code is written at their first call, because most points are never called.

What may be wrong with a declaration is found at decoration. Until the first call a wrapper has a
small code object with the function's own parameters, so that its signature, its kind and the errors
of wrong arguments are the function's. The first call puts the written code in its place, and
leaves no frame in a traceback.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any, Final

from sidelight.emission import EMITTER
from sidelight.host import without_frame
from sidelight.points.callables import Kind
from sidelight.points.expressions import Expression
from sidelight.points.registry import Point

_STARS: Final = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS
_IMMUTABLE: Final = frozenset({str, int, float, bool, type(None)})
_FILENAME: Final = "<sidelight first call>"


_first_call: Any = None  # each wrapper has its own in its globals


def _plain() -> Any:
    try:
        return _first_call(locals())()
    except BaseException:
        _leave_no_frame()
        raise


async def _coroutine() -> Any:
    try:
        return await _first_call(locals())()
    except BaseException:
        _leave_no_frame()
        raise


def _leave_no_frame() -> None:
    """Drop the frame of the first call from the traceback; a bare ``raise`` adds it no more."""
    error = sys.exc_info()[1]
    if error is not None:
        without_frame(error)


_UNTIL_THEN: Final = {"function": _plain.__code__, "coroutine": _coroutine.__code__}


def may_wait(point: Point, function: FunctionType, kind: Kind) -> bool:
    """Return whether the wrapper's code may be written at the first call.

    A value that could change until then, a transaction, and another kind of callable keep it from
    that.
    """
    return (
        kind.name in _UNTIL_THEN
        and kind.continued is None
        and not hasattr(function, "__wrapped__")
        and not hasattr(function, "__signature__")
        and not any(
            declaration.joins or any(not _is_fixed(value) for value in declaration.fields.values())
            for declaration in point.declarations
        )
    )


def _is_fixed(value: Any) -> bool:
    return type(value) in _IMMUTABLE or isinstance(value, Expression) or callable(value)


def waiting_wrapper(
    point: Point, function: FunctionType, kind: Kind, write: Callable[[FunctionType], None]
) -> FunctionType:
    """Make a wrapper that gets its code at its first call.

    Args:
        point: of the function.
        function: the decorated function.
        kind: of the function.
        write: puts the code into the wrapper, and the objects that it refers to into its globals.
    """
    own = function.__code__
    count = own.co_argcount + own.co_kwonlyargcount
    names = own.co_varnames[: count + (own.co_flags & _STARS).bit_count()]
    until_then = _UNTIL_THEN[kind.name]
    code = until_then.replace(
        co_argcount=own.co_argcount,
        co_posonlyargcount=own.co_posonlyargcount,
        co_kwonlyargcount=own.co_kwonlyargcount,
        co_varnames=names,
        co_nlocals=len(names),
        co_flags=until_then.co_flags | (own.co_flags & _STARS),
        co_filename=_FILENAME,
        co_name=own.co_name,
        co_qualname=own.co_qualname,
    )
    globals_: dict[str, Any] = {"__name__": point.module, "_leave_no_frame": _leave_no_frame}
    wrapper = FunctionType(code, globals_, function.__name__)
    wrapper.__qualname__ = function.__qualname__
    globals_["_first_call"] = functools.partial(_first_call_of, wrapper, function, point, write)
    return wrapper


def _first_call_of(
    wrapper: FunctionType,
    function: FunctionType,
    point: Point,
    write: Callable[[FunctionType], None],
    arguments: dict[str, Any],
) -> Any:
    """Put the code into the wrapper, and give the call that was meant.

    Two threads may do this at once. Each puts the same in place. Where the code cannot be written,
    as at the end of the stack, the function is called without it, and the next call tries again.
    """
    code, called = function.__code__, wrapper
    try:
        if wrapper.__code__.co_filename == _FILENAME:  # else another thread was faster
            write(wrapper)
    except Exception as problem:  # noqa: BLE001  # the guard
        reason = "recursion limit" if isinstance(problem, RecursionError) else "internal error"
        EMITTER.lost(reason, point.path, problem, ran="sidelight")
        called = function
    values = list(arguments.values())
    positional, all_named = code.co_argcount, code.co_argcount + code.co_kwonlyargcount
    given, stars = values[:positional], values[all_named:]
    names = code.co_varnames[positional:all_named]
    named = dict(zip(names, values[positional:all_named], strict=True))
    if code.co_flags & inspect.CO_VARARGS:
        given += stars.pop(0)
    if code.co_flags & inspect.CO_VARKEYWORDS:
        named |= stars.pop(0)
    return functools.partial(called, *given, **named)
