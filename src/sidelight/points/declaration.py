"""Declarations: the arguments of a decorator or the table of a map, checked.

Only checks that need no more of the function than its name are here. `fields` checks the values of
fields against the function's parameters.
"""

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
from sidelight.points.expressions import Choice, Expression, Phase, is_computed
from sidelight.record import STORE_COLUMNS, Mode, is_type_name

EventType: TypeAlias = str | Choice
EVENT_PHASES: Final[Mapping[Phase, str]] = {
    "start": "start=, before the call",
    "success": "the positional type, on success",
    "failure": "failure=, when it raises",
}
"""The phases that can have an event, with the argument that declares it."""
_SHOWN: Final = 60  # characters of a value in an error
OPTIONS: Final = frozenset(
    {"start", "failure", "mode", "span", "transaction", "after_commit", "strict"}
)
"""Names of options. Attributes of these names are given in ``attributes={…}``."""
#: Names that look like options. As attributes they are refused where their value is a text.
_LIKE_OPTIONS: Final = {
    **dict.fromkeys(("type", "success", "succeeded"), "give the type first, without a name"),
    **dict.fromkeys(("failed", "failures", "on_failure", "fail"), "did you mean failure=?"),
    **dict.fromkeys(("starts", "strat", "on_start", "started"), "did you mean start=?"),
    **dict.fromkeys(("modes",), "did you mean mode=?"),
}
_OFTEN_MISSPELT: Final = (
    *("failure", "artifact_id", "organization_id", "after_commit", "transaction"),
)
_CONSTANTS: Final = (
    *(str, int, float, type(None), datetime.date, datetime.time, datetime.timedelta),
    *(uuid.UUID, enum.Enum, decimal.Decimal, os.PathLike),
)


class Declaration(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The arguments of one ``@emits(…)``, checked.

    Attributes:
        start, success, failure: the event type of each phase; None where it emits nothing.
        transaction: gives the session or connection whose transaction gets the event on success.
        after_commit: gives the session or connection whose commit emits the event on success.
        strict: with ``transaction``, raise where the event cannot be in the transaction.
        attributes: every other field, by its name.
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
        """Return the event type of ``phase``, or the choice that gives it."""
        kind: EventType | None = getattr(self, phase, None)
        return kind

    @property
    def emitted(self) -> frozenset[tuple[Phase, str]]:
        """Every event type that this declaration can emit, with its phase."""
        return frozenset((phase, each) for phase in EVENT_PHASES for each in self.types(phase))

    def types(self, phase: Phase) -> tuple[str, ...]:
        """Return the event types that this declaration can emit in ``phase``."""
        declared = self.declared(phase)
        if declared is None:
            return ()
        return declared.types if isinstance(declared, Choice) else (declared,)

    @property
    def joins(self) -> bool:
        """Whether the event on success depends on a transaction of the caller."""
        return self.transaction is not None or self.after_commit is not None

    @property
    def fields(self) -> dict[str, Any]:
        """Every field of an event, by its name."""
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
    attributes: Any = None,
    span: Any = True,
    transaction: Any = None,
    after_commit: Any = None,
    strict: Any = False,
) -> Declaration:
    """Check the arguments of a decorator; errors call the function ``function``.

    Raises:
        PointError: names the function, the argument and the remedy.
    """
    check = _Check(function)
    check.names(fields)
    check.attributes(attributes, fields)
    fields = {**fields, **(attributes or {})}
    check.values(fields)
    check.types(success, start, failure)
    check.mode(mode)
    check.switch("span", span)
    check.switch("strict", strict)
    check.transaction(success, mode, transaction, after_commit, strict=strict)
    named = {str.__str__(name): value for name, value in fields.items()}  # no subclass of str
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


def check_emission(
    type_: Any,
    mode: Any,
    fields: Mapping[str, Any],
    attributes: Any,
    transaction: Any,
    after_commit: Any,
    *,
    strict: Any,
) -> None:
    """Check the arguments of `emit` as those of the decorator, its values excepted.

    Raises:
        PointError: names the argument and the remedy.
    """
    check = _Check("emit")
    check.names(fields)
    check.attributes(attributes, fields)
    check.types(type_, None, None)
    check.mode(mode)
    check.switch("strict", strict)
    check.transaction(type_, mode, transaction, after_commit, strict=strict)


