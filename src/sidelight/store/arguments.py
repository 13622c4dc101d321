"""Check the arguments of questions; an error names the argument and the remedy."""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Final, Literal, TypeAlias
from uuid import UUID

from sidelight.exceptions import QueryError
from sidelight.record import text
from sidelight.store.keys import fit_to_index

Id: TypeAlias = str | int | UUID
Types: TypeAlias = str | Collection[str]
NameFilter: TypeAlias = Literal["type", "organization_id", "service", "host"]
OUTCOMES: Final = ("started", "succeeded", "failed", "emitted", "abandoned")


def checked_id(argument: str, value: object) -> str:
    """Make an id as the store has it.

    Raises:
        QueryError: the value is not an id.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | UUID):
        raise QueryError(
            argument=argument, problem=f"{value!r} is not an id", remedy="give text, int or UUID"
        )
    return fit_to_index(text(str(value), sys.maxsize))


def checked_names(argument: str, given: object) -> frozenset[str]:
    """Make a set of names, of types for example.

    Raises:
        QueryError: the value is neither a name nor a collection of names.
    """
    names = [given] if isinstance(given, str) else given
    if isinstance(names, Collection) and names and all(isinstance(name, str) for name in names):
        if not all(names):
            raise QueryError(
                argument=argument,
                problem=f"a name is empty in {','.join(names)!r}",
                remedy="write the name, or leave it out",
            )
        return frozenset(fit_to_index(text(name, sys.maxsize)) for name in names)
    raise QueryError(
        argument=argument,
        problem=f"{given!r} is not {_a(argument)}",
        remedy="give its name, or a list of names",
    )


def checked_outcomes(given: object) -> frozenset[str]:
    """Make a set of outcomes.

    Raises:
        QueryError: a name is not an outcome.
    """
    outcomes = checked_names("outcome", given)
    if unknown := outcomes.difference(OUTCOMES):
        raise QueryError(
            argument="outcome",
            problem=f"{min(unknown)!r} is not an outcome",
            remedy=f"give one of {', '.join(OUTCOMES)}",
        )
    return outcomes


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def checked_limit(limit: object, argument: str = "limit") -> None:
    """Check a limit.

    Raises:
        QueryError: the limit is neither None nor a positive integer.
    """
    if limit is not None and (type(limit) is not int or not 1 <= limit <= sys.maxsize):
        raise QueryError(
            argument=argument,
            problem=f"{limit!r} is not a count",
            remedy=f"give a number from 1 to {sys.maxsize}, or None",
        )


def checked_time_limit(seconds: object) -> None:
    """Check a time limit.

    Raises:
        QueryError: the limit is neither None nor a number of seconds.
    """
    if seconds is None:
        return
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and seconds >= 0:
        return
    raise QueryError(
        argument="time_limit",
        problem=f"{seconds!r} is not a number of seconds",
        remedy="give 0 or more, or None",
    )


def checked_trace(trace_id: object) -> str:
    """Make a trace's id as the store has it.

    Raises:
        QueryError: the value is not a trace's id.
    """
    if (
        isinstance(trace_id, str)
        and len(trace_id) == 32
        and set(trace_id.lower()) <= set("0123456789abcdef")
    ):
        return trace_id.lower()
    raise QueryError(
        argument="trace_id",
        problem=f"{trace_id!r} is not a trace's id",
        remedy="give 32 hexadecimal digits",
    )
