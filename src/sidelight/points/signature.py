"""The parameters of a function, and the source that finds an argument of a call by its name.

A wrapper that is generated with the function's own parameters has every argument as a local. A
wrapper that takes ``*args, **kwargs`` looks an argument up in those two, at the position that the
signature gives. It takes them because another decorator below does, or because it stands for
something that is no Python function.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from inspect import Parameter
from types import FunctionType
from typing import Any, Final

import msgspec

from sidelight.exceptions import PointError, UnknownParameterError
from sidelight.points.callables import made_from
from sidelight.points.codegen import Names, is_identifier

_signature: Callable[..., inspect.Signature] = inspect.signature
if sys.version_info >= (3, 14):
    from annotationlib import Format

    _signature = functools.partial(inspect.signature, annotation_format=Format.STRING)

_POSITIONAL: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_VARIABLE: Final = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
_STARS: Final[Mapping[Any, str]] = {Parameter.VAR_POSITIONAL: "*", Parameter.VAR_KEYWORD: "**"}
ANY: Final = (
    Parameter("args", Parameter.VAR_POSITIONAL),
    Parameter("kwargs", Parameter.VAR_KEYWORD),
)
"""The parameters of a wrapper that hands on all arguments."""
PREFIX: Final = "arg_"
"""The functions of phases put this before an argument's name, so that it shadows nothing there."""

REFERENCES: Final = "_references"
"""The names of globals begin so that have the references of wrappers."""


class Signature(msgspec.Struct, frozen=True):
    """The parameters that a field may name.

    Attributes:
        function: the function's name in errors.
        own: the parameters of the wrapper itself.
        known: the parameters of the function, where there are more; None where they are unknown.
    """

    function: str
    own: tuple[Parameter, ...]
    known: tuple[Parameter, ...] | None

    def has(self, name: str) -> bool:
        """Return whether the function has a parameter of that name."""
        return any(p.name == name for p in (*self.own, *(self.known or ())))


class Arguments:
    """Writes the source that finds arguments of one function.

    Attributes:
        used: the wrapper's parameters that the source reads, in the order asked for.
    """

    def __init__(self, signature: Signature, names: Names) -> None:
        self.signature = signature
        self.used: dict[str, None] = {}
        self._own = signature.own
        self._known = signature.known
        self._names = names
        self._star = _star(signature.own)
        self._stars = next((p.name for p in signature.own if p.kind is p.VAR_KEYWORD), None)

    def by_name(self, name: str) -> str:
        """Return the source of the argument ``name``.

        Raises:
            UnknownParameterError: the function has no such parameter.
        """
        own = next((p for p in self._own if p.name == name), None)
        if own is not None and (own.kind not in _VARIABLE or self._known is self._own):
            return self._use(own.name)
        for parameter in self._known or ():
            if parameter.name == name and (self._star or self._stars):
                return self._hidden(parameter)
        if own is not None:
            return self._use(own.name)
        if self._known is None and self._stars:
            return f"{self._use(self._stars)}.get({self._names.literal(name)})"
        raise UnknownParameterError(self.signature.function, name, self._told(), self._stars)

    def by_position(self, index: int) -> str:
        """Return the source of the argument at position ``index``.

        Raises:
            PointError: the function has no such position.
        """
        if index < 0:
            raise PointError(
                function=self.signature.function,
                problem=f"arg[{index}] counts from the end",
                remedy="count from the front, or name the argument",
            )
        own = _positional(self._own)
        known = own if self._known is None else _positional(self._known)
        if index < len(own):
            return self._use(own[index].name)
        if index < len(known) and self._known is not self._own:
            return self._hidden(known[index])
        if self._star is not None and (self._known is None or _star(self._known) is not None):
            return self._item(self._star, index - len(own), "None")
        raise UnknownParameterError(self.signature.function, f"[{index}]", self._told(), None)

    def _told(self) -> list[str]:
        return [p.name for p in (self._own if self._known is None else self._known)]

    def _use(self, name: str) -> str:
        self.used[name] = None
        return f"{PREFIX}{name}"

    def _item(self, star: str, index: int, otherwise: str) -> str:
        items = self._use(star)
        return f"({items}[{index}] if len({items}) > {index} else {otherwise})"

    def _hidden(self, parameter: Parameter) -> str:
        """Return a parameter of the decorated function that is in ``*args`` or ``**kwargs``."""
        positional = _positional(self._known or ())
        behind = len(_positional(self._own))
        if parameter.kind is Parameter.VAR_POSITIONAL:
            if self._star is None:
                return "()"
            return f"{self._use(self._star)}[{max(len(positional) - behind, 0)}:]"
        if parameter.kind is Parameter.VAR_KEYWORD:
            if self._stars is None:
                return "{}"
            taken = self._names.give("taken", frozenset(self._told()))
            items = f"{self._use(self._stars)}.items()"
            return f"{{key: value for key, value in {items} if key not in {taken}}}"
        found = "None"
        if parameter.default is not Parameter.empty:
            found = self._names.give("default", parameter.default)
        if self._stars is not None and parameter.kind is not Parameter.POSITIONAL_ONLY:
            key = self._names.literal(parameter.name)
            found = f"{self._use(self._stars)}.get({key}, {found})"
        if self._star is not None and parameter in positional:
            index = positional.index(parameter) - behind
            found = self._item(self._star, index, found) if index >= 0 else found
        return found


