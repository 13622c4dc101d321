"""From a point to the wrapper of its function.

For functions written in Python the wrapper is generated with the function's own parameters (as
dataclasses and attrs generate theirs) and its source registered with `linecache`, so that
tracebacks and debuggers show it. Everything else (partials, instances, C functions, other people's
descriptors) is carried by wrapt.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import keyword
import sys
import time
import types
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from types import FunctionType
from typing import Any, Final

from sidelight.emission import EMITTER, TRACING, PointWaits, begin_without_span, bound
from sidelight.exceptions import InstrumentationError
from sidelight.host import get_context, reset_context, set_context
from sidelight.points.callables import RESERVED, Kind, Phase, kind_of
from sidelight.points.codegen import Names, define, fill, pose
from sidelight.points.declaration import check_fields
from sidelight.points.phases import COMMON, Capture, PhaseCode, Waits
from sidelight.points.registry import Point
from sidelight.points.signature import ANY, Signature, declared, handed_on, signature_of
from sidelight.record import error_details, random_bits
from sidelight.transactions import JoiningLater

# How the span comes into the context, and out again: by calls into C of which the last changes it,
# so that an interrupt (a signal handler's error) always finds the `try` that undoes the change.
_CONTEXTS: Final[Mapping[str, str]] = {
    "enter": "_set_context(_span.context)",
    "leave": "_set_context(_span.outer)",
    "attach": "_span.token = _set_context(_span.context)",
    "detach": """
if _get_context() is _span.context:
    _set_context(_span.outer)
else:
    _detach_token(_span.token)
""",
    "detach_again": """
if _get_context() is _span.context:  # an interrupt came before it was detached
    _set_context(_span.outer)
""",
    "keep": "_outer = _get_context()",
    "give_way": """
_inner = _get_context()
_set_context(_outer)
""",
    "come_back": """
_outer = _get_context()
_set_context(_inner)
""",
    "leave_resumed": "_set_context(_outer)",
}
_NO_CONTEXTS: Final = {**dict.fromkeys(_CONTEXTS, ""), "detach": "pass"}  # alone in its block

_AWAIT: Final = """
_position = {call}
if _position is not None:
    await {arrive}(_span, _position)
"""
_BLOCK: Final = """
_position = {call}
if _position is not None:
    _wait_counted(_span, _position)
"""
_ARRIVE: Final = """
if _position is not None:
    await _arrive(_span, _position)
"""
# What joins a transaction on an asynchronous connection.
_JOIN: Final = """
{emission}
if _span.joining is not None:
    {join}(_span)
