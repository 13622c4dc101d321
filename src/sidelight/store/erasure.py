"""Erased subjects: tombstones that keep their events out, and the deletion of what is stored.

A subject is an artifact, an organization, or an artifact of one organization. A tombstone is a
digest of it, because the store must not keep the id that was erased. A relay reads tombstones only
where the store has any; `retention` tells that in a query that every transaction sends anyway.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

from sidelight.record import to_json
from sidelight.store.database import Connection, RowsSkippedError
from sidelight.store.keys import NO_ORGANIZATION, day_text
from sidelight.store.proved import change_one, check_changed, delete_all
from sidelight.store.rows import Draft
from sidelight.store.statements import BatchStatements, put_missing
from sidelight.store.tables import ARTIFACTS, ATTRIBUTION_WORK, ERASURES, EVENTS
from sidelight.store.tally import Tally, add_to_counters

Pair: TypeAlias = tuple[str | None, str | None]
"""The artifact and the organization that an event names."""

_DIGEST: Final = 16  # bytes
_TAKE_OFF: Final = (
    "UPDATE artifacts SET events = artifacts.events - given.column2 FROM (",
    ") AS given WHERE artifacts.artifact_id = given.column1",
)
_LOCK: Final = "SELECT artifact_id FROM artifacts WHERE artifact_id IN ("


class Subject(NamedTuple):
    """What is erased. Both: the artifact's events of the organization; "" is none."""

    artifact_id: str | None
    organization_id: str | None

    @property
    def digest(self) -> str:
        """The key of its tombstone."""
        return hashlib.blake2b(to_json(self).encode(), digest_size=_DIGEST).hexdigest()


class Sifted(NamedTuple):
    """Events of a delivery, without those of erased subjects.

    Attributes:
        kept, erased: the events.
        owners: artifacts that an erased event names, and the organization that it names.
    """

    kept: Sequence[Draft]
    erased: Sequence[Draft] = ()
    owners: Mapping[str, str] = MappingProxyType({})


def place_tombstones(statements: BatchStatements, subjects: Iterable[Subject], now: int) -> None:
    """Keep events of these subjects out of the store from now (ns) on."""
    rows = [(digest, now) for digest in sorted({subject.digest for subject in subjects})]
    put_missing(statements, ERASURES, rows)


def erased_of(statements: BatchStatements, subjects: Collection[Subject]) -> set[Subject]:
    """Return which of these subjects have a tombstone."""
    by_digest = {subject.digest: subject for subject in subjects}
    keys = [(digest,) for digest in sorted(by_digest)]
    found = statements.run("SELECT subject FROM erasures WHERE subject IN (", "t", keys, ")")
    return {by_digest[digest] for (digest,) in found}


def sift(statements: BatchStatements, drafts: Sequence[Draft]) -> Sifted:
    """Separate the events of erased subjects from the others."""
    named = {(artifact, organization) for _, _, artifact, organization, _, _ in drafts}
    gone = erased_pairs(statements, named)
    if not gone:
        return Sifted(drafts)
    kept = [draft for draft in drafts if draft[2:4] not in gone]
    dropped = [draft for draft in drafts if draft[2:4] in gone]
    owners = {artifact: owner for artifact, owner in gone if artifact and owner}
    return Sifted(kept, dropped, owners)


def erased_pairs(statements: BatchStatements, pairs: Iterable[Pair]) -> set[Pair]:
    """Return which of these pairs of artifact and organization belong to an erased subject."""
    subjects = {pair: [*_subjects_of(*pair)] for pair in pairs}
    erased = erased_of(statements, {each for some in subjects.values() for each in some})
    return {pair for pair, some in subjects.items() if not erased.isdisjoint(some)}


def _subjects_of(artifact: str | None, organization: str | None) -> Iterable[Subject]:
    if artifact is not None:
        yield Subject(artifact, None)
        yield Subject(artifact, organization or NO_ORGANIZATION)
    if organization is not None:
        yield Subject(None, organization)


def claim_earlier_events(statements: BatchStatements, owners: Mapping[str, str], now: int) -> bool:
    """Note that artifacts belong to an erased organization, which an event that was dropped names.

    Their events without an organization, stored before, are erased by `attribute_step`; those that
    come later are kept out. An artifact that another organization has is left as it is.

    Returns:
        Whether there are events to erase.
    """
    names = [(artifact,) for artifact in sorted(owners)]
    known = dict(
        statements.run(
            "SELECT artifact_id, organization_id FROM artifacts WHERE artifact_id IN (",
            "t",
            names,
            ")",
        )
    )
    mine = [each for each in sorted(owners.items()) if known.get(each[0]) in {None, each[1]}]
    place_tombstones(statements, (Subject(artifact, NO_ORGANIZATION) for artifact, _ in mine), now)
    work = [each for each in mine if each[0] in known]
    is_unowned = "artifacts.artifact_id = given.column1 AND artifacts.organization_id IS NULL"
    claim = "UPDATE artifacts SET organization_id = given.column2 FROM ("
    if statements.change(claim, "tt", work, f") AS given WHERE {is_unowned}") < len(work):
        check_changed(statements, ARTIFACTS, "tt", work, is_unowned)
    put_missing(statements, ATTRIBUTION_WORK, [(artifact, 0) for artifact, _ in work])
    return bool(work)


