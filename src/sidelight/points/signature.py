"""The arguments of a call by name: how generated code finds what a field asks for.

A wrapper that is generated with the function's own parameters has every argument as a local. One
that takes ``*args, **kwargs`` (because another decorator below does, or because it stands in for
something that is no Python function) looks a name up in those two, at the position that the
signature gives it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from inspect import Parameter
from types import FunctionType
from typing import Any, Final

import msgspec

from sidelight.exceptions import PointError, UnknownParameterError
from sidelight.points.callables import made_from
from sidelight.points.codegen import Names

_POSITIONAL: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_VARIABLE: Final = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
_MARKS: Final[Mapping[Any, str]] = {Parameter.VAR_POSITIONAL: "*", Parameter.VAR_KEYWORD: "**"}
ANY: Final = (
    Parameter("args", Parameter.VAR_POSITIONAL),
    Parameter("kwargs", Parameter.VAR_KEYWORD),
)
"""The parameters of a wrapper that hands on whatever it is given."""
PREFIX: Final = "arg_"
"""In the code of a phase an argument is called this and its name: it can shadow nothing there."""


class Signature(msgspec.Struct, frozen=True):
    """What a field may name.

    Attributes:
        function: what errors call the function.
        own: the parameters of the wrapper itself.
        known: those of the function, where they are more; None where nobody can tell.
        used: the wrapper's parameters that fields have asked for, in the order asked.
    """

    function: str
    own: tuple[Parameter, ...]
    known: tuple[Parameter, ...] | None
    used: dict[str, None] = msgspec.field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Whether the function has a parameter of that name."""
        return any(p.name == name for p in (*self.own, *(self.known or ())))

    def name(self, name: str, names: Names) -> str:
        """The Python expression for the argument ``name``."""
        own = next((p for p in self.own if p.name == name), None)
        if own is not None and (own.kind not in _VARIABLE or self.known is self.own):
            return self._use(name)
        for parameter in self.known or ():
            if parameter.name == name and (self._star or self._stars):
                return self._hidden(parameter, names)
        if own is not None:
            return self._use(name)
        if self.known is None and self._stars:
            return f"{self._use(self._stars)}.get({name!r})"
        raise UnknownParameterError(self.function, name, self._names(), self._stars)

    def position(self, index: int, names: Names) -> str:
        """The Python expression for an argument by its position."""
        if index < 0:
            raise PointError(
                function=self.function,
                problem=f"arg[{index}] counts from the end",
                remedy="count from the front, or name the argument",
            )
        own = _positional(self.own)
        known = own if self.known is None else _positional(self.known)
        if index < len(own):
            return self._use(own[index].name)
        if index < len(known) and self.known is not self.own:
            return self._hidden(known[index], names)
        if self._star is not None and (self.known is None or _star(self.known) is not None):
            return self._at(index - len(own), "None")
        raise UnknownParameterError(self.function, f"[{index}]", self._names(), None)

    @property
    def _star(self) -> str | None:
        return _star(self.own)

    @property
    def _stars(self) -> str | None:
        return next((p.name for p in self.own if p.kind is p.VAR_KEYWORD), None)

    def _names(self) -> list[str]:
        return [p.name for p in (self.own if self.known is None else self.known)]

    def _use(self, name: str) -> str:
        self.used[name] = None
        return f"{PREFIX}{name}"

    def _at(self, index: int, otherwise: str) -> str:
        assert self._star is not None  # noqa: S101  # for the type checker
        star = self._use(self._star)
        return f"({star}[{index}] if len({star}) > {index} else {otherwise})"

    def _hidden(self, parameter: Parameter, names: Names) -> str:
        """A parameter of the function below that this wrapper has only in its ``*args`` or so."""
        positional = _positional(self.known or ())
        behind = len(_positional(self.own))
        if parameter.kind is Parameter.VAR_POSITIONAL:
            if self._star is None:
                return "()"
            return f"{self._use(self._star)}[{max(len(positional) - behind, 0)}:]"
        if parameter.kind is Parameter.VAR_KEYWORD:
            if self._stars is None:
                return "{}"
            taken = names.give("taken", frozenset(self._names()))
            source = self._use(self._stars)
            return f"{{key: value for key, value in {source}.items() if key not in {taken}}}"
        found = "None"
        if parameter.default is not Parameter.empty:
            found = names.give("default", parameter.default)
        if self._stars is not None and parameter.kind is not Parameter.POSITIONAL_ONLY:
            found = f"{self._use(self._stars)}.get({parameter.name!r}, {found})"
        if self._star is not None and parameter in positional:
            index = positional.index(parameter) - behind
            found = self._at(index, found) if index >= 0 else found
        return found


