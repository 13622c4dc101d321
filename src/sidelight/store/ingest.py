"""One batch of events on its way into the tables: rows, and every counter that follows from them.

It is exact among relays that write at once. Whatever they do for one artifact is serialized by the
lock on its row in `artifacts`, which is held from the counting on: who comes second finds there,
and among the events, all that the first has done. Locks are taken in one order, events, artifacts
and counters each sorted: relays that took the same ones in another order would deadlock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from sidelight.store.partitions import first_key
from sidelight.store.rows import ARTIFACT, OCCURRED, ORGANIZATION, TYPE, Draft, Row, day_of, rows_of
from sidelight.store.schema import NOBODY, artifacts, event_counts
from sidelight.store.statements import Bulk, insert_into

_Counts: TypeAlias = Counter[tuple[str, str, str]]
"""By organization, type and day."""

_INTO_ARTIFACTS: Final = insert_into(artifacts)
_INTO_COUNTS: Final = insert_into(event_counts)


class _Named(NamedTuple):
    """An artifact whose organization has become known, and from when on it had events."""

    artifact: str
    organization: str
    since: int


def store(bulk: Bulk, drafts: Sequence[Draft], recorded_at: int) -> int:
    """Store events within the transaction, and what follows from those that are new.

    Args:
        bulk: the way of the database.
        drafts: the events, in the order of time.
        recorded_at: the time of the transaction (ns), like that of no other.

    Returns:
        How many were left out: they occurred before what the store keeps. Whether such a one was
        there before it was pruned, nobody knows any more.
    """
    kept_since = bulk.kept_since()
    left_out = bisect_left(drafts, (kept_since,))
    if left_out < len(drafts):
        _store(bulk, drafts[left_out:], recorded_at, kept_since)
    return left_out


def _store(bulk: Bulk, drafts: Sequence[Draft], recorded_at: int, kept_since: int) -> None:
    known = _known_organizations(bulk, drafts)
    named = {artifact: o for _, _, artifact, o, _, _ in reversed(drafts) if artifact and o}
    sums = _Sums()
    new = bulk.insert_new(sums.adding(rows_of(drafts, {**named, **known}, recorded_at)))
    if len(new) < sums.rows:  # some were there: counted again, without them
        sums = _Sums()
        for _ in sums.adding(new):
            pass
    if new:
        earlier = _count_artifacts(bulk, sums)
        named_late = [each for each in earlier if each.artifact not in known]
        _give_late(bulk, named_late, sums.counts, kept_since)
        bulk.run(
            *_INTO_COUNTS,
            [(*key, count) for key, count in sorted(sums.counts.items()) if count],
            "ON CONFLICT (organization_id, type, day) DO UPDATE SET"
            " count = event_counts.count + excluded.count",
        )


class _Sums:
    """What rows come to; added up while the database is busy with them.

    Attributes:
        artifacts: organization, first and last event, number of events.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.counts: _Counts = Counter()
        self.artifacts: dict[str, list[Any]] = {}

    def adding(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Pass the rows on."""
        counts, artifacts = self.counts, self.artifacts
        for row in rows:
            yield row
            artifact, organization, occurred = row[ARTIFACT], row[ORGANIZATION], row[OCCURRED]
            self.rows += 1
            counts[organization or NOBODY, row[TYPE], day_of(occurred)] += 1
            if artifact is None:
                continue
            known = artifacts.get(artifact)
            if known is None:
                artifacts[artifact] = [organization, occurred, occurred, 1]
                continue
            if known[0] is None:
                known[0] = organization
            known[2] = occurred  # they come in the order of time
            known[3] += 1


def _known_organizations(bulk: Bulk, drafts: Sequence[Draft]) -> dict[str, str]:
    """Of the artifacts that these events are about, as far as the store knows."""
    involved = {artifact for _, _, artifact, _, _, _ in drafts if artifact is not None}
    return dict(
        bulk.run(
            "SELECT artifact_id, organization_id FROM artifacts"
            " WHERE organization_id IS NOT NULL AND artifact_id IN (",
            "t",
            [(artifact,) for artifact in sorted(involved)],
            ")",
        )
    )


def _count_artifacts(bulk: Bulk, sums: _Sums) -> list[_Named]:
    """Add up the artifacts; answers those with an organization that had events before."""
    merged = bulk.run(
        *_INTO_ARTIFACTS,
        [(artifact, *each) for artifact, each in sorted(sums.artifacts.items())],
        "ON CONFLICT (artifact_id) DO UPDATE SET"
        " organization_id = coalesce(artifacts.organization_id, excluded.organization_id),"
        f" first_event_at = {bulk.least}(artifacts.first_event_at, excluded.first_event_at),"
        f" last_event_at = {bulk.most}(artifacts.last_event_at, excluded.last_event_at),"
        " events = artifacts.events + excluded.events"
        " RETURNING artifact_id, organization_id, events, first_event_at",
    )
    return [
        _Named(artifact, organization, since)
        for artifact, organization, count, since in merged
        if organization is not None and count > sums.artifacts[artifact][3]
    ]


def _give_late(bulk: Bulk, named: Iterable[_Named], counts: _Counts, kept_since: int) -> None:
    """Give earlier events of artifacts the organization that has just become known.

    By their key as well, for the sake of the partitions: most are passed over by it. What is being
    pruned is left alone.
    """
    given = bulk.run(
        "UPDATE events SET organization_id = given.column2 FROM (",
        "ttu",
        [(a, o, first_key(max(since, kept_since))) for a, o, since in sorted(named)],
        ") AS given WHERE events.artifact_id = given.column1"
        " AND events.organization_id IS NULL AND events.event_id >= given.column3"
        " RETURNING type, occurred_at, organization_id",
    )
    for type_, occurred, organization in given:
        day = day_of(occurred)
        counts[NOBODY, type_, day] -= 1
        counts[organization, type_, day] += 1
