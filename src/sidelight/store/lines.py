"""Events as lines of JSON, made of the columns of many at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, get_args

import msgspec

from sidelight.record import DEEPEST, Mode, Outcome
from sidelight.store.columns import EVENT_COLUMNS
from sidelight.store.times import from_ns

_MODES: Final = frozenset(get_args(Mode))
_OUTCOMES: Final = frozenset({*get_args(Outcome), "abandoned"})
_encode_lines: Final = msgspec.json.Encoder().encode_lines
_decode_object: Final = msgspec.json.Decoder(dict).decode


class _Line(msgspec.Struct, gc=False):
    """The fields of `Event`, in its order."""

    event_id: str
    type: str
    artifact_id: str | None
    organization_id: str | None
    occurred_ns: int
    recorded_ns: int
    point: str
    mode: str
    outcome: str
    duration_ns: int | None
    trace_id: str | None
    span_id: str | None
    attributes: msgspec.Raw
    occurred_at: datetime
    recorded_at: datetime


def lines_of(values: Sequence[Sequence[Any]]) -> bytes | None:
    """Return the events as `Event` writes them, without making one of each row.

    Args:
        values: the columns, in the order of `EVENT_COLUMNS`, with values of their types.

    Returns:
        None where a row does not have the form that a relay writes.
    """
    columns = dict(zip(EVENT_COLUMNS, values, strict=True))
    attributes = columns["attributes"]
    if not (
        _MODES.issuperset(columns["mode"])
        and _OUTCOMES.issuperset(columns["outcome"])
        and _are_objects(attributes)
    ):
        return None
    *own, _ = values
    time_of = lru_cache(maxsize=1)(from_ns)  # the events of a transaction have one `recorded_at`
    times = (map(time_of, columns[name]) for name in ("occurred_at", "recorded_at"))
    return _encode_lines(map(_Line, *own, map(msgspec.Raw, attributes), *times))


def _are_objects(attributes: Iterable[str]) -> bool:
    """Return whether each is an object in one line of JSON, and not deep."""
    try:
        for each in attributes:
            _decode_object(each)
            if "\n" in each or each.count("[") + each.count("{") > DEEPEST:
                return False
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
