"""Questions of `Store` about the way of artifacts: where the time goes, how many get through."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
from typing import Unpack

from sidelight.exceptions import QueryError
from sidelight.record import Expectation
from sidelight.store.arguments import Id, Types, checked_names
from sidelight.store.filters import Filters
from sidelight.store.funnel import Funnel, funnel_of
from sidelight.store.inventory import Inventory
from sidelight.store.journeys import Journeys, checked_event
from sidelight.store.latency import Grouping, Latencies, checked_grouping, latencies
from sidelight.store.overdue import Judgement, Mark, judge, marks_of
from sidelight.store.selection import Row, Scan
from sidelight.store.times import When


class Analysis(Inventory):
    """Questions about the way of artifacts from event to event."""

    def _timed(self, rows: Iterable[Row]) -> Sequence[Row]:
        return self._readable("events", rows, checked_event)

    def latency(
        self,
        start: Types,
        end: Types,
        *,
        by: Sequence[Grouping] = (),
        since: When | None = None,
        until: When | None = None,
        time_limit: float | None = None,
        **filters: Unpack[Filters],
    ) -> Latencies:
        """Return how long artifacts take from one event to another, and how many still wait.

        Each artifact counts once: from its first event of the type ``start`` to its first event of
        the type ``end`` that is not earlier. Clocks are those of the processes that emitted.

        Args:
            start: the type of the first event, or several types.
            end: the type of the second event, or several types.
            by: group by "organization", "day" (UTC) and "point" of the first event.
            since: only artifacts whose first event of the type ``start`` is at or after this time.
            until: only those before this time. The second event may be later.
            time_limit: end the search after this many seconds; ``left_out`` of the answer says
                which artifacts were not examined then.
            filters: conditions on the first event; see `Filters`.

        Raises:
            QueryError: an argument is invalid; the error names it.
        """
        groups, ends = checked_grouping(by), checked_names("end", end)
        scan = Scan(time_limit)
        checked_names("start", start)
        selection = self._selection(type=start, since=since, until=until, **filters)
        return latencies(Journeys(selection, self._read, self._timed, scan), ends, groups, scan)

    def funnel(
        self,
        steps: Sequence[Types],
        *,
        since: When | None = None,
        until: When | None = None,
        time_limit: float | None = None,
        **filters: Unpack[Filters],
    ) -> Funnel:
        """Return how many artifacts reach each step, in what time, and where the others stand.

        An artifact reaches the first step with its first event of that type. It reaches each other
        step with its first event of that step's types that is not earlier than the event of the
        step before. Each event reaches one step at most.

        Args:
            steps: the type of each step, or several types. At least one step.
            since: only artifacts that reach the first step at or after this time.
            until: only those before this time. The later steps may be later.
            time_limit: as in `latency`.
            filters: conditions on the event of the first step; see `Filters`.

        Raises:
            QueryError: an argument is invalid; the error names it.
        """
        checked = [checked_names("steps", each) for each in steps]
        if not checked:
            raise QueryError(argument="steps", problem="there is none", remedy="give some types")
        scan = Scan(time_limit)
        selection = self._selection(type=checked[0], since=since, until=until, **filters)
        return funnel_of(Journeys(selection, self._read, self._timed, scan), checked, scan)

    def overdue(
        self,
        expectations: Iterable[Expectation],
        *,
        artifact_id: Id | None = None,
        since: When | None = timedelta(days=7),
        time_limit: float | None = None,
        without: Collection[str] = (),
        waiting: Collection[Mark] = (),
        **filters: Unpack[Filters],
    ) -> Judgement:
        """Return the artifacts whose expectation was not met, and those where it is unknown.

        Nothing is judged beyond what has been delivered: where a process is silent, or its
        delivery is behind, the answer is "unknown", with the reason.

        Args:
            expectations: of a map (`read_map`) or a catalogue (``catalogue.expectations``).
            artifact_id: only this artifact.
            since: only artifacts whose wait began at or after this time.
            time_limit: as in `latency`, for each expectation.
            without: ids of processes from which nothing more is expected, such as those of a
                machine that is gone.
            waiting: further limits of the delivery, such as records in a spool of this machine. The
                limit of a process stands in the place of the store's own.
            filters: conditions on the event that begins the wait; see `Filters`.

        Raises:
            QueryError: an argument is invalid; the error names it.
        """
        now = time.time_ns()
        # Read first: what comes between the two reads is judged by the next call.
        given = [mark for mark in waiting if mark.process not in without]
        marks = marks_of(self._running(), {*without, *(mark.process for mark in given)}, now)
        marks += given
        expected = []
        for each in expectations:
            scan = Scan(time_limit)
            selection = self._selection(artifact_id, type=each.after, since=since, **filters)
            expected.append((each, Journeys(selection, self._read, self._timed, scan), scan))
        return judge(expected, marks, now)
