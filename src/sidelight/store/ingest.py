"""Store one batch of events: rows, and every counter that follows from them.

The counters are exact while several relays write. The lock on an artifact's row in `artifacts`
serializes the relays that write events of that artifact, and a relay holds it until it commits.
Every relay takes its locks in the same order (events, artifacts, counters, each sorted by key),
because two relays that take the same locks in different orders deadlock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from sidelight.store.partitions import first_key
from sidelight.store.rows import (
    ARTIFACT,
    OCCURRED,
    ORGANIZATION,
    TYPE,
    Draft,
    Row,
    day_text,
    rows_of,
)
from sidelight.store.schema import NO_ORGANIZATION, artifacts, event_counts
from sidelight.store.statements import BatchStatements, insert_into

_Counts: TypeAlias = Counter[tuple[str, str, str]]
"""Number of events by organization, type and day."""

_INSERT_ARTIFACTS: Final = insert_into(artifacts)
_INSERT_COUNTS: Final = insert_into(event_counts)


class _LateOrganization(NamedTuple):
    """An artifact whose organization became known after its first events (ns) were stored."""

    artifact: str
    organization: str
    since: int


def store_events(statements: BatchStatements, drafts: Sequence[Draft], recorded_at: int) -> int:
    """Store events, and count those that are new, within the current transaction.

    Args:
        statements: the database's statements over many rows.
        drafts: the events, in the order of time.
        recorded_at: the time of the transaction (ns), unique to it.

    Returns:
        How many of the first events were left out, because they are older than the store keeps.
    """
    kept_since = statements.kept_since()
    left_out = bisect_left(drafts, (kept_since,))
    if left_out < len(drafts):
        _store(statements, drafts[left_out:], recorded_at, kept_since)
    return left_out


def _store(
    statements: BatchStatements, drafts: Sequence[Draft], recorded_at: int, kept_since: int
) -> None:
    known = _known_organizations(statements, drafts)
    named = {artifact: o for _, _, artifact, o, _, _ in reversed(drafts) if artifact and o}
    totals = _Totals()
    new = statements.insert_new(totals.adding(rows_of(drafts, {**named, **known}, recorded_at)))
    if len(new) < totals.rows:  # some rows were stored before: count only the new ones
        totals = _Totals()
        for _ in totals.adding(new):
            pass
    if new:
        earlier = _count_artifacts(statements, totals)
        late = [each for each in earlier if each.artifact not in known]
        _attribute_earlier_events(statements, late, totals.counts, kept_since)
        statements.run(
            *_INSERT_COUNTS,
            [(*key, count) for key, count in sorted(totals.counts.items()) if count],
            "ON CONFLICT (organization_id, type, day) DO UPDATE SET"
            " count = event_counts.count + excluded.count",
        )


class _Totals:
    """Totals of rows, added up while the rows are sent to the database.

    Attributes:
        rows: number of rows.
        counts: number of events by organization, type and day.
        artifacts: by artifact: organization, first and last event (ns), number of events.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.counts: _Counts = Counter()
        self.artifacts: dict[str, list[Any]] = {}

    def adding(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Yield the rows, and add each of them."""
        counts, artifacts = self.counts, self.artifacts
        for row in rows:
            yield row
            artifact, organization, occurred = row[ARTIFACT], row[ORGANIZATION], row[OCCURRED]
            self.rows += 1
            counts[organization or NO_ORGANIZATION, row[TYPE], day_text(occurred)] += 1
            if artifact is None:
                continue
            known = artifacts.get(artifact)
            if known is None:
                artifacts[artifact] = [organization, occurred, occurred, 1]
                continue
            if known[0] is None:
                known[0] = organization
            known[2] = occurred  # rows come in the order of time
            known[3] += 1


def _known_organizations(statements: BatchStatements, drafts: Sequence[Draft]) -> dict[str, str]:
    """Read the organizations of these events' artifacts that the store knows."""
    involved = {artifact for _, _, artifact, _, _, _ in drafts if artifact is not None}
    return dict(
        statements.run(
            "SELECT artifact_id, organization_id FROM artifacts"
            " WHERE organization_id IS NOT NULL AND artifact_id IN (",
            "t",
            [(artifact,) for artifact in sorted(involved)],
            ")",
        )
    )


def _count_artifacts(statements: BatchStatements, totals: _Totals) -> list[_LateOrganization]:
    """Add to the artifacts; return those that have an organization and had events before."""
    merged = statements.run(
        *_INSERT_ARTIFACTS,
        [(artifact, *each) for artifact, each in sorted(totals.artifacts.items())],
        "ON CONFLICT (artifact_id) DO UPDATE SET"
        " organization_id = coalesce(artifacts.organization_id, excluded.organization_id),"
        f" first_event_at = {statements.least}(artifacts.first_event_at, excluded.first_event_at),"
        f" last_event_at = {statements.greatest}(artifacts.last_event_at, excluded.last_event_at),"
        " events = artifacts.events + excluded.events"
        " RETURNING artifact_id, organization_id, events, first_event_at",
    )
    return [
        _LateOrganization(artifact, organization, since)
        for artifact, organization, count, since in merged
        if organization is not None and count > totals.artifacts[artifact][3]
    ]


def _attribute_earlier_events(
    statements: BatchStatements,
    late: Iterable[_LateOrganization],
    counts: _Counts,
    kept_since: int,
) -> None:
    """Give earlier events of artifacts the organization that has just become known.

    The condition on the key lets PostgreSQL skip most partitions. Events that are being pruned
    are left as they are.
    """
    updated = statements.run(
        "UPDATE events SET organization_id = given.column2 FROM (",
        "ttu",
        [(a, o, first_key(max(since, kept_since))) for a, o, since in sorted(late)],
        ") AS given WHERE events.artifact_id = given.column1"
        " AND events.organization_id IS NULL AND events.event_id >= given.column3"
        " RETURNING type, occurred_at, organization_id",
    )
    for type_, occurred, organization in updated:
        day = day_text(occurred)
        counts[NO_ORGANIZATION, type_, day] -= 1
        counts[organization, type_, day] += 1
