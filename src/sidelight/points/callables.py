"""The kinds of callable there are, and how the wrapper of each is written.

The templates are Python as it will stand (see `source.fill`). ``{call}`` is the call of what is
decorated, ``{started}``, ``{succeeded}``, ``{failed}`` and ``{closed}`` what the point does then.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from types import FunctionType
from typing import Any, Final, Literal, TypeAlias

import msgspec

Phase: TypeAlias = Literal["start", "success", "failure", "closed"]
"""Of one call; "closed" is a generator or coroutine that its consumer did not finish."""

FUNCTION: Final = """
def {name}({parameters}):
    {begin}
    try:
        {enter}
        {started}
        _result = {call}
    except BaseException as _error:
        {leave}
        {failed}
        raise
    {leave}
    {succeeded}
    return _result
"""

# Closed by somebody else it ends in another context than it began in, and leaves that alone.
COROUTINE: Final = """
async def {name}({parameters}):
    {begin}
    try:
        try:
            {attach}
            {started}
            _result = await {call}
        finally:
            {detach}
    except GeneratorExit:
        {detach_again}
        {closed}
        raise
    except BaseException as _error:
        {detach_again}
        {failed}
        raise
    {succeeded}
    return _result
"""

# The body's own context is kept between resumes, and nothing is left attached across a yield. Nor
# is anything held on to that the body and its consumer have let go (hence the box), and what the
# consumer throws in shows our frame once, as it passes out again.
GENERATOR: Final = """
def {name}({parameters}):
    {begin}
    {keep}
    try:
        {enter}
        {started}
        _generator = {call}
        _resume, _box = _generator.send, [None]
        while True:
            _box.append(_resume(_box.pop()))
            {give_way}
            try:
                _box.append((yield _box.pop()))
                _resume = _generator.send
            except BaseException as _thrown:
                _box.append(_thrown.with_traceback(_thrown.__traceback__.tb_next))
                _resume = _generator.throw
            {come_back}
    except StopIteration as _stop:
        {leave_resumed}
        _result = _stop.value
    except GeneratorExit:
        {leave_resumed}
        {closed}
        raise
    except BaseException as _error:
        {leave_resumed}
        {failed}
        raise
    {succeeded}
    return _result
"""

ASYNC_GENERATOR: Final = """
async def {name}({parameters}):
    {begin}
    {keep}
    try:
        {enter}
        {started}
        _generator = {call}
        _resume, _box = _adopt(_generator), [None]
        while True:
            _box.append(await _resume(_box.pop()))
            {give_way}
            try:
                _box.append((yield _box.pop()))
                _resume = _generator.asend
            except BaseException as _thrown:
                _box.append(_thrown.with_traceback(_thrown.__traceback__.tb_next))
                _resume = _generator.athrow
            {come_back}
    except StopAsyncIteration:
        {leave_resumed}
        _result = None
    except GeneratorExit:
        {leave_resumed}
        {closed}
        raise
    except BaseException as _error:
        {leave_resumed}
        {failed}
        raise
    {succeeded}
"""

# A function that may give back a coroutine or generator of a function below it: if it does, the
# call goes on in there, and `_continued` (made from one of the templates above) ends it.
LATER: Final = """
def {name}({parameters}):
    {begin}
    _position = None
    try:
        {enter}
        {started}
        _result = {call}
    except BaseException as _error:
        {leave}
        {failed}
        raise
    {leave}
    if _pending(_result):
        return _continued(_span, _position, _result{handed})
    if _is_future(_result):
        return _when_done(_result, lambda _result: {success}, lambda _error: {failure})
    {succeeded}
    return _result
"""

_TEMPLATES: Final = (FUNCTION, COROUTINE, GENERATOR, ASYNC_GENERATOR, LATER)
RESERVED: Final = frozenset(
    (
        *re.findall(r"\b(?:_[a-z_]+|[A-Z]\w+)\b", "".join(_TEMPLATES)),
        *("_span", "_enter", "_function", "_made", "_position", "_started", "_succeeded"),
        *("_failed", "_closed", "_wait_counted", "_original", "_detach_token"),
        *(
            "_arrive",
            "_arrive_last",
            "_join_here",
            "_join_awaited",
            "_get_context",
            "_set_context",
            "_outer",
            "_inner",
        ),
    )
)
"""The names that the templates need for themselves."""


class Kind(msgspec.Struct, frozen=True):
    """How calls of one kind of callable are written.

    Attributes:
        name: as `sidelight points` shows it.
        template: of the wrapper.
        asynchronous: whether the wrapper waits by ``await``.
        resumed: whether it is left and resumed, with a context of its own to keep.
        awaitable: a generator that can be awaited (``types.coroutine``).
        pending: for a function that may give back what has yet to run: whether it did.
        continued: the kind of what it gives back then.
    """

    name: str
    template: str
    asynchronous: bool = False
    resumed: bool = False
    awaitable: bool = False
    pending: Callable[[object], bool] | None = None
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
_FUNCTION: Final = Kind("function", FUNCTION)
_COROUTINE: Final = Kind("coroutine", COROUTINE, asynchronous=True)
_GENERATOR: Final = Kind("generator", GENERATOR, resumed=True)
_ASYNC_GENERATOR: Final = Kind("async generator", ASYNC_GENERATOR, asynchronous=True, resumed=True)
_PENDING: Final[dict[Kind, Callable[[object], bool]]] = {
    _COROUTINE: inspect.iscoroutine,
    _GENERATOR: inspect.isgenerator,
    _ASYNC_GENERATOR: inspect.isasyncgen,
}


def kind_of(function: Any) -> Kind:
    """Which template fits a callable."""
    function = _called(function)
    kind = _own_kind(function)
    if kind is not _FUNCTION:
        return kind
    try:
        below = inspect.unwrap(function)
    except ValueError:  # a chain that leads back to itself
        return kind
    kind = _own_kind(_called(below)) if below is not function else kind
    if kind not in _PENDING:
        return _FUNCTION
    return Kind(
        kind.name,
        LATER,
        asynchronous=kind.asynchronous,
        pending=_PENDING[kind],
        continued=kind,
    )


def made_from(function: Any) -> Any:
    """What a partial or its like was made from; None for everything else."""
    return function.func if isinstance(function, _FROM_FUNC) else None


def _called(function: Any) -> Any:
    """The function that runs in the end when partials and their like are called."""
    while (inner := made_from(function)) is not None:
        function = inner
    call = getattr(type(function), "__call__", None)  # noqa: B004  # its kind, not whether it is there
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
