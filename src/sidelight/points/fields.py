"""Fields as Python source, each compiled once and checked against the function's parameters.

Missing attributes and items give None, as the generated code around the source sees to it
(`templates.MISSING`).
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

import msgspec

from sidelight.exceptions import PointError
from sidelight.points.codegen import Names, is_identifier
from sidelight.points.declaration import EVENT_PHASES, Declaration
from sidelight.points.expressions import ROOTS, Choice, Expression, Phase, parts
from sidelight.points.signature import Arguments, Signature, parameters_of
from sidelight.record import Allowance, plain, shared_by

_ALWAYS: Final = ROOTS["arg"]


class Source(msgspec.Struct, frozen=True):
    """The Python source of one field's value.

    Attributes:
        text: an expression.
        phases: the phases in which the value is known.
        parameters: the wrapper's parameters that the expression reads.
        computed: whether a call decides the value; a constant has its plain form already.
        skips_missing: whether a missing attribute or item is None, and no problem.
    """

    text: str
    phases: frozenset[Phase] = _ALWAYS
    parameters: tuple[str, ...] = ()
    computed: bool = True
    skips_missing: bool = False


class Fields(msgspec.Struct, frozen=True, eq=False):
    """The sources of one declaration's fields.

    Attributes:
        values: by the fields' names; ``artifact_id`` and ``organization_id`` come first.
        choices: the values that choose event types, by phase.
        transaction: the session or connection of ``transaction=`` or ``after_commit=``.
    """

    declaration: Declaration
    values: Mapping[str, Source]
    choices: Mapping[Phase, Source]
    transaction: Source | None


def compile_fields(declaration: Declaration, signature: Signature, names: Names) -> Fields:
    """Compile the fields of a declaration; ``names`` gets the objects that the sources refer to.

    Raises:
        PointError: a field names a parameter that the function does not have, or a value that none
            of the declared events knows: the result without an event on success, the error without
            ``failure=``.
    """
    compiler = _Compiler(signature, names, shared_by(len(declaration.fields)))
    transaction = compiler.transaction(declaration)
    emitting: list[Phase] = [phase for phase in EVENT_PHASES if declaration.types(phase)]
    values = {}
    for name, value in declaration.fields.items():
        source = compiler.value(value, mapped=declaration.joins)
        if source.phases.isdisjoint(emitting):
            compiler.refuse_unknown(f"{name}={_written(value)}", emitting)
        values[name] = source
    choices = {}
    for phase in emitting:
        declared = declaration.declared(phase)
        if isinstance(declared, Choice):
            mapped = declaration.joins and phase == "success"
            choices[phase] = compiler.value(declared.by, mapped=mapped)
            if phase not in choices[phase].phases:
                compiler.refuse_unknown(f"choose({_written(declared.by)}, …)", [phase])
    return Fields(declaration, values, choices, transaction)


def check_fields(declaration: Declaration, signature: Signature) -> None:
    """Check the fields of a declaration; see `compile_fields` for what it raises."""
    compile_fields(declaration, signature, Names())


class _Compiler:
    """Compiles the fields of one of a function's declarations."""

    def __init__(self, signature: Signature, names: Names, constants: Allowance | None) -> None:
        self._signature = signature
        self._names = names
        self._constants = constants

    def value(self, field: Any, *, mapped: bool) -> Source:
        """Compile one field.

        ``mapped`` reads attributes by `sidelight.emission.read_attribute`, because SQLAlchemy may
        have mapped the objects.
        """
        if isinstance(field, Expression):
            return self._expression(field, mapped=mapped)
        if callable(field):
            return self._callable(field)
        constant = plain(field, shared=self._constants)
        text = "None" if constant is None else self._names.give("constant", constant)
        return Source(text, computed=False)

    def transaction(self, declaration: Declaration) -> Source | None:
        """Compile ``transaction=`` or ``after_commit=``, whose value is needed before the call.

        An object that is no function stands for itself, even a callable one (scoped_session).
        """
        if not declaration.joins:
            return None
        name = "after_commit" if declaration.transaction is None else "transaction"
        field = getattr(declaration, name)
        if isinstance(field, str) and self._signature.has(field):
            self._refuse(
                f"{name}={field!r} is the alias of a Django database, not the parameter",
                f"name the argument: {name}=arg.{field}",
            )
        if not isinstance(field, Expression) and not inspect.isroutine(field):
            return Source(self._names.give("constant", field))
        source = self.value(field, mapped=False)
        if "start" not in source.phases:
            self._refuse(
                f"{name}={_written(field)} is not known before the call",
                f"name an argument: {name}=arg.NAME",
            )
        return source

    def refuse_unknown(self, field: str, emitting: list[Phase]) -> NoReturn:
        """Refuse a field whose value is known in none of the phases that emit."""
        events = " and ".join(EVENT_PHASES[phase] for phase in emitting)
        self._refuse(
            f"{field} is not known to the declared event ({events})",
            "result goes with the positional type, error with failure=",
        )

    def _refuse(self, problem: str, remedy: str) -> NoReturn:
        raise PointError(function=self._signature.function, problem=problem, remedy=remedy)

    def _expression(self, field: Expression, *, mapped: bool) -> Source:
        root, recorded = parts(field)
        steps = list(recorded)
        arguments = Arguments(self._signature, self._names)
        text = f"_{root}"
        if root == "arg":
            if not steps:
                self._refuse("arg alone captures nothing", "name an argument: arg.NAME")
            kind, key = steps.pop(0)
            if kind == "item" and isinstance(key, int):
                text = arguments.by_position(operator.index(key))
            else:
                text = arguments.by_name(str(key))
        for kind, key in steps:
            if kind == "item":
                text = f"{text}[{self._names.literal(key)}]"
            elif mapped:
                text = f"_read({text}, {self._names.literal(key)})"
            elif is_identifier(key):
                text = f"{text}.{key}"
            else:
                text = f"_getattr({text}, {self._names.literal(key)})"
        return Source(text, ROOTS[root], tuple(arguments.used), skips_missing=True)

    def _callable(self, field: Callable[..., object]) -> Source:
        """``lambda audio, result: …`` is called with the values that its parameters name."""
        if isinstance(field, type):
            self._refuse(
                f"the field's {field!r} is a class", "give its name, or a lambda that calls it"
            )
        if inspect.iscoroutinefunction(field):
            self._refuse(
                f"the field's {field!r} is a coroutine function", "give one that returns the value"
            )
        try:
            parameters = parameters_of(field)
        except (TypeError, ValueError):
            self._refuse(
                f"cannot tell the parameters of {field!r}", "wrap it in a lambda that names them"
            )
        arguments = Arguments(self._signature, self._names)
        phases, passed = _ALWAYS, []
        for parameter in parameters:
            name = parameter.name
            if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
                self._refuse(
                    f"the field's callable takes *{name}, so its parameters have no names",
                    "name the arguments that it needs, or result, or error",
                )
            if name in ROOTS and name != "arg" and not self._signature.has(name):
                text = f"_{name}"
                phases &= ROOTS[name]
            elif parameter.default is not parameter.empty and not self._signature.has(name):
                continue
            else:
                text = arguments.by_name(name)
            if parameter.kind is not parameter.KEYWORD_ONLY:
                passed.append(text)
            elif is_identifier(name):
                passed.append(f"{name}={text}")
            else:
                passed.append(f"**{{{self._names.literal(name)}: {text}}}")
        called = self._names.give("field", field)
        return Source(f"{called}({', '.join(passed)})", phases, tuple(arguments.used))


def _written(value: Any) -> str:
    """Return a field as an error shows it."""
    return repr(value) if isinstance(value, Expression) else getattr(value, "__name__", repr(value))