def _positional(parameters: tuple[Parameter, ...]) -> list[Parameter]:
    return [p for p in parameters if p.kind in _POSITIONAL]


def _star(parameters: tuple[Parameter, ...]) -> str | None:
    return next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)


def signature_of(function: Any, name: str, *, reserved: frozenset[str]) -> Signature:
    """Return the signature of a function's wrapper.

    Args:
        function: the decorated callable.
        name: its name in errors.
        reserved: names that the wrapper needs for itself. With a parameter of such a name the
            wrapper cannot have the function's own parameters.
    """
    if type(function) is not FunctionType:
        return Signature(name, ANY, _followed(function))
    own = own_parameters(function)
    hides = hasattr(function, "__wrapped__") or hasattr(function, "__signature__")
    known = _followed(function) or own if hides else own
    for parameter in own:
        taken = parameter.name in reserved or parameter.name.startswith(REFERENCES)
        if taken or not is_identifier(parameter.name):
            return Signature(name, ANY, known)
    return Signature(name, own, known)


def own_parameters(function: FunctionType) -> tuple[Parameter, ...]:
    """Return the parameters of the function's code, without regard to ``__signature__``."""
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


def parameters_of(function: Callable[..., object]) -> tuple[Parameter, ...]:
    """Return the parameters by `inspect.signature`, which follows ``__wrapped__``.

    Annotations are not evaluated, because they may name what is not imported (Python 3.14).

    Raises:
        TypeError, ValueError: the parameters are unknown.
    """
    return tuple(_signature(function).parameters.values())


def _followed(function: Any) -> tuple[Parameter, ...] | None:
    """Return the parameters as `parameters_of` gives them; None if unknown."""
    inner = made_from(function)
    try:
        if isinstance(function, functools.partialmethod):
            first, *_ = parameters_of(inner)
            partial = functools.partial(inner, None, *function.args, **function.keywords)
            return (first, *parameters_of(partial))
        described = function if callable(function) else inner
        return parameters_of(described)
    except (TypeError, ValueError):
        return None


def parameter_list(parameters: tuple[Parameter, ...]) -> str:
    """Return a parameter list as source.

    Its defaults are replaced by the function's own objects.
    """
    parts = []
    previous = None
    for parameter in parameters:
        kind = parameter.kind
        if previous is Parameter.POSITIONAL_ONLY and kind is not previous:
            parts.append("/")
        if kind is Parameter.KEYWORD_ONLY and previous not in {Parameter.VAR_POSITIONAL, kind}:
            parts.append("*")
        default = "" if parameter.default is Parameter.empty else "=None"
        parts.append(f"{_STARS.get(kind, '')}{parameter.name}{default}")
        previous = kind
    if previous is Parameter.POSITIONAL_ONLY:
        parts.append("/")
    return ", ".join(parts)


def argument_list(parameters: tuple[Parameter, ...]) -> str:
    """Return the arguments of a call that hands every parameter on, as source."""
    return ", ".join(
        f"{p.name}={p.name}" if p.kind is p.KEYWORD_ONLY else f"{_STARS.get(p.kind, '')}{p.name}"
        for p in parameters
    )
