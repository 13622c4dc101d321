"""The wrapper of one point: its fields are compiled, its code is written, run, and put in place.

For a function written in Python the wrapper is generated with the function's own parameters (as
dataclasses and attrs generate theirs). `linecache` has its source, so that tracebacks and debuggers
show it. For everything else (partials, instances, C functions, other descriptors) a wrapt proxy
calls the generated function.
"""

from __future__ import annotations

import builtins
import functools
import re
import types
from collections.abc import Callable, Sequence
from types import CodeType, FunctionType
from typing import Any, Final

from sidelight.emission import EMITTER
from sidelight.points import templates
from sidelight.points.callables import Kind, kind_of
from sidelight.points.codegen import Names, define, fill, is_identifier, keep_source, name_like
from sidelight.points.expressions import Phase
from sidelight.points.fields import check_fields, compile_fields
from sidelight.points.first_call import may_wait, waiting_wrapper
from sidelight.points.namespace import GLOBALS, References, namespace
from sidelight.points.phases import PhaseFunction, PhaseWriter, Waits
from sidelight.points.registry import Point
from sidelight.points.signature import ANY, Signature, argument_list, parameter_list, signature_of

_ANY_NAME: Final = "_wrapper"


def wrap(point: Point, function: Any, rewrap: Callable[..., Any]) -> Any:
    """Return the wrapper that makes ``function`` emit what ``point`` declares.

    Args:
        point: the function's declarations.
        function: the decorated callable.
        rewrap: wraps a copy of ``function`` (see `proxies.Rewrap`).

    Raises:
        PointError: a field does not fit the function.
    """
    if type(function) is FunctionType and not GLOBALS.may_move(point):
        kind = kind_of(function)
        if may_wait(point, function, kind):
            return _waiting(point, function, kind)
    writer = _writer(point, function)
    made = writer.wrapper()
    writer.keep_sources()
    if type(function) is not FunctionType:
        from sidelight.points.proxies import Proxy  # noqa: PLC0415  # seldom needed, slow to import

        GLOBALS.keep(point, made)
        return Proxy(function, made, point, rewrap)
    if writer.hands_on_its_own:
        made.__defaults__, made.__kwdefaults__ = function.__defaults__, function.__kwdefaults__
    wrapper: Any = functools.update_wrapper(made, function)
    if kind_of(function).awaitable:
        wrapper = types.coroutine(wrapper)
    GLOBALS.keep(point, wrapper)
    return wrapper


def _waiting(point: Point, function: FunctionType, kind: Kind) -> Any:
    """Return the wrapper of a function, whose code is written at the first call."""
    signature = signature_of(function, point.name, reserved=templates.RESERVED)
    for declaration in point.declarations:
        check_fields(declaration, signature)

    def write(wrapper: FunctionType) -> None:
        writer = _WrapperWriter(point, function, kind, signature, wrapper.__globals__)
        code = wrapper.__code__ = writer.wrapper().__code__
        # Not before: an exception from outside may end a first call, and what it had written is
        # dropped in the next. There a finalizer would swallow the next exception from outside.
        writer.keep_sources()
        keep_source(code)

    wrapper: Any = waiting_wrapper(point, function, kind, write)
    wrapper.__defaults__, wrapper.__kwdefaults__ = function.__defaults__, function.__kwdefaults__
    GLOBALS.fix(point, wrapper)
    EMITTER.know(point.path)
    return functools.update_wrapper(wrapper, function)


def _writer(point: Point, function: Any) -> _WrapperWriter:
    signature = signature_of(function, point.name, reserved=templates.RESERVED)
    return _WrapperWriter(point, function, kind_of(function), signature)


def references(point: Point, function: Any, names: tuple[str, ...]) -> References:
    """Return the references of a wrapper that was pickled by value, made for this process."""
    writer = _writer(point, function)
    found = writer.references(names)
    writer.keep_sources()
    return found