def _positional(parameters: tuple[Parameter, ...]) -> list[Parameter]:
    return [p for p in parameters if p.kind in _POSITIONAL]


def _star(parameters: tuple[Parameter, ...]) -> str | None:
    return next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)


def signature_of(function: Any, name: str, *, reserved: frozenset[str]) -> Signature:
    """The signature of a function's wrapper.

    Args:
        function: what is decorated.
        name: what errors call it.
        reserved: names that the wrapper needs for itself: with such a parameter it cannot have
            the function's own.
    """
    if type(function) is not FunctionType:
        return Signature(name, ANY, _followed(function))
    own = own_parameters(function)
    hides = hasattr(function, "__wrapped__") or hasattr(function, "__signature__")
    known = _followed(function) or own if hides else own
    if any(p.name in reserved for p in own):
        return Signature(name, ANY, known)
    return Signature(name, own, known)


def own_parameters(function: FunctionType) -> tuple[Parameter, ...]:
    """The parameters of the function's code, whatever its ``__signature__`` says."""
    code = function.__code__
    names, count = code.co_varnames, code.co_argcount
    defaults = function.__defaults__ or ()
    first_default = count - len(defaults)
    parameters = []
    for index, name in enumerate(names[:count]):
        only = index < code.co_posonlyargcount
        default = defaults[index - first_default] if index >= first_default else Parameter.empty
        kind = Parameter.POSITIONAL_ONLY if only else Parameter.POSITIONAL_OR_KEYWORD
        parameters.append(Parameter(name, kind, default=default))
    end = count + code.co_kwonlyargcount
    rest = list(names[end:])
    if code.co_flags & inspect.CO_VARARGS:
        parameters.append(Parameter(rest.pop(0), Parameter.VAR_POSITIONAL))
    keyword_defaults = function.__kwdefaults__ or {}
    for name in names[count:end]:
        default = keyword_defaults.get(name, Parameter.empty)
        parameters.append(Parameter(name, Parameter.KEYWORD_ONLY, default=default))
    if code.co_flags & inspect.CO_VARKEYWORDS:
        parameters.append(Parameter(rest.pop(0), Parameter.VAR_KEYWORD))
    return tuple(parameters)


def _followed(function: Any) -> tuple[Parameter, ...] | None:
    """What `inspect.signature` says, followed to the function below; None where it cannot tell."""
    inner = made_from(function)
    try:
        if isinstance(function, functools.partialmethod):
            first, *_ = inspect.signature(inner).parameters.values()
            partial = functools.partial(inner, None, *function.args, **function.keywords)
            return (first, *inspect.signature(partial).parameters.values())
        described = function if callable(function) else inner
        return tuple(inspect.signature(described).parameters.values())
    except (TypeError, ValueError):
        return None


def declared(parameters: tuple[Parameter, ...]) -> str:
    """A parameter list as source; the defaults are placeholders for the function's own."""
    parts = []
    previous = None
    for parameter in parameters:
        kind = parameter.kind
        if previous is Parameter.POSITIONAL_ONLY and kind is not previous:
            parts.append("/")
        if kind is Parameter.KEYWORD_ONLY and previous not in {Parameter.VAR_POSITIONAL, kind}:
            parts.append("*")
        mark = _MARKS.get(kind, "")
        default = "" if parameter.default is Parameter.empty else "=None"
        parts.append(f"{mark}{parameter.name}{default}")
        previous = kind
    if previous is Parameter.POSITIONAL_ONLY:
        parts.append("/")
    return ", ".join(parts)


def handed_on(parameters: tuple[Parameter, ...]) -> str:
    """The arguments of a call that hands every parameter on as it came."""
    return ", ".join(
        f"{p.name}={p.name}" if p.kind is p.KEYWORD_ONLY else f"{_MARKS.get(p.kind, '')}{p.name}"
        for p in parameters
    )
