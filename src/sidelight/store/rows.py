"""Records made into rows of the events store, and marked where they break their declaration."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, TypeAlias

import msgspec

from sidelight.host import imported
from sidelight.record import (
    CUT,
    LedgerPart,
    Moment,
    Static,
    event_id,
    ledger_part,
    occurred_at,
    to_json,
)
from sidelight.spool import Record
from sidelight.store.keys import fit_to_index

Row: TypeAlias = tuple[Any, ...]
"""A row of `events`, in the order of its columns."""
Draft: TypeAlias = tuple[int, str, str | None, str | None, Static, Moment]
"""An event before it is a row: time (ns), id, artifact, organization, and the record."""
Ledger: TypeAlias = tuple[LedgerPart, int]
"""The losses and costs of one process, and when it reported them (ns)."""

CHUNK: Final = 1000
"""Rows of one statement. In SQLite each value is a parameter."""
KEY: Final = 0
TYPE: Final = 1
ARTIFACT: Final = 2
ORGANIZATION: Final = 3
OCCURRED: Final = 4
RECORDED: Final = 5

INVALID: Final = "sidelight.invalid"
"""The attribute that says how an event breaks the declaration of its type."""
_LONGEST_PROBLEM: Final = 500  # characters
_name: Final = functools.lru_cache(maxsize=10_000)(fit_to_index)
_time_order: Final = itemgetter(0, 1)


def drafts_of(records: Iterable[Record]) -> tuple[list[Draft], list[Ledger]]:
    """Split records into events, in the order of time, and ledgers; spans alone have no row.

    Raises:
        msgspec.ValidationError: a ledger does not have the shape of one.
    """
    drafts: list[Draft] = []
    ledgers: list[Ledger] = []
    latest, is_sorted = -1, True
    for static, moment in records:
        if static.type is not None:
            artifact, organization = moment.artifact_id, moment.organization_id
            occurred = moment.time + (moment.duration or 0)
            if occurred <= latest:
                is_sorted = False
            latest = occurred
            drafts.append(
                (
                    occurred,
                    event_id(occurred, moment.random),
                    _name(artifact) if type(artifact) is str else _id(artifact),
                    _name(organization) if type(organization) is str else _id(organization),
                    static,
                    moment,
                )
            )
        elif static.outcome == "ledger":
            ledgers.append((ledger_part(moment), moment.time))
    if not is_sorted:
        drafts.sort(key=_time_order)
    return drafts, ledgers


def rows_of(
    drafts: Sequence[Draft],
    organizations: Mapping[str | None, str],
    recorded_at: int,
    recordings: Mapping[str, int] | None = None,
) -> Iterator[list[Row]]:
    """Yield a row for each draft, in chunks, so that the next is made while the database is busy.

    An event without an organization takes its artifact's.

    Args:
        drafts: the events.
        organizations: by artifact.
        recorded_at: when all of them are recorded (ns).
        recordings: when each of them is recorded (ns), by event id, where the times differ.
    """
    for start in range(0, len(drafts), CHUNK):
        yield [
            (
                key,
                _name(static.type),
                artifact,
                organizations.get(artifact) if organization is None else organization,
                occurred,
                recorded_at if recordings is None else recordings[key],
                _name(static.point),
                static.mode,
                static.outcome,
                moment.duration,
                None if (trace := moment.trace) is None else trace.hex(),
                None if trace is None else moment.span_id.to_bytes(8, "big").hex(),
                attributes_text(moment),
            )
            for occurred, key, artifact, organization, static, moment in drafts[
                start : start + CHUNK
            ]
        ]


def mark_undeclared(records: Sequence[Record]) -> tuple[Sequence[Record], dict[str, str]]:
    """Mark events that break the declaration of their type; drop none.

    Imports nothing where this process has declared no event types.

    Returns:
        The records, and the problems by event id.
    """
    module = imported("sidelight.record.event_types")
    catalogue = getattr(module, "catalogue", None)
    if not catalogue:
        return records, {}
    marked: list[Record] = []
    problems: dict[str, str] = {}
    for static, moment in records:
        problem = catalogue.problem(static, moment)
        if problem is None:
            marked.append((static, moment))
            continue
        problem = problem[:_LONGEST_PROBLEM]
        key = event_id(occurred_at(moment), moment.random)
        problems[key] = f"{static.point}: {static.type}: {problem}"
        attributes = {**(moment.attributes or {}), INVALID: problem}
        marked.append((static, msgspec.structs.replace(moment, attributes=attributes)))
    return marked, problems


def _id(value: Any) -> str | None:
    return None if value is None else id_text(value)


def id_text(value: Any) -> str:
    """Return the text of an artifact's or an organization's id, as the store keys by it."""
    if type(value) is not str:
        value = str(value) if isinstance(value, int | float) else to_json(value)
    return fit_to_index(value)


def attributes_text(moment: Moment) -> str:
    """Return the attributes of an event as JSON, with its error and the mark of a cut event."""
    attributes = moment.attributes
    if moment.details and (error := moment.details.get("error")) is not None:
        attributes = {**(attributes or {}), "error.type": error[0], "error.message": error[1]}
    if moment.flags & CUT:
        attributes = {**(attributes or {}), "sidelight.truncated": True}
    return to_json(attributes) if attributes else "{}"
