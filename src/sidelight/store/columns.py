"""The columns of an export: those of an event, and the attributes that a catalogue declares."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, TypeAlias, Union, get_args, get_origin

import msgspec

from sidelight.record import Declared, to_json

Kind: TypeAlias = Literal["bool", "int", "float", "text", "time", "json"]

EVENT_COLUMNS: Final = (
    "event_id",
    "type",
    "artifact_id",
    "organization_id",
    "occurred_at",
    "recorded_at",
    "point",
    "mode",
    "outcome",
    "duration",
    "trace_id",
    "span_id",
    "attributes",
)
PREFIX: Final = "attributes."
_OWN_FIELDS: Final = frozenset({"artifact_id", "organization_id"})  # have columns already
_KINDS: Final[Mapping[Any, Kind]] = {
    bool: "bool",
    int: "int",
    float: "float",
    str: "text",
    datetime: "time",
}
_INT64: Final = range(-(2**63), 2**63)


def declared_columns(declared: Iterable[Declared]) -> dict[str, Kind]:
    """Return the declared attributes by name, sorted.

    An attribute that types declare differently is JSON.
    """
    found: dict[str, Kind] = {}
    for each in declared:
        for name, field in each.payload.model_fields.items():
            kind = _kind_of(field.annotation)
            known = found.setdefault(name, kind)
            if known != kind:
                found[name] = "float" if {known, kind} == {"int", "float"} else "json"
    return {name: kind for name, kind in sorted(found.items()) if name not in _OWN_FIELDS}


def _kind_of(annotation: Any) -> Kind:
    if get_origin(annotation) is Annotated:
        return _kind_of(get_args(annotation)[0])
    if get_origin(annotation) in {Union, types.UnionType}:
        kinds: set[Kind] = {
            _kind_of(each) for each in get_args(annotation) if each is not type(None)
        }
        if kinds == {"int", "float"}:
            return "float"
        return kinds.pop() if len(kinds) == 1 else "json"
    return _KINDS.get(annotation, "json")


def attribute_columns(columns: Mapping[str, Kind], attributes: Sequence[str]) -> list[list[Any]]:
    """Return the values of each declared column, from the attributes (JSON) of several events.

    A value that is not as declared is None here; the column `attributes` still has it.
    """
    if not columns:
        return []
    decoded = [_decoded(each) for each in attributes]
    fits = [(name, _FITS[kind]) for name, kind in columns.items()]
    return [[fit(each.get(name)) for each in decoded] for name, fit in fits]


def _decoded(attributes: str) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(attributes)
    except (msgspec.DecodeError, RecursionError):  # a row that a relay did not write
        return {}
    return found if isinstance(found, dict) else {}


def _time(value: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found is not None and found.tzinfo is None else found


def _float(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        return float(value) if is_number else None
    except OverflowError:
        return None


_FITS: Final[Mapping[Kind, Callable[[Any], Any]]] = {
    "bool": lambda value: value if isinstance(value, bool) else None,
    "int": lambda value: value if type(value) is int and value in _INT64 else None,
    "float": _float,
    "text": lambda value: value if isinstance(value, str) else None,
    "time": _time,
    "json": lambda value: None if value is None else to_json(value),
}
