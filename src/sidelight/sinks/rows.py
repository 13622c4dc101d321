"""Records made into rows of the events store."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable
from typing import Any, Final, TypeAlias

import msgspec

from sidelight.record import CUT, Moment, Static, event_id, occurred_at
from sidelight.schema import fitted

Row: TypeAlias = tuple[Any, ...]
"""Of `events`, in the order of its columns."""
Ledger: TypeAlias = tuple[dict[str, Any], int]
"""What a process had lost and spent, and when (ns)."""

KEY: Final = 0
TYPE: Final = 1
ARTIFACT: Final = 2
ORGANIZATION: Final = 3
OCCURRED: Final = 4
RECORDED: Final = 5

_DAY: Final = 86_400_000_000_000
to_json: Final = msgspec.json.Encoder(enc_hook=repr).encode
_name: Final = functools.lru_cache(maxsize=10_000)(fitted)


def rows_of(records: Iterable[tuple[Static, Moment]]) -> tuple[list[Row], list[Ledger]]:
    """Rows of `events` for the events among the records, and the ledgers among them."""
    rows: list[Row] = []
    ledgers: list[Ledger] = []
    recorded_at = time.time_ns()
    for static, moment in records:
        if static.type is None:
            if static.outcome == "ledger":
                ledgers.append((moment.attributes or {}, moment.time))
            continue
        occurred = occurred_at(moment)
        trace = moment.trace
        rows.append(
            (
                event_id(occurred, moment.random),
                _name(static.type),
                _id(moment.artifact_id),
                _id(moment.organization_id),
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
        )
    return rows, ledgers


def _id(value: Any) -> str | None:
    if value is None:
        return None
    if type(value) is not str:
        value = str(value) if isinstance(value, int | float) else to_json(value).decode()
    return fitted(value)


def _attributes(moment: Moment) -> str:
    attributes = moment.attributes
    error = moment.details.get("error") if moment.details else None
    if error is not None:
        attributes = {**(attributes or {}), "error.type": error[0], "error.message": error[1]}
    if moment.flags & CUT:
        attributes = {**(attributes or {}), "sidelight.truncated": True}
    return to_json(attributes).decode() if attributes else "{}"


@functools.lru_cache(maxsize=64)
def _day_text(day: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(day * 86_400))


def day_of(occurred_ns: int) -> str:
    """The day (UTC) that an event is counted under."""
    return _day_text(occurred_ns // _DAY)