class _Check:
    """The checks of the arguments of one decorator."""

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
                self.refuse(
                    f"{name}: choose({_shown(value.by)}, …)", "choose by arg.NAME, for example"
                )

    def _type(self, name: str, value: Any) -> None:
        if isinstance(value, Expression):
            remedy = "list its values: choose(…, {value: type})"
            if name in {"start", "failure"}:
                remedy += f'; for an attribute: attributes={{"{name}": …}}'
            self.refuse(f"{name} is {_shown(value)}", remedy)
        if value is not None and not is_type_name(value):
            self.refuse(
                f"{name} is {_shown(value)}",
                "use a name of letters, digits and _ . - (at most 128) that starts with a letter,"
                " or choose(…)",
            )

    def mode(self, mode: Any) -> None:
        known = get_args(Mode)
        if isinstance(mode, str) and mode in known:
            return
        self._computed("mode", mode)
        close = _close(mode, known)
        meant = f'did you mean mode="{close}"?' if close else "use " + " or ".join(map(repr, known))
        self.refuse(f"mode={_shown(mode)} is not known", meant)

    def switch(self, name: str, value: Any) -> None:
        if isinstance(value, bool):
            return
        self._computed(name, value)
        self.refuse(f"{name}={_shown(value)}", f"use {name}=True or {name}=False")

    def _computed(self, name: str, value: Any) -> None:
        if isinstance(value, Expression):
            problem = f"{name}={_shown(value)}, but {name}= is an option"
            self.refuse(problem, f'for an attribute: attributes={{"{name}": …}}')

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

    def attributes(self, attributes: Any, fields: Mapping[str, Any]) -> None:
        if not isinstance(attributes, Mapping | None):
            self.refuse(f"attributes={_shown(attributes)} is no mapping", 'write {"name": value}')
        for name in attributes or ():
            if not isinstance(name, str) or not name:
                self.refuse(
                    f"attributes= has the name {_shown(name)}", "give a text that is not empty"
                )
            if name in {"artifact_id", "organization_id"}:
                self.refuse(f"attributes= has {name}", f"give {name}= as an argument of its own")
            if name in fields:
                self.refuse(f"{name} is given twice, also in attributes=", "give it once")
            self._column(name)

    def _column(self, name: str) -> None:
        if name in STORE_COLUMNS:
            self.refuse(f"{name}= is set by sidelight", "call the attribute something else")

    def names(self, fields: Mapping[str, Any]) -> None:
        for name, value in fields.items():
            if isinstance(value, str) and (meant := _LIKE_OPTIONS.get(name)):
                self.refuse(f"{name}={_shown(value)} is not known", meant)
            self._column(name)
            close = None
            if name not in _OFTEN_MISSPELT:
                close = _close(name, [n for n in _OFTEN_MISSPELT if n not in fields], 0.88)
            if close and not name.startswith(close):
                other = "give the attribute a name that is less like it"
                self.refuse(f"{name}= is not known", f"did you mean {close}=? If not, {other}")

    def values(self, fields: Mapping[str, Any]) -> None:
        for name, value in fields.items():
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
                f"{name}={_shown(value)} is nothing that can be recorded",
                "give a str, a number or the like, an expression, or a callable",
            )
        for each in inside:
            if isinstance(each, Expression):
                self.refuse(
                    f"{name}= has {_shown(each)} inside a {type(value).__name__}",
                    "give a callable that makes the whole value",
                )
            self._constant(name, each)


def _shown(value: Any) -> str:
    """Return what an error shows of a value of the user's: at most a line of it."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _close(name: Any, known: Any, cutoff: float = 0.6) -> str | None:
    known = [each for each in known if _may_be_close(name, each, cutoff)]
    if not known:
        return None
    from difflib import get_close_matches  # noqa: PLC0415  # slow to import

    found = get_close_matches(name, known, 1, cutoff) if isinstance(name, str) else []
    return found[0] if found else None


def _may_be_close(name: Any, other: str, cutoff: float) -> bool:
    """Return whether two names have enough letters in common; quick, because most have not."""
    if not isinstance(name, str):
        return False
    common = sum(min(name.count(letter), other.count(letter)) for letter in set(name))
    return 2 * common >= cutoff * (len(name) + len(other))
