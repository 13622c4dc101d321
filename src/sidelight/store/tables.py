"""The tables of an events store: the one description, and the SQL that creates them.

The relay creates the tables as text, because SQLAlchemy is slow to import; `schema` makes
SQLAlchemy's tables for the questions from the same description.

Times are nanoseconds since 1970 (UTC), durations nanoseconds, ids text. ``event_id`` is a UUIDv7:
its order is the order of time, and a range of time is a range of ids. In PostgreSQL the tables are
in the schema ``sidelight``, and `events` is partitioned by month.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

Backend: TypeAlias = Literal["sqlite", "postgresql"]
Kind: TypeAlias = Literal["t", "n", "u", "j", "i"]
"""The type of a column: t text, n an integer of 8 bytes, u an event id, j JSON, i a small integer.
"""

DEFAULT_PARTITION: Final = "events_rest"
TYPES: Final[dict[Backend, dict[Kind, str]]] = {
    # PostgreSQL compares bytes, as SQLite does, because the rules of a locale are slow. JSON is not
    # JSONB, which reorders keys, makes integers of large floats, and refuses NUL.
    "postgresql": {
        "t": 'TEXT COLLATE "C"',
        "n": "BIGINT",
        "u": "UUID",
        "j": "JSON",
        "i": "INTEGER",
    },
    "sqlite": {"t": "TEXT", "n": "BIGINT", "u": "VARCHAR(36)", "j": "TEXT", "i": "INTEGER"},
}


class Column(NamedTuple):
    """A column of a table."""

    name: str
    kind: Kind = "t"
    optional: bool = False
    default: int | None = None


class Table(msgspec.Struct, frozen=True):
    """A table.

    Attributes:
        key: the columns of its primary key.
        indexes: the columns of each further index.
    """

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    indexes: Mapping[str, tuple[str, ...]] = msgspec.field(default_factory=dict)

    @property
    def insert(self) -> str:
        """The start of an INSERT of whole rows."""
        return f"INSERT INTO {self.name} ({', '.join(column.name for column in self.columns)})"

    @property
    def kinds(self) -> str:
        """The kinds of the columns, one letter each."""
        return "".join(column.kind for column in self.columns)

    def create(self, backend: Backend) -> Iterator[str]:
        """Yield the statements that create the table in an empty database."""
        types = TYPES[backend]
        lines = [
            f"{column.name} {types[column.kind]}"
            + ("" if column.default is None else f" DEFAULT {column.default}")
            + ("" if column.optional else " NOT NULL")
            for column in self.columns
        ]
        if self.key:
            lines.append(f"PRIMARY KEY ({', '.join(self.key)})")
        is_partitioned = self is EVENTS and backend == "postgresql"
        tail = ""
        if is_partitioned:
            tail = " PARTITION BY RANGE (event_id)"
        elif self is not EVENTS and self.key and backend == "sqlite":
            tail = " WITHOUT ROWID"
        yield f"CREATE TABLE {self.name} ({', '.join(lines)}){tail}"
        for name, columns in self.indexes.items():
            # A hash index is cheaper for trace ids, because they have no order.
            method = "USING hash " if name == "events_by_trace" and is_partitioned else ""
            yield f"CREATE INDEX {name} ON {self.name} {method}({', '.join(columns)})"
        if is_partitioned:
            yield f"CREATE TABLE {DEFAULT_PARTITION} PARTITION OF {self.name} DEFAULT"
        elif self is EVENT_COUNTS and backend == "postgresql":
            # Leave space for the next state of each counter beside it, so that no index changes.
            yield f"ALTER TABLE {self.name} SET (fillfactor = 50)"


EVENTS: Final = Table(
    "events",
    (
        Column("event_id", "u"),
        Column("type"),
        Column("artifact_id", optional=True),
        Column("organization_id", optional=True),
        Column("occurred_at", "n"),
        Column("recorded_at", "n"),
        Column("point"),
        Column("mode"),
        Column("outcome"),
        Column("duration", "n", optional=True),
        Column("trace_id", optional=True),
        Column("span_id", optional=True),
        Column("attributes", "j"),
    ),
    key=("event_id",),
    indexes={
        "events_by_artifact": ("artifact_id", "occurred_at"),
        "events_by_organization": ("organization_id", "occurred_at"),
        "events_by_type": ("type", "occurred_at"),
        "events_by_trace": ("trace_id",),
        "events_by_recording": ("recorded_at",),  # for `Store.follow`
    },
)

EVENT_COUNTS: Final = Table(
    "event_counts",
    (Column("organization_id"), Column("type"), Column("day"), Column("count", "n")),
    key=("organization_id", "type", "day"),
    indexes={"event_counts_by_day": ("day",)},
)

ARTIFACTS: Final = Table(
    "artifacts",
    (
        Column("artifact_id"),
        Column("organization_id", optional=True),
        Column("first_event_at", "n"),
        Column("last_event_at", "n"),
        Column("events", "n"),
        Column("ambiguous", "n", default=0),  # several organizations
    ),
    key=("artifact_id",),
    indexes={
        "artifacts_by_last_event": ("last_event_at",),
        "artifacts_by_organization": ("organization_id", "last_event_at"),
    },
)

LOSSES: Final = Table(
    "losses",
    (
        Column("process"),
        Column("reason"),
        Column("count", "n"),
        Column("problem"),
        Column("last_at", "n"),
    ),
    key=("process", "reason"),
)

COSTS: Final = Table(
    "costs",
    (
        Column("process"),
        Column("point"),
        Column("count", "n"),
        Column("histogram"),
        Column("last_at", "n"),
    ),
    key=("process", "point"),
    indexes={"costs_by_last_report": ("last_at",)},
)

ATTRIBUTION_WORK: Final = Table(
    "attribution_work",
    (Column("artifact_id"), Column("done_until", "n")),
    key=("artifact_id",),
)
"""Artifacts whose organization became known, and up to when (ns) their events have it."""

PROCESSES: Final = Table(
    "processes",
    (
        Column("process"),
        Column("number", "n"),
        Column("host"),
        Column("service"),
        Column("pid", "n"),
        Column("started_at", "n"),
        Column("last_seen", "n"),
        Column("delivered_until", "n"),
        Column("ended"),  # "": it has not
    ),
    key=("process",),
)
"""The processes that have emitted. ``delivered_until``: what they wrote before has been stored."""

DELIVERIES: Final = Table(
    "deliveries",
    (Column("recorded_at", "n"), Column("process", "n")),
    key=("recorded_at",),
)
"""The process (its number) whose events a transaction of a relay has stored."""

OPEN_CALLS: Final = Table(
    "open_calls",
    (Column("call"), Column("event_id"), Column("process", "n")),
    key=("call",),
    indexes={"open_calls_by_process": ("process",)},
)
"""Calls whose start is stored, and whose end is not yet: trace and span, and the event.

From a stream the end may come first. Then it is noted, with an empty event.
"""

RETENTION: Final = Table(  # one row
    "retention",
    (
        Column("kept_since", "n"),
        Column("pruned_until", "n", default=0),
        Column("erasures", "n", default=0),
    ),
)

ERASURES: Final = Table("erasures", (Column("subject"), Column("erased_at", "n")), key=("subject",))
"""Tombstones: digests of what was erased, whose events are kept out."""

SCHEMA_VERSION: Final = Table("sidelight_schema", (Column("version", "i"),))  # one row

TABLES: Final = (
    EVENTS,
    EVENT_COUNTS,
    ARTIFACTS,
    LOSSES,
    COSTS,
    ATTRIBUTION_WORK,
    PROCESSES,
    DELIVERIES,
    OPEN_CALLS,
    RETENTION,
    ERASURES,
    SCHEMA_VERSION,
)