def lock_artifacts(statements: BatchStatements, artifacts: Iterable[str]) -> None:
    """Lock the rows of artifacts, in the order in which relays lock them."""
    names = _names(artifacts)
    statements.run(_LOCK, "t", names, f") ORDER BY artifact_id{statements.for_update}")


class Deleted(NamedTuple):
    """Events that were deleted.

    Attributes:
        uncounted: how many of them no counter can name, because sidelight did not write their rows.
    """

    events: int
    uncounted: int


def delete_events(statements: BatchStatements, rows: Collection[object]) -> Deleted:
    """Delete events, whose artifacts are locked, and take them off every counter.

    Args:
        statements: of the connection.
        rows: their values of `BatchStatements.row_key`.
    """
    column, _, kind = statements.row_key
    keys = [(row,) for row in rows]
    where = f"FROM events WHERE {column} IN ("
    delete = f"DELETE {where}"
    returning = ") RETURNING type, occurred_at, organization_id, artifact_id, event_id"
    gone = statements.run(delete, kind, keys, returning)
    if len(gone) < len(keys) and (left := statements.run(f"SELECT 1 {where}", kind, keys, ")")):
        raise RowsSkippedError(delete, EVENTS.name, len(left))
    ids = [(str(row[-1]),) for row in gone]
    statements.run("DELETE FROM open_calls WHERE event_id IN (", "t", ids, ")")
    tally: Tally = Counter()
    by_artifact: Counter[str] = Counter()
    uncounted = 0
    for type_, occurred, organization, artifact, _ in gone:
        owner = organization or NO_ORGANIZATION
        if isinstance(type_, str) and type(occurred) is int and isinstance(owner, str):
            tally[owner, type_, day_text(occurred)] -= 1
        else:
            uncounted += 1
        if isinstance(artifact, str):
            by_artifact[artifact] += 1
    known = statements.run(_LOCK, "t", _names(by_artifact), ")")
    take_off_artifacts(statements, sorted((name, by_artifact[name]) for (name,) in known))
    add_to_counters(statements, tally)
    return Deleted(len(gone), uncounted)


def take_off_artifacts(statements: BatchStatements, counts: Sequence[tuple[str, int]]) -> None:
    """Take numbers of events off artifacts, whose rows are locked.

    Raises:
        RowsSkippedError: an artifact was not updated.
    """
    before, after = _TAKE_OFF
    if missing := len(counts) - statements.change(before, "tn", counts, after):
        raise RowsSkippedError(before, ARTIFACTS.name, missing)


def settle_artifacts(
    connection: Connection,
    statements: BatchStatements,
    artifacts: Collection[str],
    *,
    keep_owner: bool = False,
) -> None:
    """Make the rows of artifacts, which are locked, say what their events that are left say.

    A row without events goes. Its first event is that of the events that are left.

    Args:
        connection: within a transaction.
        statements: of the connection.
        artifacts: their ids.
        keep_owner: more of their events are to be erased; the organization tells which.
    """
    names = _names(artifacts)
    left = statements.run(
        "SELECT artifact_id, min(occurred_at), max(occurred_at), min(organization_id),"
        " max(organization_id) FROM events WHERE artifact_id IN (",
        "t",
        names,
        ") GROUP BY artifact_id",
    )
    known = {row[0] for row in left}
    gone = [name for name in names if name[0] not in known]
    delete_all(statements, ARTIFACTS, gone)
    delete_all(statements, ATTRIBUTION_WORK, gone)
    for artifact, first, last, least, greatest in left:
        times = "UPDATE artifacts SET first_event_at = ?, last_event_at = ? WHERE artifact_id = ?"
        if type(first) is type(last) is int:  # of rows that sidelight has written
            change_one(connection, ARTIFACTS, times, first, last, artifact)
        if not keep_owner:
            owner = least if least == greatest else _first_owner(connection, artifact)
            owners = "UPDATE artifacts SET organization_id = ?, ambiguous = ? WHERE artifact_id = ?"
            mixed = int(least != greatest)
            change_one(connection, ARTIFACTS, owners, owner, mixed, artifact)


def _names(artifacts: Iterable[str]) -> list[tuple[str]]:
    """Return rows of the ids, in order; in SQLite a row of another form may have bytes instead."""
    return [(artifact,) for artifact in sorted(artifacts, key=lambda each: (str(type(each)), each))]


def _first_owner(connection: Connection, artifact: str) -> str:
    found = connection.ask(
        "SELECT organization_id FROM events WHERE artifact_id = ? AND organization_id IS NOT NULL"
        " ORDER BY occurred_at LIMIT 1",
        artifact,
    )
    return str(found.fetchone()[0])
