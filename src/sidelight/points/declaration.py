"""Points: a decorator's arguments, parsed and refused here, and the registry of what is woven."""

from __future__ import annotations

import datetime
import decimal
import enum
import os
import uuid
from collections.abc import Mapping
from typing import Any, Final, NoReturn, TypeAlias, get_args

import msgspec

from sidelight.exceptions import PointError
from sidelight.points.callables import Phase
from sidelight.points.codegen import Names
from sidelight.points.expressions import (
    Choice,
    Expression,
    field_source,
    is_computed,
    transaction_source,
)
from sidelight.points.signature import Signature
from sidelight.record import Mode, is_type_name

EventType: TypeAlias = str | Choice
_WHEN: Final[Mapping[Phase, str]] = {
    "start": "start=, before the call",
    "success": "the positional type, on success",
    "failure": "failure=, when it raises",
}
_COLUMNS: Final = frozenset(
    {
        *("type", "event_id", "point", "outcome", "duration", "occurred_at", "recorded_at"),
        *("trace_id", "span_id", "attributes"),
    }
)
#: What people write who think of an option; as an attribute's constant it makes no sense.
_ASKED_FOR: Final = {
    **dict.fromkeys(("type", "success", "succeeded"), "give the type first, without a name"),
    **dict.fromkeys(("failed", "failures", "on_failure", "fail"), "did you mean failure=?"),
    **dict.fromkeys(("starts", "strat", "on_start", "started"), "did you mean start=?"),
    **dict.fromkeys(("modes",), "did you mean mode=?"),
}
_TRANSACTIONAL: Final = ("after_commit", "transaction")
_MISSPELT: Final = ("failure", "artifact_id", "organization_id", *_TRANSACTIONAL)
_CONSTANTS: Final = (
    *(str, int, float, type(None), datetime.date, datetime.time, datetime.timedelta),
    *(uuid.UUID, enum.Enum, decimal.Decimal, os.PathLike),
)