"""
# Of what wrapt carries: where it is bound, wrapt hands the first argument over apart.
_CARRY: Final = """
args = _args if _function is _original else (_instance, *_args)
_span = _enter()
"""


def wrap(point: Point, function: Any, rewrap: Callable[..., Any]) -> Any:
    """The wrapper that makes ``function`` emit what ``point`` declares.

    Args:
        point: the function's declarations.
        function: what is decorated.
        rewrap: wraps a copy of ``function`` (see `proxies.Rewrap`).
    """
    kind = kind_of(function)
    signature = signature_of(function, point.name, reserved=RESERVED)
    for declaration in point.declarations:
        check_fields(declaration, signature)
    made = _Writer(point, function, kind, signature).wrapper()
    if type(function) is not FunctionType:
        from sidelight.points.proxies import Proxy  # noqa: PLC0415  # seldom needed, slow to import

        return Proxy(function, made, point, rewrap)
    if signature.own is not ANY:
        made.__defaults__, made.__kwdefaults__ = function.__defaults__, function.__kwdefaults__
    wrapper = functools.update_wrapper(made, function)
    return types.coroutine(wrapper) if kind.awaitable else wrapper


class _Writer:
    """Writes the code of one wrapper, and makes it."""

    def __init__(self, point: Point, function: Any, kind: Kind, signature: Signature) -> None:
        self.point = point
        self.kind = kind
        self.signature = signature
        self.function = function
        self.names = Names(_names(point, function, kind))
        awaited = any(d.mode == "awaited" for d in point.declarations)
        self.waits: Waits = "no" if not awaited else "outside" if kind.asynchronous else "here"
        self.joins = kind.asynchronous and any(d.joins for d in point.declarations)
        capture = Capture(point, signature, self.waits, kind.asynchronous, self.names)
        self.phases: dict[Phase, PhaseCode] = {}
        for phase in kind.phases:
            if code := capture.phase(phase):
                self.phases[phase] = code

    def wrapper(self) -> Any:
        """The wrapper itself; for what wrapt carries, the function that wrapt calls."""
        name = self._name()
        parameters, call, begin = "_function, _instance, _args, kwargs", "*_args, **kwargs", _CARRY
        if type(self.function) is FunctionType:
            own = self.signature.own
            parameters, call, begin = declared(own), handed_on(own), "_span = _enter()"
        text = "\n\n".join(code.text for code in self.phases.values())
        if self.kind.continued is not None:
            text += f"\n\n{self._continued(self.kind.continued)}"
        text += "\n\n" + self._filled(
            self.kind, name=name, parameters=parameters, call=f"_function({call})", begin=begin
        )
        define(text, self.names, filename=f"<sidelight {self.point.path}>")
        for made in (name, "_continued"):
            if made in self.names.objects:
                pose(self.names.objects[made], self.function)
        return self.names.objects[name]

    def _name(self) -> str:
        name = self.point.qualname.rpartition(".")[2]
        usable = name.isidentifier() and not keyword.iskeyword(name)
        taken = name in RESERVED or name in self.names.objects or hasattr(builtins, name)
        return name if usable and not taken else "_wrapper"

    def _continued(self, kind: Kind) -> str:
        """What a function gave back that has yet to run, run to its end."""
        waits = kind.asynchronous and self.waits == "outside"
        return self._filled(
            kind,
            name="_continued",
            parameters=", ".join(["_span", "_position", "_made", *self._used()]),
            call="_made",
            begin="",
            started=_ARRIVE if waits else "",
        )

    def _used(self) -> list[str]:
        used = dict.fromkeys(name for code in self.phases.values() for name in code.used)
        return list(used)

    def _filled(self, kind: Kind, **parts: str) -> str:
        later = kind.pending is not None
        blocks = {
            "started": self._block("start", later=later),
            "succeeded": self._block("success", later=later),
            "failed": self._block("failure", later=later),
            "closed": self._block("closed", later=later),
        }
        contexts = _CONTEXTS if self.point.span else _NO_CONTEXTS
        calls = {
            "handed": "".join(f", {name}" for name in self._used()),
            "success": self._call("success"),
            "failure": self._call("failure"),
        }
        return fill(kind.template, **{**contexts, **calls, **blocks, **parts})

    def _call(self, phase: Phase) -> str:
        call = self.phases[phase].call if phase in self.phases else "None"
        return f"_join_here(_span, {call})" if self.joins and phase == "success" else call

    def _block(self, phase: Phase, *, later: bool) -> str:
        """The lines of a wrapper at which a phase happens."""
        if phase not in self.phases:
            return ""
        lines = self._emission(phase, later=later)
        if not self.joins or phase != "success":
            return lines
        return fill(_JOIN, emission=lines, join="_join_here" if later else "await _join_awaited")

    def _emission(self, phase: Phase, *, later: bool) -> str:
        call = self.phases[phase].call
        if self.waits != "outside" or phase == "closed":
            return call
        if later:
            return f"_position = {call}" if phase == "start" else fill(_BLOCK, call=call)
        arrive = "_arrive" if phase == "start" else "_arrive_last"
        return fill(_AWAIT, call=call, arrive=arrive)


def _names(point: Point, function: Any, kind: Kind) -> dict[str, Any]:
    """The objects that the generated code of one point refers to."""
    costs = EMITTER.costs_of(point.path)
    begin = TRACING.begin if point.span else begin_without_span
    return {
        **COMMON,
        **_SHARED,
        **_guard(point),
        **PointWaits(EMITTER, point.path, costs).names(),
        **JoiningLater(costs).names(),
        "__name__": point.module,
        "_function": function,
        "_original": function,
        "_enter": begin(EMITTER, point.qualname),
        "_fine": costs.fine,
        "_add_cost": costs.add,
        "_pending": kind.pending,
    }


def _guard(point: Point) -> dict[str, Any]:
    """What is done with a problem: counted, and kept from the caller unless it is the caller's."""
    path = point.path
    strange = any(declaration.joins for declaration in point.declarations)  # a database's driver

    def lost(reason: str, problem: BaseException) -> None:
        EMITTER.lost(reason, path, problem, foreign_code=strange)

    def uncaptured(field: str, problem: BaseException) -> None:
        EMITTER.lost(f"field {field} not captured", path, problem)

    return {"_lost": lost, "_uncaptured": uncaptured}


def _detach_token(token: Any) -> None:
    """Undo what the body of a coroutine has left attached, if this is the context it ran in."""
    with contextlib.suppress(ValueError, RuntimeError, TypeError):
        reset_context(token)


def _adopt(generator: AsyncGenerator[Any, Any]) -> Callable[[Any], Awaitable[Any]]:
    """The first resume of an async generator that only its wrapper closes.

    An event loop hears of every async generator at its first resume, and closes all of them when
    it ends, in any order: the one under a wrapper must not be closed apart from it.
    """

    def resume(value: Any) -> Awaitable[Any]:
        hooks = sys.get_asyncgen_hooks()
        try:
            sys.set_asyncgen_hooks(None, None)
            return generator.asend(value)
        finally:
            sys.set_asyncgen_hooks(*hooks)

    return resume


def _is_future(result: Any) -> bool:
    asyncio = sys.modules.get("asyncio")  # where it was never imported there are no futures
    return asyncio is not None and asyncio.isfuture(result)


def _when_done(
    future: Any,
    succeeded: Callable[[Any], object],
    failed: Callable[[BaseException], object],
) -> Any:
    """End the call when the future does that the function gave back."""

    def done(future: Any) -> None:
        if future.cancelled():
            failed(sys.modules["asyncio"].CancelledError())
        elif (error := getattr(future, "_exception", None)) is not None:
            failed(error)  # asked for by `exception()` it would pass for seen by the application
        else:
            succeeded(future.result())

    future.add_done_callback(done)
    return future


_SHARED: Final[Mapping[str, Any]] = {
    "_clock": time.perf_counter_ns,
    "_emit": EMITTER.write,
    "_bits": random_bits,
    "_losses": EMITTER.losses,
    "_place": lambda: EMITTER.spool.position(),  # noqa: PLW0108  # the spool can change
    "_detach_token": _detach_token,
    "_get_context": get_context,
    "_set_context": set_context,
    "_bound": bound.get,
    "_error_details": error_details,
    "_InstrumentationError": InstrumentationError,
    "_adopt": _adopt,
    "_is_future": _is_future,
    "_when_done": _when_done,
}
