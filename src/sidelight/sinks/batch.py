"""One batch of events on its way into the tables: rows, and every counter that follows from them.

It is exact among relays that write at once. Whatever they do for one artifact is serialized by the
lock on its row in `artifacts`, which is held from the counting on: who comes second finds there,
and among the events, all that the first has done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from sidelight.schema import NOBODY, artifacts, event_counts
from sidelight.sinks.bulk import Bulk, insert_into
from sidelight.sinks.rows import ARTIFACT, KEY, OCCURRED, ORGANIZATION, TYPE, Row, day_of

_Counts: TypeAlias = Counter[tuple[str, str, str]]
"""By organization, type and day."""

_INTO_ARTIFACTS: Final = insert_into(artifacts)
_INTO_COUNTS: Final = insert_into(event_counts)


class Batch:
    """Events that are stored together or not at all."""

    def __init__(self, bulk: Bulk, rows: Sequence[Row]) -> None:
        self._bulk = bulk
        # Sorted, here and below: relays that take the same locks in another order would deadlock.
        self._rows: Sequence[Row] = sorted({row[KEY]: row for row in rows}.values())

    def store(self) -> None:
        """Events, then what follows from those that are new."""
        known = self._give_organizations()
        new = self._bulk.insert_new(self._rows)
        if new:
            named = self._count_artifacts(new)
            moved = self._give_late({a: o for a, o in named.items() if a not in known})
            self._count_types(new, moved)

    def _give_organizations(self) -> dict[str, str]:
        """An event without an organization takes its artifact's; answers those that were known."""
        named: dict[str, str] = {}
        involved: set[str] = set()
        nameless = False
        for row in self._rows:
            if (artifact := row[ARTIFACT]) is not None:
                involved.add(artifact)
                if (organization := row[ORGANIZATION]) is None:
                    nameless = True
                else:
                    named.setdefault(artifact, organization)
        known: dict[str, str] = dict(
            self._bulk.run(
                "SELECT artifact_id, organization_id FROM artifacts"
                " WHERE organization_id IS NOT NULL AND artifact_id IN (",
                "t",
                [(artifact,) for artifact in sorted(involved)],
                ")",
            )
        )
        if nameless and (everything := {**named, **known}):
            self._rows = [
                (*row[:ORGANIZATION], everything.get(row[ARTIFACT]), *row[OCCURRED:])
                if row[ORGANIZATION] is None
                else row
                for row in self._rows
            ]
        return known

    def _count_artifacts(self, new: Sequence[Row]) -> dict[str, str]:
        """Add up the artifacts; answers the organizations of those that were there before."""
        sums: dict[str, list[Any]] = {}
        for row in new:
            artifact, occurred = row[ARTIFACT], row[OCCURRED]
            if artifact is None:
                continue
            total = sums.get(artifact)
            if total is None:
                sums[artifact] = [row[ORGANIZATION], occurred, occurred, 1]
                continue
            if total[0] is None:
                total[0] = row[ORGANIZATION]
            if not total[1] <= occurred <= total[2]:
                total[1], total[2] = min(total[1], occurred), max(total[2], occurred)
            total[3] += 1
        merged = self._bulk.run(
            *_INTO_ARTIFACTS,
            [(artifact, *total) for artifact, total in sorted(sums.items())],
            "ON CONFLICT (artifact_id) DO UPDATE SET"
            " organization_id = coalesce(artifacts.organization_id, excluded.organization_id),"
            f" first_event_at = {self._bulk.least}(artifacts.first_event_at,"
            " excluded.first_event_at),"
            f" last_event_at = {self._bulk.most}(artifacts.last_event_at, excluded.last_event_at),"
            " events = artifacts.events + excluded.events"
            " RETURNING artifact_id, organization_id, events",
        )
        return {
            artifact: organization
            for artifact, organization, count in merged
            if organization is not None and count > sums[artifact][3]
        }

    def _give_late(self, named: dict[str, str]) -> _Counts:
        """Give earlier events of artifacts the organization that has just become known."""
        moved: _Counts = Counter()
        given = self._bulk.run(
            "UPDATE events SET organization_id = given.column2 FROM (",
            "tt",
            sorted(named.items()),
            ") AS given WHERE events.artifact_id = given.column1"
            " AND events.organization_id IS NULL"
            " RETURNING type, occurred_at, organization_id",
        )
        for type_, occurred, organization in given:
            day = day_of(occurred)
            moved[NOBODY, type_, day] -= 1
            moved[organization, type_, day] += 1
        return moved

    def _count_types(self, new: Sequence[Row], moved: _Counts) -> None:
        for row in new:
            moved[row[ORGANIZATION] or NOBODY, row[TYPE], day_of(row[OCCURRED])] += 1
        self._bulk.run(
            *_INTO_COUNTS,
            [(*key, count) for key, count in sorted(moved.items()) if count],
            "ON CONFLICT (organization_id, type, day) DO UPDATE SET"
            " count = event_counts.count + excluded.count",
        )
