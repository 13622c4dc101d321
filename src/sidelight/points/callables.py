"""The kinds of callable, with the template of a wrapper for each."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any, Final

import msgspec

from sidelight.points import templates
from sidelight.points.expressions import Phase


class Kind(msgspec.Struct, frozen=True):
    """One kind of callable.

    Attributes:
        name: the kind as `sidelight points` shows it.
        template: the template of the wrapper.
        asynchronous: whether the wrapper can ``await``.
        resumed: whether the call is left and resumed, with a context of its own to keep.
        awaitable: whether it is a generator that can be awaited (``types.coroutine``).
        is_pending: for a plain function that may return a coroutine or generator: whether it did.
        continued: the kind of the coroutine or generator that such a function returns.
    """

    name: str
    template: str
    asynchronous: bool = False
    resumed: bool = False
    awaitable: bool = False
    is_pending: Callable[[object], bool] | None = None
    continued: Kind | None = None

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The phases that a call can have."""
        template = self.template if self.continued is None else self.continued.template
        ends: tuple[Phase, ...] = ("start", "success", "failure")
        return (*ends, "closed") if "{closed}" in template else ends


_FROM_FUNC: Final = (
    functools.partial,
    functools.partialmethod,
    functools.singledispatchmethod,
    functools.cached_property,
)
_FUNCTION: Final = Kind("function", templates.FUNCTION)
_COROUTINE: Final = Kind("coroutine", templates.COROUTINE, asynchronous=True)
_GENERATOR: Final = Kind("generator", templates.GENERATOR, resumed=True)
_ASYNC_GENERATOR: Final = Kind(
    "async generator", templates.ASYNC_GENERATOR, asynchronous=True, resumed=True
)
_IS_PENDING: Final[dict[Kind, Callable[[object], bool]]] = {
    _COROUTINE: inspect.iscoroutine,
    _GENERATOR: inspect.isgenerator,
    _ASYNC_GENERATOR: inspect.isasyncgen,
}


def kind_of(function: Any) -> Kind:
    """Return the kind of a callable."""
    function = _called(function)
    kind = _own_kind(function)
    if kind is not _FUNCTION:
        return kind
    try:
        below = inspect.unwrap(function)
    except ValueError:  # a chain that leads back to itself
        return kind
    kind = _own_kind(_called(below)) if below is not function else kind
    if kind not in _IS_PENDING:
        return _FUNCTION
    return Kind(
        kind.name,
        templates.DEFERRED,
        asynchronous=kind.asynchronous,
        is_pending=_IS_PENDING[kind],
        continued=kind,
    )


def made_from(function: Any) -> Any:
    """Return the function in a partial or the like; None for everything else."""
    return function.func if isinstance(function, _FROM_FUNC) else None


def _called(function: Any) -> Any:
    """Return the function that runs in the end when a partial, or the like, is called."""
    while (inner := made_from(function)) is not None:
        function = inner
    call = getattr(type(function), "__call__", None)  # noqa: B004  # asked for its type
    if type(call) is FunctionType and not isinstance(function, FunctionType | type):
        return function if inspect.iscoroutinefunction(function) else call
    return function


def _own_kind(function: Any) -> Kind:
    if inspect.isasyncgenfunction(function):
        return _ASYNC_GENERATOR
    if inspect.iscoroutinefunction(function):
        return _COROUTINE
    if inspect.isgeneratorfunction(function):
        flags = getattr(getattr(function, "__code__", None), "co_flags", 0)
        awaitable = bool(flags & inspect.CO_ITERABLE_COROUTINE)
        return msgspec.structs.replace(_GENERATOR, awaitable=True) if awaitable else _GENERATOR
    return _FUNCTION
