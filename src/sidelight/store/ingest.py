"""Store one batch of events: rows, and every counter that follows from them.

The counters are exact while several relays write. A relay first locks the rows of its artifacts,
and holds them until it commits. It attributes events from what these rows say then: an event
without an organization gets its artifact's, if the artifact has exactly one. Every relay takes its
locks in the same order (artifacts, events, counters, each sorted by key), because two relays that
take the same locks in different orders deadlock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sidelight.store.database import Connection, RowsSkippedError
from sidelight.store.erasure import (
    Sifted,
    Subject,
    claim_earlier_events,
    delete_events,
    erased_of,
    settle_artifacts,
    sift,
    take_off_artifacts,
)
from sidelight.store.keys import first_key
from sidelight.store.proved import check_changed, delete_all, put_all
from sidelight.store.rows import ARTIFACT, Draft, Row, rows_of
from sidelight.store.statements import BatchStatements, Delivery, put_missing
from sidelight.store.tables import ARTIFACTS, ATTRIBUTION_WORK, EVENTS
from sidelight.store.tally import Tally, add_to_counters, tally_move, tally_rows

STEP: Final = 2_000
"""Earlier events that one transaction gives an organization."""
_LOCK_OWNER: Final = (
    "SELECT organization_id, ambiguous FROM artifacts WHERE artifact_id = ? FOR UPDATE"
)
_IS_EARLIER: Final = (
    "events.artifact_id = given.column1 AND events.organization_id IS NULL"
    " AND events.event_id >= given.column3"
)
_IS_GIVEN: Final = "events.event_id = given.column1 AND events.organization_id IS NULL"
_EARLIER_EVENTS: Final = (
    "SELECT CAST(event_id AS TEXT), type, occurred_at FROM events WHERE artifact_id = ?"
    " AND organization_id IS NULL AND occurred_at >= ? AND event_id >= ?"
    " ORDER BY occurred_at LIMIT ?"
)


class _Artifact(NamedTuple):
    """An artifact's row after this transaction's events were counted; times in ns."""

    artifact: str
    organization: str | None
    is_ambiguous: int
    events: int
    since: int


class _Rows(NamedTuple):
    """What the rows of events are made of: see `rows_of`."""

    drafts: Sequence[Draft]
    recorded_at: int
    recordings: Mapping[str, int] | None


class Stored(NamedTuple):
    """What `store_events` has left to do.

    Attributes:
        left_out: how many of the first events are older than the store keeps, and not stored.
        has_noted_work: `attribute_step` has more to do.
        new: the rows that were not stored before.
        erased: events that are not stored, because what they belong to was erased.
    """

    left_out: int = 0
    has_noted_work: bool = False
    new: Sequence[Row] = ()
    erased: Sequence[Draft] = ()


def store_events(
    statements: BatchStatements,
    drafts: Sequence[Draft],
    recorded_at: int,
    deliveries: Sequence[Delivery] = (),
    recordings: Mapping[str, int] | None = None,
) -> Stored:
    """Store events, and count those that are new, within the current transaction.

    Args:
        statements: the database's statements over many rows.
        drafts: the events, in the order of time.
        recorded_at: the time of the transaction (ns), unique to it.
        deliveries: the processes that emitted them, as far as they are known.
        recordings: event id → ``recorded_at`` of its process, where there are several.
    """
    if not drafts:
        return Stored()
    marks = statements.marks(deliveries)
    left_out = bisect_left(drafts, (marks.kept_since,))
    sifted = Sifted(drafts[left_out:])
    if marks.erasures:
        sifted = sift(statements, sifted.kept)
    has_noted_work = False
    new: Sequence[Row] = ()
    if sifted.kept:
        rows = _Rows(sifted.kept, recorded_at, recordings)
        has_noted_work, new = _store(statements, rows, marks.kept_since)
    if sifted.owners:
        has_noted_work |= claim_earlier_events(statements, sifted.owners, recorded_at)
    return Stored(left_out, has_noted_work, new, sifted.erased)


def _store(
    statements: BatchStatements, given: _Rows, kept_since: int
) -> tuple[bool, Sequence[Row]]:
    drafts, sums = _unique(given.drafts)
    known = _artifacts_with_organization(statements, sums)
    artifacts = _count_artifacts(statements, sums)  # locks their rows until the commit
    owners: dict[str | None, str] = {
        each.artifact: each.organization
        for each in artifacts
        if each.organization is not None and not each.is_ambiguous
    }
    counts: Tally = Counter()
    rows = rows_of(drafts, owners, given.recorded_at, given.recordings)
    new = statements.insert_new(_counted(rows, counts))
    if len(new) < len(drafts):  # some rows were stored before: count only the new ones
        counts.clear()
        tally_rows(counts, new)
        _subtract_duplicates(statements, sums, new)
    late = [
        _Late(each.artifact, owners[each.artifact], max(each.since, kept_since), earlier)
        for each in artifacts
        if sums[each.artifact].organization is not None  # else no event here has named it
        and each.artifact in owners
        and each.artifact not in known
        and (earlier := each.events - sums[each.artifact].events)
    ]
    has_noted_work = _attribute_earlier_events(statements, late, counts)
    add_to_counters(statements, counts)
    return has_noted_work, new


@dataclass(slots=True)
class _Sum:
    """What the events of one artifact add to its row; times in ns."""

    organization: str | None
    first: int
    last: int
    events: int = 1
    is_ambiguous: int = 0


class _Late(NamedTuple):
    """An artifact whose organization became known after some of its events were stored."""

    artifact: str
    organization: str
    since: int
    earlier: int


def _counted(chunks: Iterable[list[Row]], counts: Tally) -> Iterator[list[Row]]:
    """Yield chunks of rows, and count their events."""
    for chunk in chunks:
        yield chunk
        tally_rows(counts, chunk)


def _unique(drafts: Sequence[Draft]) -> tuple[Sequence[Draft], dict[str, _Sum]]:
    """Leave out repetitions, and sum up the rest by artifact."""
    unique: list[Draft] = []
    sums: dict[str, _Sum] = {}
    last = ""
    for draft in drafts:
        occurred, key, artifact, organization, _, _ = draft
        if key == last:
            continue
        last = key
        unique.append(draft)
        if artifact is None:
            continue
        known = sums.get(artifact)
        if known is None:
            sums[artifact] = _Sum(organization, occurred, occurred)
            continue
        known.last = occurred  # drafts come in the order of time
        known.events += 1
        if organization is not None and organization != known.organization:
            if known.organization is None:
                known.organization = organization
            else:
                known.is_ambiguous = 1
    return unique, sums


def _artifacts_with_organization(statements: BatchStatements, sums: Mapping[str, _Sum]) -> set[str]:
    """Read which of the artifacts that are named here have an organization already.

    The rows are not locked yet. An organization that another relay names meanwhile only causes
    work that finds nothing to do, because an artifact never loses its organization.
    """
    named = [(name,) for name, each in sorted(sums.items()) if each.organization is not None]
    found = statements.run(
        "SELECT artifact_id FROM artifacts WHERE organization_id IS NOT NULL AND artifact_id IN (",
        "t",
        named,
        ")",
    )
    return {artifact for (artifact,) in found}


def _count_artifacts(statements: BatchStatements, sums: Mapping[str, _Sum]) -> list[_Artifact]:
    """Add to the artifacts, as if every event were new, and return their rows."""
    merged = statements.run(
        ARTIFACTS.insert,
        ARTIFACTS.kinds,
        [
            (artifact, each.organization, each.first, each.last, each.events, each.is_ambiguous)
            for artifact, each in sorted(sums.items())
        ],
        "ON CONFLICT (artifact_id) DO UPDATE SET"
        " organization_id = coalesce(artifacts.organization_id, excluded.organization_id),"
        f" first_event_at = {statements.least}(artifacts.first_event_at, excluded.first_event_at),"
        f" last_event_at = {statements.greatest}(artifacts.last_event_at, excluded.last_event_at),"
        " events = artifacts.events + excluded.events,"
        " ambiguous = CASE WHEN artifacts.ambiguous = 1 OR excluded.ambiguous = 1"
        " OR artifacts.organization_id <> excluded.organization_id THEN 1 ELSE 0 END"
        " RETURNING artifact_id, organization_id, ambiguous, events, first_event_at",
    )
    if missing := len(sums) - len(merged):
        raise RowsSkippedError(ARTIFACTS.insert, ARTIFACTS.name, missing)
    return [_Artifact(*row) for row in merged]


def _subtract_duplicates(
    statements: BatchStatements, sums: Mapping[str, _Sum], new: Iterable[Row]
) -> None:
    """Take events that were stored before off their artifacts."""
    stored_now = Counter(row[ARTIFACT] for row in new)
    duplicates = [
        (artifact, each.events - stored_now[artifact])
        for artifact, each in sorted(sums.items())
        if each.events > stored_now[artifact]
    ]
    take_off_artifacts(statements, duplicates)


# -- events that were stored before their artifact's organization was known ------------------


def _attribute_earlier_events(
    statements: BatchStatements, late: Sequence[_Late], counts: Tally
) -> bool:
    """Give earlier events of artifacts the organization that has just become known.

    Artifacts with many earlier events are only noted, because one transaction must be short:
    `attribute_step` moves their events. The condition on the key lets PostgreSQL skip most
    partitions. Events that are being pruned are left as they are.

    Returns:
        Whether artifacts were noted.
    """
    few: list[_Late] = []
    many: list[_Late] = []
    total = 0
    for each in sorted(late, key=lambda each: each.earlier):
        total += each.earlier
        (few if total <= STEP else many).append(each)
    given = [(each.artifact, each.organization, first_key(each.since)) for each in sorted(few)]
    updated = statements.run(
        "UPDATE events SET organization_id = given.column2 FROM (",
        "ttu",
        given,
        f") AS given WHERE {_IS_EARLIER} RETURNING type, occurred_at, organization_id",
    )
    if len(updated) < sum(each.earlier for each in few):  # some were pruned, or skipped
        check_changed(statements, EVENTS, "ttu", given, _IS_EARLIER)
    for type_, occurred, organization in updated:
        tally_move(counts, type_, occurred, organization)
    put_missing(
        statements, ATTRIBUTION_WORK, [(each.artifact, each.since) for each in sorted(many)]
    )
    return bool(many)


def attribute_step(connection: Connection, statements: BatchStatements) -> bool:
    """Move some earlier events of one artifact to its organization, within the transaction.

    Where the organization was erased, erase them instead.

    Returns:
        Whether there may be more to move, of this artifact or of another.
    """
    marks = statements.marks()
    work = connection.execute("SELECT artifact_id, done_until FROM attribution_work LIMIT 1")
    if (row := work.fetchone()) is None:
        return False
    artifact, done_until = row
    owner, is_ambiguous = connection.ask(_LOCK_OWNER, artifact).fetchone() or ("", 1)
    moved: Sequence[Any] = ()
    if not is_ambiguous:
        since = max(done_until, marks.kept_since)
        found = connection.ask(_EARLIER_EVENTS, artifact, since, first_key(since), STEP)
        moved = found.fetchall()
    is_erased = False
    if marks.erasures and not is_ambiguous:
        owners = (Subject(None, owner), Subject(artifact, owner))
        is_erased = bool(erased_of(statements, owners))
    if is_erased:
        rows = f"SELECT {statements.row_key.value} FROM events WHERE event_id IN ("  # noqa: S608
        chosen = statements.run(rows, "u", [(key,) for key, _, _ in moved], ")")
        delete_events(statements, [row for (row,) in chosen])
    else:
        _give(statements, moved, owner)
    if len(moved) < STEP:
        delete_all(statements, ATTRIBUTION_WORK, [(artifact,)])
        if is_erased:
            settle_artifacts(connection, statements, [artifact])
    else:
        last = max(occurred for _, _, occurred in moved)
        note = "ON CONFLICT (artifact_id) DO UPDATE SET done_until = excluded.done_until"
        put_all(statements, ATTRIBUTION_WORK, [(artifact, last)], note)
    return True


def _give(statements: BatchStatements, moved: Sequence[Any], owner: str) -> None:
    """Give events the organization of their artifact."""
    given = [(key, owner) for key, _, _ in moved]
    updated = statements.run(
        "UPDATE events SET organization_id = given.column2 FROM (",
        "ut",
        given,
        f") AS given WHERE {_IS_GIVEN} RETURNING type, occurred_at",
    )
    if len(updated) < len(given):  # some were pruned, or skipped
        check_changed(statements, EVENTS, "ut", given, _IS_GIVEN)
    tally: Tally = Counter()
    for type_, occurred in updated:
        tally_move(tally, type_, occurred, owner)
    add_to_counters(statements, tally)
