"""Events held against the catalogue on their way into the store: marked, never dropped."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final, TypeAlias

import msgspec

from sidelight.record import Moment, Static, event_id, occurred_at

Record: TypeAlias = tuple[Static, Moment]

INVALID: Final = "sidelight.invalid"
"""The attribute that says in words what is not as declared."""
_LONGEST: Final = 500  # characters of it


def marked(records: Sequence[Record]) -> tuple[Sequence[Record], dict[str, str]]:
    """The records, those that are not as declared marked; and what is wrong with them, by id.

    Where nothing was declared in this process, nothing is imported for it.
    """
    module = sys.modules.get("sidelight.record.event_types")
    catalogue = getattr(module, "catalogue", None)
    if not catalogue:
        return records, {}
    told: list[Record] = []
    problems: dict[str, str] = {}
    for static, moment in records:
        problem = catalogue.problem(static, moment)
        if problem is None:
            told.append((static, moment))
            continue
        problem = problem[:_LONGEST]
        key = event_id(occurred_at(moment), moment.random)
        problems[key] = f"{static.point}: {static.type}: {problem}"
        attributes = {**(moment.attributes or {}), INVALID: problem}
        told.append((static, msgspec.structs.replace(moment, attributes=attributes)))
    return told, problems
