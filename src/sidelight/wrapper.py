"""From a point to the wrapper of its function, one template for each kind of callable.

For functions written in Python the wrapper is generated with the function's own parameters (as
dataclasses and attrs generate theirs) and its source registered with `linecache`, so that
tracebacks and debuggers show it. Everything else (partials, instances, C functions, other people's
descriptors) is carried by wrapt.
"""

from __future__ import annotations

import functools
import inspect
import keyword
import linecache
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any, Final

from sidelight import adapter
from sidelight.capture import COMMON, NAMES, Phases, Source
from sidelight.emitter import MARGIN, emitter
from sidelight.fields import Phase, Signature
from sidelight.plain import error_details
from sidelight.points import Point
from sidelight.record import random_bits
from sidelight.span import LightSpan, bound, outside, tracing

_clock: Final = time.perf_counter_ns

_FUNCTION: Final = """
{define} {name}({parameters}):
    _span = _enter()
    try:
{started}
        _result = {wait}_function({arguments})
    except BaseException as _error:
{failed}
        raise
{succeeded}
    return _result
"""

# The body's own context is kept between resumes, and none of it is left attached across a yield.
_GENERATOR: Final = """
{define} {name}({parameters}):
    _span = _enter()
    _outer = _swap(_span.context)
    try:
{started}
        _generator = _function({arguments})
        _resume, _value = _generator.{send}, None
        while True:
            _item = {wait}_resume(_value)
            _inner = _swap(_outer)
            try:
                _value, _resume = (yield _item), _generator.{send}
            except BaseException as _thrown:
                _value, _resume = _thrown, _generator.{throw}
            _outer = _swap(_inner)
    except {stop} as _stop:
        _swap(_outer)
        _result = {returned}
    except GeneratorExit as _error:
        _swap(_outer)
{closed}
        raise
    except BaseException as _error:
        _swap(_outer)
{failed}
        raise
{succeeded}
{give_back}
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """How calls of one kind of callable are written."""

    name: str
    template: str
    define: str = "def"
    wait: str = ""
    send: str = "send"
    throw: str = "throw"
    stop: str = "StopIteration"
    returned: str = "_stop.value"
    give_back: str = "    return _result"


KINDS: Final = {
    kind.name: kind
    for kind in (
        Kind("function", _FUNCTION),
        Kind("coroutine", _FUNCTION, "async def", "await "),
        Kind("generator", _GENERATOR),
        Kind(
            "async generator",
            _GENERATOR,
            "async def",
            "await ",
            "asend",
            "athrow",
            "StopAsyncIteration",
            "None",
            "",
        ),
    )
}


def kind_of(function: Any) -> Kind:
    """Which template fits a callable."""
    if inspect.isasyncgenfunction(function):
        return KINDS["async generator"]
    if inspect.iscoroutinefunction(function):
        return KINDS["coroutine"]
    if inspect.isgeneratorfunction(function):
        return KINDS["generator"]
    call = getattr(type(function), "__call__", None)  # noqa: B004  # its kind, not whether it is there
    if isinstance(call, FunctionType) and not isinstance(function, FunctionType | type):
        return kind_of(call)
    return KINDS["function"]


_RESERVED: Final = frozenset(
    {
        *("args", "kwargs", "_span", "_result", "_error", "_function", "_instance", "_outer"),
        *("_inner", "_generator", "_resume", "_value", "_item", "_thrown", "_stop", "_position"),
        *("_now", "_problem", "_cost", "_details", "_by", "_chosen", "_artifact_id"),
        *("_organization_id", *NAMES.values()),
    }
)
_ANY: Final = "*args, **kwargs"


def parameters_of(function: Callable[..., Any], path: str) -> Signature:
    """The parameters that generated code has at hand, and all that a field may name."""
    try:
        followed = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        followed = {}.values()
    known = [p.name for p in followed if p.kind not in _VARIABLE]
    if not isinstance(function, FunctionType):
        if known[:1] in (["self"], ["cls"]):  # wrapt hands the instance over apart
            del known[0]
        return Signature(path, (), tuple(known), "args", "kwargs")
    own = inspect.signature(function, follow_wrapped=False).parameters.values()
    if any(p.name in _RESERVED and p.kind not in _VARIABLE for p in own):
        return Signature(path, (), tuple(known), "args", "kwargs")
    plain = tuple(p.name for p in own if p.kind not in _VARIABLE)
    star = next((p.name for p in own if p.kind is p.VAR_POSITIONAL), None)
    stars = next((p.name for p in own if p.kind is p.VAR_KEYWORD), None)
    if not hasattr(function, "__wrapped__"):
        every = tuple(p.name for p in own)
        return Signature(path, every, every)
    return Signature(path, plain, tuple(known), star, stars)


_VARIABLE: Final = frozenset(
    {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
)


def wrap(point: Point, function: Any) -> Any:
    """The wrapper that makes ``function`` emit what ``point`` declares."""
    kind = kind_of(function)
    signature = parameters_of(function, point.path)
    awaited = any(d.mode == "awaited" for d in point.declarations)
    waits = "no" if not awaited else ("outside" if kind.wait else "here")
    phases = Phases(point, signature, waits, attached=kind.template is _FUNCTION and point.span)
    source = Source(names=_names(point, function, kind))
    for phase in NAMES:
        if phases.has(phase) and (phase != "closed" or kind.template is _GENERATOR):
            phases.write(source, phase)
    if not isinstance(function, FunctionType):
        parameters, arguments = "_function, _instance, args, kwargs", _ANY
    elif (signature.star, signature.stars) == ("args", "kwargs") and not signature.own:
        parameters, arguments = _ANY, _ANY
    else:
        parameters, arguments = _call(function)
    source.lines.extend(_body(kind, phases, parameters, arguments).splitlines())
    made = _compile(point, source)
    if not isinstance(function, FunctionType):
        return _carried(made, function)
    if parameters != _ANY:
        made.__defaults__, made.__kwdefaults__ = function.__defaults__, function.__kwdefaults__
    return functools.update_wrapper(made, function)


def _names(point: Point, function: Any, kind: Kind) -> dict[str, Any]:
    """The objects that the generated source refers to."""
    costs = emitter.costs_of(point.path)
    name = point.qualname
    attach = kind.template is _FUNCTION

    def uncaptured(field: str, problem: BaseException) -> None:
        emitter.lost(f"field {field} not captured", point.path, problem)

    def wait(position: tuple[int, int], spent: int) -> None:
        emitter.progress.wait(position, emitter.deadline - MARGIN - spent / 1e9)

    async def arrive(span: LightSpan, position: tuple[int, int]) -> None:
        begun = _clock()
        seconds = emitter.deadline - MARGIN - span.cost / 1e9
        await emitter.progress.arrive(position, seconds)
        costs.add(span.cost + _clock() - begun)
        span.cost = 0

    async def arrive_last(span: LightSpan, position: tuple[int, int]) -> None:
        """Wait, though the work is done: a cancellation must not take its outcome away."""
        import asyncio  # noqa: PLC0415  # loaded already where it is needed

        try:
            await arrive(span, position)
        except asyncio.CancelledError as cancelled:
            task = asyncio.current_task()
            if task is not None:  # hand the request on: it arrives at the caller's next await
                task.uncancel()
                task.cancel(*cancelled.args)

    return {
        **COMMON,
        "_function": function,
        "_enter": (
            tracing.begin(emitter, name, attach=attach) if point.span else outside(emitter, name)
        ),
        "_clock": _clock,
        "_emit": emitter.write,
        "_bits": random_bits,
        "_lost": emitter.lost,
        "_uncaptured": uncaptured,
        "_place": lambda: emitter.spool.position(),  # noqa: PLW0108  # the spool can change
        "_wait": wait,
        "_arrive": arrive,
        "_arrive_last": arrive_last,
        "_fine": costs.fine,
        "_add_cost": costs.add,
        "_detach": adapter.reset_context,
        "_swap": _swap,
        "_bound": bound.get,
        "_error_details": error_details,
    }


def _swap(context: Any) -> Any:
    """Make ``context`` current and return the one that was."""
    before = adapter.get_context()
    if context is not None:
        adapter.set_context(context)
    return before


def _call(function: FunctionType) -> tuple[str, str]:
    """The parameter list of a function as source, and the arguments that hand them on."""
    parameters, arguments = [], []
    previous = None
    for parameter in inspect.signature(function, follow_wrapped=False).parameters.values():
        name, kind = parameter.name, parameter.kind
        if previous is parameter.POSITIONAL_ONLY and kind is not previous:
            parameters.append("/")
        if kind is parameter.KEYWORD_ONLY and previous not in {
            parameter.VAR_POSITIONAL,
            parameter.KEYWORD_ONLY,
        }:
            parameters.append("*")
        if kind is parameter.VAR_POSITIONAL:
            parameters.append(f"*{name}")
            arguments.append(f"*{name}")
        elif kind is parameter.VAR_KEYWORD:
            parameters.append(f"**{name}")
            arguments.append(f"**{name}")
        else:
            default = "" if parameter.default is parameter.empty else "=None"
            parameters.append(f"{name}{default}")
            arguments.append(f"{name}={name}" if kind is parameter.KEYWORD_ONLY else name)
        previous = kind
    if previous is inspect.Parameter.POSITIONAL_ONLY:
        parameters.append("/")
    return ", ".join(parameters), ", ".join(arguments)


def _body(kind: Kind, phases: Phases, parameters: str, arguments: str) -> str:
    passed = "".join(f", {name}" for name in phases.parameters)

    def block(indent: int, phase: Phase, value: str) -> str:
        call = f"{NAMES[phase]}(_span{value}{passed})"
        if not phases.has(phase):
            lines = ["pass"]
        elif phases.waits == "outside" and phase != "closed":
            arrive = "_arrive" if phase == "start" else "_arrive_last"
            lines = [
                f"_position = {call}",
                "if _position is not None:",
                f"    await {arrive}(_span, _position)",
            ]
        else:
            lines = [call]
        return "\n".join(f"{'    ' * indent}{line}" for line in lines)

    return kind.template.format(
        define=kind.define,
        name=_identifier(phases.point),
        parameters=parameters,
        arguments=arguments,
        wait=kind.wait,
        send=kind.send,
        throw=kind.throw,
        stop=kind.stop,
        returned=kind.returned,
        give_back=kind.give_back,
        started=block(2, "start", ""),
        succeeded=block(1, "success", ", _result"),
        failed=block(2, "failure", ", _error"),
        closed=block(2, "closed", ""),
    )


def _identifier(point: Point) -> str:
    name = point.qualname.rpartition(".")[2]
    return name if name.isidentifier() and not keyword.iskeyword(name) else "wrapped"


def _compile(point: Point, source: Source) -> FunctionType:
    text = "\n".join(source.lines) + "\n"
    filename = f"<sidelight {point.path}>"
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    exec(compile(text, filename, "exec"), source.names)  # noqa: S102  # the source is ours
    made: FunctionType = source.names[_identifier(point)]
    return made


def _carried(made: FunctionType, function: Any) -> Any:
    """Let wrapt stand in for what is not a Python function, descriptors and all."""
    import wrapt  # noqa: PLC0415  # seldom needed, and slow to import

    return wrapt.FunctionWrapper(function, made)
