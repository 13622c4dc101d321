"""A store as version 1 of the schema made it, and what a relay of that version writes.

The statements are those that it sent, and stay as they are.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from itertools import chain

from sqlalchemy import Connection, Engine

from sidelight.store.address import parse_url
from sidelight.store.engine import engine_on
from sidelight.store.keys import day_text
from sidelight.store.rows import drafts_of, rows_of

_EVENTS = """
CREATE TABLE events (
    event_id {uuid} NOT NULL, type {text} NOT NULL, artifact_id {text}, organization_id {text},
    occurred_at BIGINT NOT NULL, recorded_at BIGINT NOT NULL, point {text} NOT NULL,
    mode {text} NOT NULL, outcome {text} NOT NULL, duration BIGINT, trace_id {text},
    span_id {text}, attributes {json} NOT NULL, PRIMARY KEY (event_id)
);
CREATE INDEX events_by_artifact ON events (artifact_id, occurred_at);
CREATE INDEX events_by_type ON events (type, occurred_at);
CREATE INDEX events_by_organization ON events (organization_id, occurred_at);
CREATE INDEX events_by_recording ON events (recorded_at);
CREATE INDEX events_by_trace ON events {trace};
CREATE TABLE event_counts (
    organization_id {text} NOT NULL, type {text} NOT NULL, day {text} NOT NULL,
    count BIGINT NOT NULL, PRIMARY KEY (organization_id, type, day)
) {keyed};
CREATE TABLE artifacts (
    artifact_id {text} NOT NULL, organization_id {text}, first_event_at BIGINT NOT NULL,
    last_event_at BIGINT NOT NULL, events BIGINT NOT NULL, PRIMARY KEY (artifact_id)
) {keyed};
CREATE TABLE losses (
    process {text} NOT NULL, reason {text} NOT NULL, count BIGINT NOT NULL,
    problem {text} NOT NULL, last_at BIGINT NOT NULL, PRIMARY KEY (process, reason)
) {keyed};
CREATE TABLE costs (
    process {text} NOT NULL, point {text} NOT NULL, count BIGINT NOT NULL,
    histogram {text} NOT NULL, last_at BIGINT NOT NULL, PRIMARY KEY (process, point)
) {keyed};
CREATE TABLE sidelight_schema (version INTEGER NOT NULL);
INSERT INTO sidelight_schema (version) VALUES (1)
"""
_IN = {
    "postgresql": {
        "uuid": "UUID",
        "text": 'TEXT COLLATE "C"',
        "json": "JSON",
        "trace": "USING hash (trace_id)",
        "keyed": "",
    },
    "sqlite": {
        "uuid": "VARCHAR(36)",
        "text": "TEXT",
        "json": "TEXT",
        "trace": "(trace_id)",
        "keyed": "WITHOUT ROWID",
    },
}


def engine_of(url: str) -> Engine:
    """An engine on a store whose version is not looked at."""
    return engine_on(parse_url(url), read_only=False)


def create(url: str) -> None:
    """Make the tables."""
    parsed = parse_url(url)
    if parsed.backend == "sqlite":
        with closing(sqlite3.connect(parsed.path)) as file:
            file.execute("PRAGMA journal_mode = WAL")
    engine = engine_of(url)
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("CREATE SCHEMA sidelight")
        for statement in _EVENTS.format(**_IN[connection.dialect.name]).split(";"):
            connection.exec_driver_sql(statement)
    engine.dispose()


def write(connection: Connection, records: list) -> None:
    """Store events, each of an artifact and without an organization, in one transaction."""
    rows = list(chain.from_iterable(rows_of(drafts_of(records)[0], {}, time.time_ns())))
    with connection.begin():
        if connection.dialect.name == "postgresql":
            cursor = connection.connection.cursor()
            with cursor.copy("COPY events FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
            mark, least, most = "%s", "least", "greatest"
        else:
            mark, least, most = "?", "min", "max"
            marks = ", ".join([mark] * len(rows[0]))
            for row in rows:
                connection.exec_driver_sql(f"INSERT INTO events VALUES ({marks})", tuple(row))
        for _, type_, artifact, _, occurred, *_ in rows:
            connection.exec_driver_sql(
                "INSERT INTO artifacts"
                " (artifact_id, organization_id, first_event_at, last_event_at, events)"
                f" VALUES ({mark}, NULL, {occurred}, {occurred}, 1)"
                " ON CONFLICT (artifact_id) DO UPDATE SET events = artifacts.events + 1,"
                f" first_event_at = {least}(artifacts.first_event_at, excluded.first_event_at),"
                f" last_event_at = {most}(artifacts.last_event_at, excluded.last_event_at)",
                (artifact,),
            )
            connection.exec_driver_sql(
                f"INSERT INTO event_counts VALUES ('', {mark}, '{day_text(occurred)}', 1)"
                " ON CONFLICT (organization_id, type, day)"
                " DO UPDATE SET count = event_counts.count + 1",
                (type_,),
            )
