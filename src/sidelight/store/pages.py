"""Read events in the order in which they were stored, for exports that can be resumed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select

from sidelight.store.columns import EVENT_COLUMNS, PREFIX, Kind, attribute_columns
from sidelight.store.event import Event, event_from
from sidelight.store.schema import events
from sidelight.store.selection import Read, Row, Selection

if TYPE_CHECKING:
    import pyarrow as pa

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
        """The events column by column; `PREFIX` stands before the name of an attribute."""
        values: list[Sequence[Any]] = list(zip(*self.rows, strict=True))
        values = values or [() for _ in EVENT_COLUMNS]
        own = dict(zip(EVENT_COLUMNS, values, strict=True))
        more = attribute_columns(declared, own["attributes"])
        names = (f"{PREFIX}{name}" for name in declared)
        return {**own, **dict(zip(names, more, strict=True))}

    def to_arrow(self, declared: Mapping[str, Kind]) -> pa.RecordBatch:
        """The events as a batch of Arrow."""
        from sidelight.store.arrow import batch_of  # noqa: PLC0415  # an extra

        return batch_of(self.columns(declared), declared)


def pages(selection: Selection, read: Read, recorded_after: int) -> Iterator[Page]:
    """Yield the selected events that were stored after a time (ns), up to now."""
    column = events.c.recorded_at
    newest = read(select(func.max(column)))[0][0]
    conditions = selection.conditions()
    while newest is not None and recorded_after < newest:
        beyond = column > recorded_after
        bound = select(column).where(beyond).order_by(column).offset(_PAGE - 1).limit(1)
        until = next((row.recorded_at for row in read(bound)), newest)
        query = select(*(events.c[name] for name in EVENT_COLUMNS))
        query = query.where(beyond, column <= until, *conditions)
        yield Page(read(query.order_by(column, events.c.event_id)), until)
        recorded_after = until
