"""Upgrade the tables of an older store, one version at a time.

A new store is created at the current version and runs no step. A step is one transaction; other
processes that want to upgrade wait for it. A step only adds, so that relays of the version before
can go on writing. A step writes its statements out, because `tables` changes later.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeAlias

from sidelight.store.database import Connection
from sidelight.store.keys import first_key
from sidelight.store.partitions import month_of

_MOVE_LATER_EVENTS: Final = (
    "WITH moved AS (DELETE FROM events_before WHERE event_id >= '{}' RETURNING *)"
    " INSERT INTO events_rest SELECT * FROM moved"
)


def _to_2(connection: Connection) -> None:
    """Add retention, indexes over artifacts and days, and PostgreSQL's partitions."""
    run = connection.execute
    run("CREATE TABLE retention (kept_since BIGINT NOT NULL)")
    run("INSERT INTO retention (kept_since) VALUES (0)")
    run("CREATE INDEX event_counts_by_day ON event_counts (day)")
    run("CREATE INDEX artifacts_by_last_event ON artifacts (last_event_at)")
    run("CREATE INDEX artifacts_by_organization ON artifacts (organization_id, last_event_at)")
    if connection.backend == "postgresql":
        _partition(connection)


def _partition(connection: Connection) -> None:
    """Make `events`, with its rows, the first partition of a new table of the same name.

    Its indexes become the partition's, so that PostgreSQL builds none anew. The partition ends with
    the current month; later events (of clocks that are ahead) move to the default partition.
    """
    run = connection.execute
    key = first_key(month_of(time.time_ns())[1])
    indexes = ("pkey", "by_artifact", "by_organization", "by_type", "by_recording", "by_trace")
    run("ALTER TABLE events RENAME TO events_before")
    for index in indexes:
        run(f"ALTER INDEX events_{index} RENAME TO events_before_{index}")
    run(
        "CREATE TABLE events (LIKE events_before INCLUDING DEFAULTS INCLUDING CONSTRAINTS,"
        " PRIMARY KEY (event_id)) PARTITION BY RANGE (event_id)"
    )
    run("CREATE INDEX events_by_artifact ON events (artifact_id, occurred_at)")
    run("CREATE INDEX events_by_organization ON events (organization_id, occurred_at)")
    run("CREATE INDEX events_by_type ON events (type, occurred_at)")
    run("CREATE INDEX events_by_recording ON events (recorded_at)")
    run("CREATE INDEX events_by_trace ON events USING hash (trace_id)")
    run("ALTER TABLE event_counts SET (fillfactor = 50)")
    run("CREATE TABLE events_rest PARTITION OF events DEFAULT")
    run(_MOVE_LATER_EVENTS.format(key))
    span = f"FROM (MINVALUE) TO ('{key}')"
    run(f"ALTER TABLE events ATTACH PARTITION events_before FOR VALUES {span}")


def _to_3(connection: Connection) -> None:
    """Separate what was deleted from what relays leave out, so that the latter can move back."""
    run = connection.execute
    run("ALTER TABLE retention ADD COLUMN pruned_until BIGINT DEFAULT 0 NOT NULL")
    run("UPDATE retention SET pruned_until = kept_since")


def _to_4(connection: Connection) -> None:
    """Note which artifacts have several organizations, and whose events are still to be moved."""
    run = connection.execute
    is_postgres = connection.backend == "postgresql"
    text, keyed = ('TEXT COLLATE "C"', "") if is_postgres else ("TEXT", "WITHOUT ROWID")
    run("ALTER TABLE artifacts ADD COLUMN ambiguous BIGINT DEFAULT 0 NOT NULL")
    run(
        f"CREATE TABLE attribution_work (artifact_id {text} NOT NULL, done_until BIGINT NOT NULL,"
        f" PRIMARY KEY (artifact_id)) {keyed}"
    )


def _to_5(connection: Connection) -> None:
    """Note which processes have emitted, which of them each delivery is of, and open calls."""
    run = connection.execute
    is_postgres = connection.backend == "postgresql"
    text, keyed = ('TEXT COLLATE "C"', "") if is_postgres else ("TEXT", "WITHOUT ROWID")
    run(
        f"CREATE TABLE processes (process {text} NOT NULL, number BIGINT NOT NULL,"
        f" host {text} NOT NULL, service {text} NOT NULL, pid BIGINT NOT NULL,"
        " started_at BIGINT NOT NULL, last_seen BIGINT NOT NULL, delivered_until BIGINT NOT NULL,"
        f" ended {text} NOT NULL, PRIMARY KEY (process)) {keyed}"
    )
    run(
        "CREATE TABLE deliveries (recorded_at BIGINT NOT NULL, process BIGINT NOT NULL,"
        f" PRIMARY KEY (recorded_at)) {keyed}"
    )
    run(
        f"CREATE TABLE open_calls (call {text} NOT NULL, event_id {text} NOT NULL,"
        f" process BIGINT NOT NULL, PRIMARY KEY (call)) {keyed}"
    )
    run("CREATE INDEX open_calls_by_process ON open_calls (process)")


def _to_6(connection: Connection) -> None:
    """Note what was erased, so that its events stay out."""
    run = connection.execute
    is_postgres = connection.backend == "postgresql"
    text, keyed = ('TEXT COLLATE "C"', "") if is_postgres else ("TEXT", "WITHOUT ROWID")
    run("ALTER TABLE retention ADD COLUMN erasures BIGINT DEFAULT 0 NOT NULL")
    run(
        f"CREATE TABLE erasures (subject {text} NOT NULL, erased_at BIGINT NOT NULL,"
        f" PRIMARY KEY (subject)) {keyed}"
    )


def _to_7(connection: Connection) -> None:
    """Find the latest reports of costs, of which a store of a year has a million."""
    connection.execute("CREATE INDEX costs_by_last_report ON costs (last_at)")


_Step: TypeAlias = Callable[[Connection], None]
UPGRADES: Final[tuple[_Step, ...]] = (_to_2, _to_3, _to_4, _to_5, _to_6, _to_7)
"""The steps: from version 1 to 2, from 2 to 3, and so on."""
