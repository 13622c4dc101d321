"""Read events in the order in which they were stored, for exports that can be resumed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select

from sidelight.record import to_json
from sidelight.store.columns import EVENT_COLUMNS, PREFIX, Kind, attribute_columns
from sidelight.store.event import Event, event_from
from sidelight.store.schema import events
from sidelight.store.selection import Read, Row, Selection

if TYPE_CHECKING:
    import pyarrow as pa

_TYPES: Final = frozenset({int, str, type(None)})
_NUMBERS: Final = frozenset({int, type(None)})
_NUMERIC: Final = [EVENT_COLUMNS.index(name) for name in ("occurred_at", "recorded_at", "duration")]
_LAST: Final = 2**63 - 1  # ns; in SQLite a text is greater than any number
_PAGE: Final = 20_000  # events; a page has whole transactions of relays, so that it may have more


@dataclass(frozen=True, slots=True)
class Page:
    """Events that were stored one after the other.

    Attributes:
        recorded_until: every event that was stored up to this time (ns) is in this page or in one
            before it.
    """

    rows: Sequence[Row]
    recorded_until: int

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def events(self) -> list[Event]:
        """The events."""
        return [event_from(row) for row in self.rows]

    def columns(self, declared: Mapping[str, Kind]) -> dict[str, Sequence[Any]]:
        """Return the events column by column; `PREFIX` stands before the name of an attribute."""
        values: list[Sequence[Any]] = list(zip(*self.rows, strict=True))
        if any(not _TYPES.issuperset(map(type, each)) for each in values) or any(
            not _NUMBERS.issuperset(map(type, values[at])) for at in _NUMERIC if values
        ):  # a row that sidelight did not write
            values = list(zip(*map(_plain, self.events), strict=True))
        values = values or [() for _ in EVENT_COLUMNS]
        own = dict(zip(EVENT_COLUMNS, values, strict=True))
        more = attribute_columns(declared, own["attributes"])
        names = (f"{PREFIX}{name}" for name in declared)
        return {**own, **dict(zip(names, more, strict=True))}

    def to_arrow(self, declared: Mapping[str, Kind]) -> pa.RecordBatch:
        """Return the events as a batch of Arrow."""
        from sidelight.store.arrow import batch_of  # noqa: PLC0415  # an extra

        return batch_of(self.columns(declared), declared)


def _plain(event: Event) -> tuple[Any, ...]:
    """Return the columns of an event."""
    of: dict[str, Any] = {
        "occurred_at": event.occurred_ns,
        "recorded_at": event.recorded_ns,
        "duration": event.duration_ns,
        "attributes": to_json(event.attributes),
    }
    return tuple(of[name] if name in of else getattr(event, name) for name in EVENT_COLUMNS)


def pages(selection: Selection, read: Read, recorded_after: int) -> Iterator[Page]:
    """Yield the selected events that were stored after a time (ns), up to now."""
    column = events.c.recorded_at
    newest = read(select(func.max(column)).where(column <= _LAST))[0][0]
    conditions = selection.conditions()
    wanted = select(*(events.c[name] for name in EVENT_COLUMNS)).where(*conditions)
    while newest is not None and recorded_after < newest:
        beyond = column > recorded_after
        bound = select(column).where(beyond).order_by(column).offset(_PAGE - 1).limit(1)
        until = next((row.recorded_at for row in read(bound)), newest)
        query = wanted.where(beyond, column <= until)
        yield Page(read(query.order_by(column, events.c.event_id)), until)
        recorded_after = until
    if timeless := read(wanted.where(column > _LAST)):
        yield Page(timeless, recorded_after)
