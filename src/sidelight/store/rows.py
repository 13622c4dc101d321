"""Records made into rows of the events store."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, TypeAlias

from sidelight.record import CUT, Moment, Static, event_id, occurred_at, to_json
from sidelight.store.schema import fitted

Record: TypeAlias = tuple[Static, Moment]
Row: TypeAlias = tuple[Any, ...]
"""Of `events`, in the order of its columns."""
Draft: TypeAlias = tuple[int, int, str | None, str | None, Static, Moment]
"""What will be a row: when it occurred, its random bits, artifact and organization, the rest."""
Ledger: TypeAlias = tuple[dict[str, Any], int]
"""What a process had lost and spent, and when (ns)."""

KEY: Final = 0
TYPE: Final = 1
ARTIFACT: Final = 2
ORGANIZATION: Final = 3
OCCURRED: Final = 4
RECORDED: Final = 5

_DAY: Final = 86_400_000_000_000
_name: Final = functools.lru_cache(maxsize=10_000)(fitted)
_in_order: Final = itemgetter(0, 1)


def drafts_of(records: Iterable[Record]) -> tuple[list[Draft], list[Ledger]]:
    """The events among the records, in one order that all relays keep, and the ledgers."""
    drafts: list[Draft] = []
    ledgers: list[Ledger] = []
    for static, moment in records:
        if static.type is not None:
            artifact, organization = moment.artifact_id, moment.organization_id
            drafts.append(
                (
                    occurred_at(moment),
                    moment.random,
                    None if artifact is None else _id(artifact),
                    None if organization is None else _id(organization),
                    static,
                    moment,
                )
            )
        elif static.outcome == "ledger":
            ledgers.append((moment.attributes or {}, moment.time))
    drafts.sort(key=_in_order)
    return drafts, ledgers


def rows_of(
    drafts: Sequence[Draft], organizations: Mapping[str, str], recorded_at: int
) -> Iterator[Row]:
    """The rows, each once; one without an organization takes that of its artifact."""
    last = ""
    for occurred, random, artifact, organization, static, moment in drafts:
        key = event_id(occurred, random)
        if key == last:
            continue
        last = key
        if organization is None and artifact is not None:
            organization = organizations.get(artifact)  # noqa: PLW2901
        trace = moment.trace
        yield (
            key,
            _name(static.type),
            artifact,
            organization,
            occurred,
            recorded_at,
            _name(static.point),
            static.mode,
            static.outcome,
            moment.duration,
            None if trace is None else trace.hex(),
            None if trace is None else f"{moment.span_id:016x}",
            _attributes(moment),
        )


def _id(value: Any) -> str:
    if type(value) is not str:
        value = str(value) if isinstance(value, int | float) else to_json(value)
    return fitted(value)


def _attributes(moment: Moment) -> str:
    attributes = moment.attributes
    if moment.details and (error := moment.details.get("error")) is not None:
        attributes = {**(attributes or {}), "error.type": error[0], "error.message": error[1]}
    if moment.flags & CUT:
        attributes = {**(attributes or {}), "sidelight.truncated": True}
    return to_json(attributes) if attributes else "{}"


@functools.lru_cache(maxsize=64)
def _day_text(day: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(day * 86_400))


def day_of(occurred_ns: int) -> str:
    """The day (UTC) that an event is counted under."""
    return _day_text(occurred_ns // _DAY)
