"""Follow artifacts from their first event of a type: what `latency` and `funnel` are made of.

An artifact belongs to the range of time in which its very first event of that type lies. It
therefore belongs to exactly one day, and the artifacts of adjacent ranges add up. Its later events
count whenever they occurred.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from sqlalchemy import select

from sidelight.store.keys import first_key
from sidelight.store.reader import checked_text, checked_time
from sidelight.store.schema import artifacts, events
from sidelight.store.selection import ORDER, Read, Row, Scan, Selection

LARGEST: Final = 10_000  # events of an artifact; one with more would hold up the answer
_LONGEST: Final = 2**63 - 1  # ns
_FIRST: Final = 100  # first events of the first window, after which a time limit may end the search
_WINDOW: Final = 1_000  # first events; all events of their artifacts are read before the next look
_ARTIFACTS: Final = 500  # whose events one query reads


def checked_event(event: Row) -> Row:
    """Return an event of an artifact.

    Raises:
        ValueError: its row has no time or no artifact, because no relay wrote it.
    """
    checked_time(event.occurred_at)
    checked_text(event.artifact_id)
    return event


class Journey(NamedTuple):
    """The events of one artifact, in the order of time.

    Attributes:
        start: the first event of the type that the journey begins with.
        events: all events, with the columns artifact_id, type, outcome, occurred_at and event_id.
        at: the index of ``start`` among them.
    """

    start: Row
    events: Sequence[Row]
    at: int

    def took(self, at: int, later: int) -> int:
        """Return the time from one event to another, in ns; at most `_LONGEST`."""
        took: int = self.events[later].occurred_at - self.events[at].occurred_at
        return min(took, _LONGEST)

    def next_step(self, at: int, types: Container[str], used: Container[int] = ()) -> int | None:
        """Return the index of the first event of one of the types that is not before another event.

        An event of the same nanosecond is not before it, whatever its id.

        Args:
            at: the index of the other event.
            types: of the wanted event.
            used: indexes of events that may not be taken again.
        """
        first = at
        while first and self.events[first - 1].occurred_at == self.events[at].occurred_at:
            first -= 1
        for index in range(first, len(self.events)):
            if self.events[index].type in types and index != at and index not in used:
                return index
        return None


class Journeys:
    """The journeys that begin with a selected event, the latest first.

    Args:
        selection: of the first events; it names their types.
        read: executes a query.
        readable: leaves out the events that `checked_event` refuses, and counts them.
        scan: the limits of the search.

    Attributes:
        large: how many artifacts were left out, because they have more than `LARGEST` events.
    """

    def __init__(
        self,
        selection: Selection,
        read: Read,
        readable: Callable[[Iterable[Row]], Sequence[Row]],
        scan: Scan,
    ) -> None:
        self._selection = selection
        self._read = read
        self._readable = readable
        self._scan = scan
        self.large = 0

    def __iter__(self) -> Iterator[Journey]:
        table = events.c
        columns = (table.artifact_id, *ORDER, table.organization_id, table.point)
        for queries in self._selection.windows(
            self._read, self._scan, first=_FIRST, largest=_WINDOW
        ):
            for conditions in queries:
                query = select(*columns).where(*conditions, table.artifact_id.is_not(None))
                starts = self._readable(self._read(query))
                for first in range(0, len(starts), _ARTIFACTS):
                    yield from self._journeys(starts[first : first + _ARTIFACTS])

    def _journeys(self, starts: Sequence[Row]) -> Iterator[Journey]:
        by_event = {row.event_id: row for row in starts}
        names = {row.artifact_id for row in starts}
        known = artifacts.c
        query = select(known.artifact_id, known.first_event_at, known.events > LARGEST)
        found = self._read(query.where(known.artifact_id.in_(names)))
        large = {name for name, _, is_large in found if is_large}
        self.large += len(large)
        # Spares PostgreSQL the partitions of earlier months. A row that no relay wrote tells none.
        firsts = [first for name, first, _ in found if type(first) is int]
        earliest = min(firsts) if len(firsts) == len(names) else 0
        table = events.c
        query = (
            select(table.artifact_id, table.type, table.outcome, *ORDER)
            .where(table.artifact_id.in_(names - large), table.event_id >= first_key(earliest))
            .order_by(table.artifact_id, *ORDER)
        )
        types = self._selection.types or ()
        for _, each in groupby(self._read(query), lambda row: str(row.artifact_id)):
            rows = self._readable(each)
            for at, row in enumerate(rows):
                if row.type in types:
                    if (start := by_event.get(row.event_id)) is not None:
                        yield Journey(start, rows, at)
                    break
