"""Read events in the order in which they were stored, for exports that can be resumed."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from sqlalchemy import Executable, func, select

from sidelight.record import to_json
from sidelight.store.columns import EVENT_COLUMNS, PREFIX, Kind, attribute_columns
from sidelight.store.event import Event, event_from
from sidelight.store.lines import lines_of
from sidelight.store.schema import events
from sidelight.store.selection import Selection
from sidelight.store.tables import EVENTS

if TYPE_CHECKING:
    import pyarrow as pa

Values: TypeAlias = tuple[Any, ...]
"""A row of the driver: a row of SQLAlchemy costs as much again as reading it."""

_TYPES: Final = [
    frozenset({int if column.kind == "n" else str, *([type(None)] if column.optional else [])})
    for column in EVENTS.columns
]
_LAST: Final = 2**63 - 1  # ns; in SQLite a text is greater than any number
_PAGE: Final = 20_000  # events; a page has whole transactions of relays, so that it may have more
_Row = namedtuple("_Row", EVENT_COLUMNS)  # type: ignore[misc]  # noqa: PYI024


@dataclass(frozen=True, slots=True)
class Page:
    """Events that were stored one after the other.

    Attributes:
        rows: their values, in the order of `EVENT_COLUMNS`.
        recorded_until: every event that was stored up to this time (ns) is in this page or in one
            before it.
    """

    rows: Sequence[Values]
    recorded_until: int

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def events(self) -> list[Event]:
        """The events."""
        return [*map(event_from, map(_Row._make, self.rows))]

    def columns(self, declared: Mapping[str, Kind]) -> dict[str, Sequence[Any]]:
        """Return the events column by column; `PREFIX` stands before the name of an attribute."""
        values = self._values()
        if values is None:
            values = list(zip(*map(_plain, self.events), strict=True))
        own = dict(zip(EVENT_COLUMNS, values, strict=True))
        more = attribute_columns(declared, own["attributes"])
        names = (f"{PREFIX}{name}" for name in declared)
        return {**own, **dict(zip(names, more, strict=True))}

    def to_arrow(self, declared: Mapping[str, Kind]) -> pa.RecordBatch:
        """Return the events as a batch of Arrow."""
        from sidelight.store.arrow import batch_of  # noqa: PLC0415  # an extra

        return batch_of(self.columns(declared), declared)

    def to_json_lines(self) -> bytes:
        """Return each event as a line of JSON, as ``model_dump_json`` of `Event` writes it."""
        values = self._values()
        lines = None if values is None else lines_of(values)
        if lines is None:
            lines = b"".join(b"%s\n" % each.model_dump_json().encode() for each in self.events)
        return lines

    def _values(self) -> list[Sequence[Any]] | None:
        """Return the values column by column; None where sidelight did not write one of them."""
        values: list[Sequence[Any]] = list(zip(*self.rows, strict=True)) or [()] * len(_TYPES)
        each = zip(_TYPES, values, strict=True)
        return (
            values if all(types.issuperset(map(type, column)) for types, column in each) else None
        )


def _plain(event: Event) -> tuple[Any, ...]:
    """Return the columns of an event."""
    of: dict[str, Any] = {
        "occurred_at": event.occurred_ns,
        "recorded_at": event.recorded_ns,
        "duration": event.duration_ns,
        "attributes": to_json(event.attributes),
    }
    return tuple(of[name] if name in of else getattr(event, name) for name in EVENT_COLUMNS)


def pages(
    selection: Selection, read: Callable[[Executable], Sequence[Values]], recorded_after: int
) -> Iterator[Page]:
    """Yield the selected events that were stored after a time (ns), up to now."""
    column = events.c.recorded_at
    newest = read(select(func.max(column)).where(column <= _LAST))[0][0]
    conditions = selection.conditions()
    wanted = select(*(events.c[name] for name in EVENT_COLUMNS)).where(*conditions)
    while newest is not None and recorded_after < newest:
        beyond = column > recorded_after
        bound = select(column).where(beyond).order_by(column).offset(_PAGE - 1).limit(1)
        until = next((row[0] for row in read(bound)), newest)
        query = wanted.where(beyond, column <= until)
        yield Page(read(query.order_by(column, events.c.event_id)), until)
        recorded_after = until
    if timeless := read(wanted.where(column > _LAST)):
        yield Page(timeless, recorded_after)
