"""Erase an artifact or an organization: what is stored, and what relays deliver later.

The eraser first places a tombstone, between two transactions of relays; from then on relays drop
the events of the subject. Then it deletes rows in short transactions, each of which takes its
events off every counter. After a stop in the middle nothing is wrong: the next run deletes the
rest. An organization's own artifacts get tombstones too, for their events that name none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from sidelight.exceptions import QueryError
from sidelight.settings import public_url, settle
from sidelight.store.address import parse_url
from sidelight.store.arguments import Id, checked_id
from sidelight.store.database import Connection, DatabaseError, RowsSkippedError
from sidelight.store.erasure import (
    Deleted,
    Pair,
    Subject,
    delete_events,
    erased_of,
    erased_pairs,
    lock_artifacts,
    place_tombstones,
    settle_artifacts,
)
from sidelight.store.keys import NO_ORGANIZATION
from sidelight.store.opening import open_store
from sidelight.store.partitions import lock_retention
from sidelight.store.proved import change_one, delete_all
from sidelight.store.statements import batch_statements
from sidelight.store.steps import ShortTransactions
from sidelight.store.tables import ERASURES, EVENT_COUNTS, RETENTION
from sidelight.store.words import plural
from sidelight.store.write_lock import write_lock

if TYPE_CHECKING:
    from types import TracebackType

_ARTIFACTS: Final = 500  # artifacts of an organization that are erased together
_COUNT: Final = "SELECT count(*) FROM events WHERE "
_ROWS: Final = "SELECT {}, artifact_id FROM events WHERE {} LIMIT {}"
_OWN_EVENTS: Final = (
    ") AS given CROSS JOIN events WHERE events.artifact_id = given.column1"
    " AND (events.organization_id IS NULL OR events.organization_id = given.column2) LIMIT {}"
)
_OWN_ARTIFACTS: Final = (
    "SELECT artifact_id FROM artifacts WHERE organization_id = ? AND ambiguous = 0"
)
_COUNT_OWN: Final = _OWN_ARTIFACTS.replace("artifact_id", "count(*)", 1)
_UNNAMED: Final = (
    "SELECT count(*) FROM artifacts JOIN events ON events.artifact_id = artifacts.artifact_id"
    " WHERE artifacts.organization_id = ? AND artifacts.ambiguous = 0"
    " AND events.organization_id IS NULL"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """What an erasure deletes from the store.

    Attributes:
        artifact_id, organization_id: the subject.
        events, artifacts: how many of each the store has at the moment.
    """

    artifact_id: str | None
    organization_id: str | None
    events: int
    artifacts: int

    @property
    def subject(self) -> Subject:
        """The subject, whose tombstone keeps later events out."""
        return Subject(self.artifact_id, self.organization_id)


class Eraser:
    """Erases subjects from one store. A context manager.

    Args:
        url: as for `Store`.
        dry: only plan: write nothing, and upgrade nothing.

    Raises:
        ConfigurationError: the URL names no supported store.
        StoreMissingError: the store does not exist.
        StoreError: the store cannot be used or does not answer. Every method raises it as well.
    """

    def __init__(self, url: str | None = None, *, dry: bool = False) -> None:
        settled = settle(url).require_store()
        address = parse_url(settled)
        self.url: Final = public_url(settled)
        self._is_postgres = address.backend == "postgresql"
        self._lock: AbstractContextManager[None] = nullcontext()
        if not self._is_postgres:
            self._lock = write_lock(address.path)
        self._connection = open_store(address, create=False, upgrade=not dry, read_only=dry)
        self._steps = ShortTransactions(self.url, self._lock, self._begun)
        self._uncounted = 0
        if not (self._is_postgres or dry):  # overwrite what is deleted
            self._connection.execute("PRAGMA secure_delete = ON").fetchall()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.close()

    @contextmanager
    def _begun(self) -> Iterator[Connection]:
        with self._connection.transaction():
            yield self._connection

    def plan(self, *, artifact_id: Id | None = None, organization_id: Id | None = None) -> Erasure:
        """Plan an erasure; change nothing.

        Args:
            artifact_id: erase this artifact.
            organization_id: erase this organization; with an artifact, only the artifact's events
                of this organization ("": those without one).

        Raises:
            QueryError: no subject is given, or the artifact has several organizations and none is
                given: it may be somebody else's artifact as well.
        """
        artifact = None if artifact_id is None else checked_id("artifact_id", artifact_id)
        owner = None if organization_id is None else checked_id("organization_id", organization_id)
        if artifact is None and not owner:
            raise QueryError(
                argument="erase",
                problem="no subject is given",
                remedy="name an artifact or an organization (--artifact ID, --organization ID)",
            )
        try:
            return self._plan(artifact, owner)
        except DatabaseError as error:
            raise self._steps.failure(error) from error

    def _plan(self, artifact: str | None, owner: str | None) -> Erasure:
        with self._connection.transaction():
            if artifact is None:
                own = self._one(_COUNT_OWN, owner)
                events = self._one(f"{_COUNT}organization_id = ?", owner)
                events += self._one(_UNNAMED, owner)
                return Erasure(
                    artifact_id=None, organization_id=owner, events=events, artifacts=own
                )
            if owner is None:
                self._check_owners(artifact)
            where, parameters = self._condition(artifact, owner)
            events = self._one(_COUNT + where, *parameters)
            others = self._one(f"{_COUNT}artifact_id = ?", artifact)
            row = self._one("SELECT count(*) FROM artifacts WHERE artifact_id = ?", artifact)
            return Erasure(
                artifact_id=artifact,
                organization_id=owner,
                events=events,
                artifacts=row if events == others else 0,
            )

    def _check_owners(self, artifact: str) -> None:
        query = (
            "SELECT DISTINCT organization_id FROM events WHERE artifact_id = ?"
            " AND organization_id IS NOT NULL ORDER BY organization_id LIMIT 11"
        )
        owners = [owner for (owner,) in self._ask(query, artifact) if isinstance(owner, str)]
        if len(owners) > 1:
            raise QueryError(
                argument="artifact",
                problem=f"{artifact} belongs to several organizations: {', '.join(owners[:10])}",
                remedy="name the one whose events are erased with --organization",
            )

    def _condition(self, artifact: str | None, owner: str | None) -> tuple[str, list[str]]:
        """Return the condition on the events of a subject, and its parameters.

        The events without an organization belong to an artifact's only organization.
        """
        if artifact is None:
            return "organization_id = ?", [owner or ""]
        if owner is None or (owner and self._is_own(artifact, owner)):
            return "artifact_id = ?", [artifact]
        if owner == NO_ORGANIZATION:
            return "artifact_id = ? AND organization_id IS NULL", [artifact]
        return "artifact_id = ? AND organization_id = ?", [artifact, owner]

    def _is_own(self, artifact: str, owner: str) -> bool:
        """Return whether an artifact has this organization only."""
        return bool(self._ask(f"{_OWN_ARTIFACTS} AND artifact_id = ?", owner, artifact))

    def run(self, erasure: Erasure) -> Iterator[int]:
        """Execute a plan; yield after each transaction how many events it deleted."""
        artifact, owner = subject = erasure.subject
        self._place([subject])
        if owner and artifact is None:
            while names := self._steps.run(
                lambda _: self._ask(f"{_OWN_ARTIFACTS} LIMIT {_ARTIFACTS}", owner)
            ):
                yield from self._erase_own([name for (name,) in names], owner)
        elif owner and artifact and self._steps.run(lambda _: self._is_own(artifact, owner)):
            yield from self._erase_own([artifact], owner)
        where, parameters = self._steps.run(lambda _: self._condition(artifact, owner))
        yield from self._delete(where, parameters)
        if artifact is not None:  # a run before may have ended between its last two transactions
            self._steps.run(lambda connection: _settle(connection, [artifact]))
        else:
            while self._steps.run(lambda connection: _settle_left(connection, owner or "")):
                pass
            self._steps.run(lambda connection: _delete_counts(connection, owner or ""))

    def erased(self, pairs: Iterable[Pair]) -> set[Pair]:
        """Return which pairs of artifact and organization, as events name them, are erased."""
        return self._steps.run(lambda connection: erased_pairs(batch_statements(connection), pairs))

    def is_erased(self, subject: Subject) -> bool:
        """Return whether a subject has a tombstone; writes nothing."""
        try:
            with self._connection.transaction():
                statements = batch_statements(self._connection)
                return bool(erased_of(statements, _tombstones_of(subject)))
        except DatabaseError as error:
            raise self._steps.failure(error) from error

    def lift(self, subject: Subject) -> bool:
        """Remove the tombstone of a subject, so that relays store its events again.

        Returns:
            Whether there was one. Erased events do not come back.
        """
        subjects = _tombstones_of(subject)

        def step(connection: Connection) -> bool:
            statements = batch_statements(connection)
            had_any = bool(erased_of(statements, subjects))
            delete_all(statements, ERASURES, [(each.digest,) for each in subjects])
            left = "UPDATE retention SET erasures = (SELECT count(*) FROM erasures)"
            change_one(connection, RETENTION, left)
            return had_any

        return self._steps.run(step)

    def remainder(self) -> list[str]:
        """Return what this database still holds of deleted rows, in words.

        In SQLite any program can write rows that no relay writes; those that cannot be read are
        named too. SQLite's log is emptied here.
        """
        if self._is_postgres:
            files = (
                "PostgreSQL keeps deleted rows in its files until a VACUUM (autovacuum does one)"
            )
            return [f"{files}, and in archived WAL"]
        with self._lock:
            busy = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        rest = self._unreadable()
        rest += ["free space in SQLite's file, which may hold older copies of rows until a VACUUM"]
        if busy:
            rest.append("SQLite's write-ahead log, which was in use and could not be emptied")
        return rest

    def _unreadable(self) -> list[str]:
        """Name the rows that no relay wrote: bytes sort after every text."""
        rest = []
        if self._uncounted:
            rest.append(
                f"the counters of {plural(self._uncounted, 'erased event')},"
                " because a type, time or organization is of no form that a relay writes"
            )
        for column in ("artifact_id", "organization_id"):
            query = f"SELECT count(*) FROM events WHERE {column} >= x''"  # noqa: S608
            if count := self._one(query):
                rest.append(f"{plural(count, 'event')} whose {column} is no text")
        return rest

    def _place(self, subjects: Iterable[Subject]) -> None:
        """Place tombstones, while no relay is in a transaction."""

        def step(connection: Connection) -> None:
            if self._is_postgres:
                lock_retention(connection.execute)
            place_tombstones(batch_statements(connection), subjects, time.time_ns())
            # Where it is 0 a relay reads no tombstones.
            change_one(connection, RETENTION, "UPDATE retention SET erasures = erasures + 1")

        self._steps.run(step)

    def _erase_own(self, artifacts: Sequence[str], owner: str) -> Iterator[int]:
        """Erase artifacts that have this organization only."""
        self._place([Subject(artifact, NO_ORGANIZATION) for artifact in artifacts])
        given = [(artifact, owner) for artifact in artifacts]

        def step(connection: Connection) -> tuple[Deleted, bool]:
            statements = batch_statements(connection)
            after = _OWN_EVENTS.format(self._steps.rows)
            value = statements.row_key.value
            rows = statements.run(f"SELECT {value} FROM (", "tt", given, after)  # noqa: S608
            lock_artifacts(statements, artifacts)
            deleted = delete_events(statements, [row for (row,) in rows])
            settle_artifacts(connection, statements, artifacts, keep_owner=True)
            return deleted, bool(rows)

        yield from self._counted(step)
        self._steps.run(lambda connection: _settle(connection, artifacts))

    def _delete(self, where: str, parameters: Sequence[str]) -> Iterator[int]:
        def step(connection: Connection) -> tuple[Deleted, bool]:
            statements = batch_statements(connection)
            query = _ROWS.format(statements.row_key.value, where, self._steps.rows)
            found = connection.ask(query, *parameters).fetchall()
            artifacts = {artifact for _, artifact in found if artifact is not None}
            lock_artifacts(statements, artifacts)
            deleted = delete_events(statements, [row for row, _ in found])
            settle_artifacts(connection, statements, artifacts)
            return deleted, bool(found)

        yield from self._counted(step)

    def _counted(self, step: Callable[[Connection], tuple[Deleted, bool]]) -> Iterator[int]:
        """Run steps until one finds no event; another eraser may have deleted what one found."""
        while True:
            deleted, has_found = self._steps.run(step)
            if not has_found:
                return
            self._uncounted += deleted.uncounted
            yield deleted.events

    def _ask(self, query: str, *parameters: Any) -> list[Any]:
        found: list[Any] = self._connection.ask(query, *parameters).fetchall()
        return found

    def _one(self, query: str, *parameters: Any) -> int:
        return int(self._ask(query, *parameters)[0][0])


def _tombstones_of(subject: Subject) -> set[Subject]:
    unnamed = Subject(subject.artifact_id, NO_ORGANIZATION)
    return {subject, unnamed} - {Subject(None, NO_ORGANIZATION)}


def _settle_left(connection: Connection, owner: str) -> int:
    """Settle artifacts whose rows still name an erased organization, though none of its events."""
    query = f"SELECT artifact_id FROM artifacts WHERE organization_id = ? LIMIT {_ARTIFACTS}"  # noqa: S608
    names = [name for (name,) in connection.ask(query, owner).fetchall()]
    _settle(connection, names)
    return len(names)


def _settle(connection: Connection, artifacts: Sequence[str]) -> None:
    statements = batch_statements(connection)
    lock_artifacts(statements, artifacts)
    settle_artifacts(connection, statements, artifacts)


def _delete_counts(connection: Connection, owner: str) -> None:
    """Delete the counts of an organization.

    Raises:
        RowsSkippedError: there are some afterwards.
    """
    where = "FROM event_counts WHERE organization_id = ?"
    connection.ask(f"DELETE {where}", owner)
    (left,) = connection.ask(f"SELECT count(*) {where}", owner).fetchone()
    if left:
        raise RowsSkippedError(f"DELETE {where}", EVENT_COUNTS.name, left)