class Declaration(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What one ``@emits(…)`` asks for, checked.

    Attributes:
        transaction: whose transaction the event on success is part of.
        after_commit: whose commit it waits for.
        strict: with ``transaction``, raise rather than go on without the event in it.
    """

    start: EventType | None = None
    success: EventType | None = None
    failure: EventType | None = None
    mode: Mode = "scheduled"
    artifact_id: Any = None
    organization_id: Any = None
    span: bool = True
    transaction: Any = None
    after_commit: Any = None
    strict: bool = False
    attributes: Mapping[str, Any] = msgspec.field(default_factory=dict)

    def declared(self, phase: Phase) -> EventType | None:
        """What is to be emitted in ``phase``."""
        kind: EventType | None = getattr(self, phase, None)
        return kind

    @property
    def emitted(self) -> frozenset[tuple[Phase, str]]:
        """Every event type that this declaration can emit, with its phase."""
        return frozenset((phase, each) for phase in _WHEN for each in self.types(phase))

    def types(self, phase: Phase) -> tuple[str, ...]:
        """The event types that this declaration can emit in ``phase``."""
        declared = self.declared(phase)
        if declared is None:
            return ()
        return declared.types if isinstance(declared, Choice) else (declared,)

    @property
    def joins(self) -> bool:
        """Whether the event on success depends on a transaction of the caller's."""
        return self.transaction is not None or self.after_commit is not None

    @property
    def fields(self) -> dict[str, Any]:
        """Everything that is captured, by its name."""
        ids = {"artifact_id": self.artifact_id, "organization_id": self.organization_id}
        return ids | dict(self.attributes)


def declare(
    function: str,
    success: Any,
    start: Any,
    failure: Any,
    mode: Any,
    fields: Mapping[str, Any],
    *,
    span: Any = True,
    transaction: Any = None,
    after_commit: Any = None,
    strict: Any = False,
) -> Declaration:
    """Parse the arguments of a decorator; ``function`` is what errors call the function.

    Raises:
        PointError: names the function, the argument and the remedy.
    """
    check = _Check(function)
    check.fields(fields)
    check.types(success, start, failure)
    check.mode(mode)
    if not isinstance(span, bool):
        check.refuse(f"span={span!r}", "use span=True or span=False")
    if not isinstance(strict, bool):
        check.refuse(f"strict={strict!r}", "use strict=True or strict=False")
    check.transaction(success, mode, transaction, after_commit, strict=strict)
    named = dict(fields)
    return Declaration(
        start=start,
        success=success,
        failure=failure,
        mode=mode,
        artifact_id=named.pop("artifact_id", None),
        organization_id=named.pop("organization_id", None),
        span=span,
        transaction=transaction,
        after_commit=after_commit,
        strict=strict,
        attributes=named,
    )


class _Check:
    """The checks of one decorator's arguments that need no more of the function than its name."""

    def __init__(self, function: str) -> None:
        self.function = function

    def refuse(self, problem: str, remedy: str) -> NoReturn:
        raise PointError(function=self.function, problem=problem, remedy=remedy)

    def types(self, success: Any, start: Any, failure: Any) -> None:
        if success is start is failure is None:
            self.refuse("no event is named", 'give a type: @emits("artifact_received")')
        for name, value in (("the event type", success), ("start", start), ("failure", failure)):
            for each in value.types if isinstance(value, Choice) else (value,):
                self._type(name, each)
            if isinstance(value, Choice) and not value.types:
                self.refuse(f"{name}: choose() has no cases", "give at least one value → type")
            if isinstance(value, Choice) and not is_computed(value.by):
                self.refuse(f"{name}: choose({value.by!r}, …)", "choose by arg.NAME, for example")

    def _type(self, name: str, value: Any) -> None:
        if isinstance(value, Expression):
            self.refuse(f"{name} is {value!r}", "list its values: choose(…, {value: type})")
        if value is not None and not is_type_name(value):
            self.refuse(
                f"{name} is {value!r}",
                "use a name of letters, digits and _ . - that starts with a letter, or choose(…)",
            )

    def mode(self, mode: Any) -> None:
        known = get_args(Mode)
        if mode in known:
            return
        close = _close(mode, known)
        meant = f'did you mean mode="{close}"?' if close else "use " + " or ".join(map(repr, known))
        self.refuse(f"mode={mode!r} is not known", meant)

    def transaction(
        self, success: Any, mode: Any, transaction: Any, after_commit: Any, *, strict: bool
    ) -> None:
        if strict and transaction is None:
            self.refuse("strict= goes with transaction=", "name the transaction, or leave it out")
        if transaction is not None and after_commit is not None:
            self.refuse("transaction= and after_commit= are two ways", "choose one")
        if transaction is None and after_commit is None:
            return
        name = "after_commit" if transaction is None else "transaction"
        if success is None:
            self.refuse(
                f"{name}= goes with an event on success", "give its type first, without a name"
            )
        if mode == "awaited":
            self.refuse(
                f'{name}= cannot be mode="awaited": before the commit there is nothing to wait for',
                'use mode="scheduled"',
            )

    def fields(self, fields: Mapping[str, Any]) -> None:
        for name, value in fields.items():
            if isinstance(value, str) and (meant := _ASKED_FOR.get(name)):
                self.refuse(f"{name}={value!r} is not known", meant)
            if name in _COLUMNS:
                self.refuse(f"{name}= is set by sidelight", "call the attribute something else")
            close = None
            if name not in _MISSPELT:
                close = _close(name, [n for n in _MISSPELT if n not in fields], 0.88)
            if close and not name.startswith(close):
                other = "give the attribute a name that is less like it"
                self.refuse(f"{name}= is not known", f"did you mean {close}=? If not, {other}")
            if not is_computed(value):
                self._constant(name, value)

    def _constant(self, name: str, value: Any) -> None:
        if isinstance(value, list | tuple | set | frozenset):
            inside: list[Any] = list(value)
        elif isinstance(value, Mapping):
            inside = list(value.values())
        elif isinstance(value, _CONSTANTS):
            return
        else:
            self.refuse(
                f"{name}={value!r} is nothing that can be recorded",
                "give a str, a number or the like, an expression, or a callable",
            )
        for each in inside:
            if isinstance(each, Expression):
                self.refuse(
                    f"{name}= has {each!r} inside a {type(value).__name__}",
                    "give a callable that makes the whole value",
                )
            self._constant(name, each)


def _close(name: Any, known: Any, cutoff: float = 0.6) -> str | None:
    from difflib import get_close_matches  # noqa: PLC0415  # slow to import

    found = get_close_matches(name, known, 1, cutoff) if isinstance(name, str) else []
    return found[0] if found else None


def check_fields(declaration: Declaration, signature: Signature) -> None:
    """Hold a declaration's fields against the function's parameters, and against its events.

    Raises:
        PointError: a field names what the function does not have, or what none of the declared
            events can know: the result without an event on success, the error without failure=.
    """
    names = Names()
    for name in _TRANSACTIONAL:
        transaction = getattr(declaration, name)
        if transaction_source(transaction, signature, names) is None:
            raise PointError(
                function=signature.function,
                problem=f"{name}={_told(transaction)} is not known before the call",
                remedy=f"name an argument: {name}=arg.NAME",
            )
    emitting: list[Phase] = [phase for phase in _WHEN if declaration.types(phase)]
    for name, value in declaration.fields.items():
        sources = [field_source(value, signature, phase, names) for phase in emitting]
        if value is not None and all(source is None for source in sources):
            _refuse_unavailable(signature, f"{name}={_told(value)}", emitting)
    for phase in emitting:
        declared = declaration.declared(phase)
        if not isinstance(declared, Choice):
            continue
        if field_source(declared.by, signature, phase, names) is None:
            _refuse_unavailable(signature, f"choose({_told(declared.by)}, …)", [phase])
    signature.used.clear()


def _told(value: Any) -> str:
    return repr(value) if isinstance(value, Expression) else getattr(value, "__name__", repr(value))


def _refuse_unavailable(signature: Signature, what: str, emitting: list[Phase]) -> NoReturn:
    events = " and ".join(_WHEN[phase] for phase in emitting)
    raise PointError(
        function=signature.function,
        problem=f"{what} is not known to the declared event ({events})",
        remedy="result goes with the positional type, error with failure=",
    )
