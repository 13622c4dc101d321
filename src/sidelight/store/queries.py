"""`Store`: questions to an events store, and typed answers.

Each question runs in short transactions, so that a slow reader blocks no relay. An answer that is
read in several pieces is therefore no snapshot: it may or may not contain an event that is stored
meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, Unpack

from sqlalchemy import select

from sidelight.store.analysis import Analysis
from sidelight.store.arguments import Id, checked_limit
from sidelight.store.arrivals import Arrivals
from sidelight.store.columns import declared_columns
from sidelight.store.counting import count_events, count_from, counters
from sidelight.store.event import Counts, Event, Events, event_from
from sidelight.store.filters import EventFilters
from sidelight.store.pages import Page, pages
from sidelight.store.schema import events
from sidelight.store.selection import ORDER, Row, Scan, Selection
from sidelight.store.times import When, beginning_ns, day_of

if TYPE_CHECKING:
    import pyarrow as pa

    from sidelight.record import Declared
    from sidelight.store.eraser import Erasure

_SECONDS_FOR_LATEST: Final = 1.0
_TRANSACTIONS: Final = 20  # relay transactions whose events one query of `follow` reads


class Store(Analysis):
    """An events store, opened for questions. These write nothing and take no lock.

    ``with Store("sqlite:///events.db") as store: …``; several threads may use one.

    Attributes:
        url: of the store, without the password.
        unreadable: rows that answers have left out so far, by table. An event is not left out: its
            attribute ``sidelight.unreadable`` says what is wrong with its row.

    Args:
        url: ``sqlite:///events.db`` or ``postgresql://host/database``; by default
            ``SIDELIGHT_STORE``, else the file in the user's state directory.

    Raises:
        ConfigurationError: the URL names no supported store.
        StoreMissingError: the store does not exist.
        StoreVersionError: a newer sidelight made the store.
        StoreError: the store cannot be reached. Every question raises it as well.
    """

    def events(
        self,
        *,
        artifact_id: Id | None = None,
        since: When | None = None,
        until: When | None = None,
        limit: int | None = None,
        newest_first: bool = False,
        time_limit: float | None = None,
        **filters: Unpack[EventFilters],
    ) -> Events:
        """Yield events in the order in which they occurred, reading one page at a time.

        Args:
            artifact_id: only events of this artifact.
            since: only events at or after this time, or since the beginning of this day. Takes
                text and ages as well (see `When`).
            until: only events before this time, or until the end of this day.
            limit: at most this many.
            newest_first: yield the latest first.
            time_limit: end the search after this many seconds; ``left_out`` of the answer says
                which events were not examined then. Where no filter needs a search, no time limit
                is needed either: an index finds the events.
            filters: see `EventFilters`.

        Raises:
            QueryError: an argument is invalid; the error names it.
        """
        checked_limit(limit)
        scan = Scan(time_limit)
        selection = self._selection(artifact_id, since=since, until=until, **filters)
        rows = selection.find(self._read, scan, newest_first=newest_first, limit=limit)
        return Events(map(event_from, rows), scan)

    def timeline(self, artifact_id: Id, **filters: Unpack[EventFilters]) -> list[Event]:
        """Return the events of an artifact, in the order of time; empty for an unknown artifact."""
        return list(self.events(artifact_id=artifact_id, **filters))

    def counts(
        self,
        *,
        artifact_id: Id | None = None,
        since: When | None = None,
        until: When | None = None,
        time_limit: float | None = None,
        **filters: Unpack[EventFilters],
    ) -> Counts:
        """Number of events, sorted by organization, type and day.

        Counters tell the number by organization and type, also for days that were pruned. With
        another filter, the events themselves are counted, the latest first.

        Args:
            artifact_id: only events of this artifact.
            since: the first day (UTC), or a time in it.
            until: the last day (UTC), or a time in it.
            time_limit: end the count of events after this many seconds; ``left_out`` of the answer
                says which events were not counted then.
            filters: see `EventFilters`.

        Raises:
            QueryError: an argument is invalid; the error names it.
        """
        first = None if since is None else day_of("since", since)
        last = None if until is None else day_of("until", until)
        selection = self._selection(artifact_id, since=first, until=last, **filters)
        if selection.is_counted():
            rows = self._read(counters(selection, first, last))
            return Counts(self._readable("event_counts", rows, count_from))
        return count_events(selection, self._read, Scan(time_limit))

    def pages(
        self,
        *,
        recorded_after: When | int | None = None,
        artifact_id: Id | None = None,
        since: When | None = None,
        until: When | None = None,
        **filters: Unpack[EventFilters],
    ) -> Iterator[Page]:
        """Yield events in the order in which they were stored, up to now, page by page.

        A later call continues with ``recorded_after=page.recorded_until``. Relays may commit in
        another order than they began, up to 30 s apart: go back so far, and drop events that you
        have (by ``event_id``), where none may be missing.

        Args:
            recorded_after: only events that were stored after this time; an integer is ns.
            artifact_id: only events of this artifact.
            since: as in `events`.
            until: as in `events`.
            filters: see `EventFilters`.

        Raises:
            QueryError: an argument is invalid; the error names it.
        """
        selection = self._selection(artifact_id, since=since, until=until, **filters)
        after = recorded_after or 0
        if not isinstance(after, int):
            after = beginning_ns("recorded_after", after)
        return pages(selection, self._read_values, after)

    def to_arrow(
        self,
        *,
        catalogue: Iterable[Declared] = (),
        artifact_id: Id | None = None,
        since: When | None = None,
        until: When | None = None,
        **filters: Unpack[EventFilters],
    ) -> pa.RecordBatchReader:
        """Return events as Apache Arrow, read in batches in the order in which they were stored.

        pandas, polars and DuckDB read it: ``duckdb.sql("SELECT … FROM reader")``. Needs the extra
        ``sidelight[arrow]``.

        Args:
            catalogue: declared event types; each of their attributes becomes a column of its type,
                ``attributes.NAME``. The attributes as JSON are always a column.
            artifact_id: only events of this artifact.
            since: as in `events`.
            until: as in `events`.
            filters: see `EventFilters`.

        Raises:
            ConfigurationError: pyarrow is not installed.
            QueryError: an argument is invalid; the error names it.
        """
        from sidelight.store.arrow import reader_of  # noqa: PLC0415  # an extra

        declared = declared_columns(catalogue)
        read = self.pages(artifact_id=artifact_id, since=since, until=until, **filters)
        return reader_of((page.to_arrow(declared) for page in read), declared)

    def follow(
        self,
        *,
        artifact_id: Id | None = None,
        last: int = 0,
        pause: float = 0.2,
        **filters: Unpack[EventFilters],
    ) -> Iterator[Event]:
        """Yield each event that is stored from now on; endless.

        Finds events by when they were stored, not by when they occurred. It therefore misses no
        event that a relay stores late, that relays commit in another order than they began (up to
        30 s apart), or that is stored after a clock was set back.

        Args:
            artifact_id: only events of this artifact.
            last: begin with this many of the latest stored events.
            pause: seconds between two queries.
            filters: see `EventFilters`.

        Raises:
            QueryError: an argument is invalid; the error names it.
        """
        selection = self._selection(artifact_id, **filters)
        arrivals = Arrivals()
        arrivals.new(self._read)
        latest: list[Row] = []
        if last > 0:
            scan = Scan(_SECONDS_FOR_LATEST)
            found = selection.find(self._read, scan, newest_first=True, limit=last)
            latest = [row for row in found if arrivals.includes(row.recorded_at)]
        return self._follow(selection, arrivals, latest[::-1], pause)

    def erase(self, *, artifact_id: Id | None = None, organization_id: Id | None = None) -> Erasure:
        """Delete an artifact or an organization for good, in short transactions beside relays.

        Its events, artifacts and counters go, and relays drop what comes later. This does not reach
        the spool, the quarantine and outboxes; `sidelight erase` does.

        Args:
            artifact_id: the artifact.
            organization_id: the organization; with an artifact, only the artifact's events of this
                organization ("": those without one).

        Returns:
            What was deleted.

        Raises:
            QueryError: no subject is given, or the artifact has several organizations.
        """
        from sidelight.store.eraser import Eraser  # noqa: PLC0415  # it writes: seldom needed

        with Eraser(self._address) as eraser:
            plan = eraser.plan(artifact_id=artifact_id, organization_id=organization_id)
            for _ in eraser.run(plan):
                pass
            eraser.remainder()
        return plan

    def _follow(
        self, selection: Selection, arrivals: Arrivals, latest: Sequence[Row], pause: float
    ) -> Iterator[Event]:
        yield from map(event_from, latest)
        while True:
            new = arrivals.new(self._read)
            for start in range(0, len(new), _TRANSACTIONS):
                chosen = events.c.recorded_at.in_(new[start : start + _TRANSACTIONS])
                query = select(events).where(chosen, *selection.filters).order_by(*ORDER)
                yield from map(event_from, filter(selection.matches, self._read(query)))
            time.sleep(pause)