class _WrapperWriter:
    """Writes the code of one wrapper, and makes the wrapper."""

    def __init__(
        self,
        point: Point,
        function: Any,
        kind: Kind,
        signature: Signature,
        globals_: dict[str, Any] | None = None,
    ) -> None:
        self._point = point
        self._function = function
        self._kind = kind
        self._own = signature.own
        self._is_fixed = globals_ is not None
        self._names = names = Names(globals_)
        declarations = point.declarations
        # First, because the namespace enters the costs of a point, which a refused one has not.
        fields = [compile_fields(declaration, signature, names) for declaration in declarations]
        names.objects |= namespace(point, function, kind)
        awaited = any(declaration.mode == "awaited" for declaration in declarations)
        self._waits: Waits = "no" if not awaited else "outside" if kind.asynchronous else "here"
        self._joins = kind.asynchronous and any(d.joins for d in declarations)
        writer = PhaseWriter(
            point,
            fields,
            names,
            waits=self._waits,
            asynchronous=kind.asynchronous,
        )
        self._phases: dict[Phase, PhaseFunction] = {
            phase: made for phase in kind.phases if (made := writer.function(phase))
        }
        self._codes: Sequence[CodeType] = ()

    @property
    def hands_on_its_own(self) -> bool:
        """Whether the wrapper has the function's own parameters."""
        return self._own is not ANY

    def references(self, names: tuple[str, ...]) -> References:
        """Return the objects that the wrapper refers to by ``names``."""
        texts = [phase.text for phase in self._phases.values()]
        if self._kind.continued is not None:
            texts.append(self._continued(self._kind.continued))
        objects = self._names.objects
        filename = f"<sidelight {self._point.path} phases>"
        defined = define("\n\n".join(texts), objects, filename=filename)
        objects |= defined
        objects["_capture"].watch(objects[p.name] for p in self._phases.values() if p.guarded)
        if "_continued" in defined:
            name_like(objects["_continued"], self._function)
        self._codes = [made.__code__ for made in defined.values()]
        restore = references, (self._point, self._function, names)
        return References(names, tuple(objects[name] for name in names), restore)

    def keep_sources(self) -> None:
        """Let `linecache` have the source of the phases as long as their code is there."""
        for code in self._codes:
            keep_source(code)

    def wrapper(self) -> Any:
        """Return the generated function: the wrapper, or the function that a wrapt proxy calls."""
        kind, function, name = self._kind, self._function, self._name()
        proxied = type(function) is not FunctionType
        call = f"_function({argument_list(self._own)})"
        call = templates.PROXIED_CALL if proxied else call
        bare = f"(yield from {call})" if kind.resumed else call
        guarded = any(phase.guarded for phase in self._phases.values())
        parts = {
            "name": _ANY_NAME,
            "parameters": templates.PROXIED_PARAMETERS if proxied else parameter_list(self._own),
            "begin": templates.BEGIN_PROXIED if proxied else templates.BEGIN,
            "bypass": fill(templates.BYPASS, call=bare) if guarded else "",
            "call": call,
        }
        text = self._filled(kind, **parts, names="")
        names = self._referred(text) - ({"_function"} if proxied else set())
        found = self.references(tuple(sorted(names)))
        globals_ = self._names.objects
        if GLOBALS.may_move(self._point) and not self._is_fixed:
            globals_, reference = GLOBALS.of(self._point, found)
            unpacked = fill(templates.NAMES, names=", ".join(found.names), reference=reference)
            text = self._filled(kind, **parts, names=unpacked)
        # Functions with the same parameters and fields have the same text, without their names.
        filename, shown = f"<sidelight {self._point.path}>", text.replace(_ANY_NAME, name, 1)
        made = define(text, globals_, filename=filename, shown=shown)[_ANY_NAME]
        name_like(made, function)
        return made

    def _referred(self, text: str) -> set[str]:
        """Return the names of the namespace and of phases that stand in the text of a wrapper."""
        known = {*self._names.objects, "_continued", *(p.name for p in self._phases.values())}
        return known & templates.RESERVED & set(re.findall(r"\b_\w+", text))

    def _name(self) -> str:
        name = self._point.function
        taken = name in templates.RESERVED or hasattr(builtins, name)
        return name if is_identifier(name) and not taken else _ANY_NAME

    def _continued(self, kind: Kind) -> str:
        """Return the function that runs a returned coroutine or generator to its end."""
        waits = kind.asynchronous and self._waits == "outside"
        return self._filled(
            kind,
            name="_continued",
            parameters=", ".join(["_span", "_position", "_made", *self._used()]),
            call="_made",
            names="",
            bypass="",
            begin="",
            started=fill(templates.AWAIT_STORE, arrive="_arrive") if waits else "",
        )

    def _used(self) -> list[str]:
        return list(dict.fromkeys(p for each in self._phases.values() for p in each.parameters))

    def _filled(self, kind: Kind, **parts: str) -> str:
        deferred = kind.is_pending is not None
        blocks = {
            "started": self._block("start", deferred=deferred),
            "succeeded": self._block("success", deferred=deferred),
            "failed": self._block("failure", deferred=deferred),
            "closed": self._block("closed", deferred=deferred),
        }
        calls = {
            "handed": "".join(f", {name}" for name in self._used()),
            "success": self._call("success"),
            "failure": self._call("failure"),
        }
        span = self._point.span
        contexts = templates.CONTEXT_BLOCKS if span else templates.NO_CONTEXT_BLOCKS
        return fill(kind.template, **{**contexts, **calls, **blocks, **parts})

    def _call(self, phase: Phase) -> str:
        call = self._phases[phase].call if phase in self._phases else "None"
        return f"_join_here(_span, {call})" if self._joins and phase == "success" else call

    def _block(self, phase: Phase, *, deferred: bool) -> str:
        """Return the lines of a wrapper in which a phase happens."""
        if phase not in self._phases:
            return ""
        emission = self._emission(phase, deferred=deferred)
        if not self._joins or phase != "success":
            return emission
        join = "_join_here" if deferred else "await _join_awaited"
        return fill(templates.JOIN_DEFERRED, emission=emission, join=join)

    def _emission(self, phase: Phase, *, deferred: bool) -> str:
        call = self._phases[phase].call
        if self._waits != "outside" or phase == "closed":
            return call
        if deferred and phase == "start":
            return f"_position = {call}"
        wait = templates.BLOCK_FOR_STORE
        if not deferred:
            arrive = "_arrive" if phase == "start" else "_arrive_last"
            wait = fill(templates.AWAIT_STORE, arrive=arrive)
        return f"_position = {call}\n{wait.lstrip()}"
