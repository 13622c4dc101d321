"""The tables of an events store, how to reach it, and which version of them it has.

Times are nanoseconds since 1970 (UTC), durations nanoseconds, ids text. ``event_id`` is a UUIDv7,
so that its order is that of time and a range of time is a range of keys.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from sqlalchemy import (
    BigInteger,
    Column,
    Engine,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    inspect,
    select,
)
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from sidelight.exceptions import (
    ConfigurationError,
    StoreError,
    StoreMissingError,
    StoreVersionError,
)

VERSION: Final = 1
_LOCK_WITHIN: Final = 0.25  # seconds
NOBODY: Final = ""
"""Stands in counters for events that belong to no organization: keys cannot be NULL."""

metadata: Final = MetaData()

events: Final = Table(
    "events",
    metadata,
    Column("event_id", String(36), primary_key=True),
    Column("type", String(128), nullable=False),
    Column("artifact_id", Text),
    Column("organization_id", Text),
    Column("occurred_at", BigInteger, nullable=False),
    Column("recorded_at", BigInteger, nullable=False),
    Column("point", Text, nullable=False),
    Column("mode", String(16), nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("duration", BigInteger),
    Column("trace_id", String(32)),
    Column("span_id", String(16)),
    Column("attributes", Text, nullable=False),
    Index("events_by_artifact", "artifact_id", "occurred_at"),
    Index("events_by_organization", "organization_id", "occurred_at"),
    Index("events_by_type", "type", "occurred_at"),
    Index("events_by_trace", "trace_id"),
    Index("events_by_recording", "recorded_at"),  # for those who follow what is stored
)

event_counts: Final = Table(
    "event_counts",
    metadata,
    Column("organization_id", Text, primary_key=True),
    Column("type", String(128), primary_key=True),
    Column("day", String(10), primary_key=True),
    Column("count", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

artifacts: Final = Table(
    "artifacts",
    metadata,
    Column("artifact_id", Text, primary_key=True),
    Column("organization_id", Text),
    Column("first_event_at", BigInteger, nullable=False),
    Column("last_event_at", BigInteger, nullable=False),
    Column("events", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

losses: Final = Table(
    "losses",
    metadata,
    Column("process", String(64), primary_key=True),
    Column("reason", String(128), primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("problem", Text, nullable=False),
    Column("last_at", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

costs: Final = Table(
    "costs",
    metadata,
    Column("process", String(64), primary_key=True),
    Column("point", Text, primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("histogram", Text, nullable=False),
    Column("last_at", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

_version: Final = Table("sidelight_schema", metadata, Column("version", Integer, nullable=False))


def parse_url(url: str) -> URL:
    """Check a store's URL.

    Raises:
        ConfigurationError: it is not one, or names a database that is not supported.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigurationError(
            setting="store",
            problem=f"{_redacted(url)!r} is not a URL",
            remedy="write sqlite:///events.db or postgresql://host/database",
        ) from error
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise ConfigurationError(
            setting="store",
            problem=f"{backend} is not supported",
            remedy="use sqlite:///… or postgresql://…",
        )
    if parsed.database in {None, "", ":memory:"}:
        raise ConfigurationError(
            setting="store",
            problem="a SQLite store in memory dies with its connection",
            remedy="name a file: sqlite:///events.db",
        )
    return parsed


def _redacted(url: str) -> str:
    return url.replace(urlsplit(url).password or "\0", "***") if "@" in url else url


def connect(url: str | URL, *, create: bool, read_only: bool = False) -> Engine:
    """Open a store.

    Args:
        url: ``sqlite:///…`` or ``postgresql://…``.
        create: make the tables where they are missing.
        read_only: for questions: never locks, never writes.

    Raises:
        StoreMissingError: the store is not there and ``create`` is False.
        StoreVersionError: it was made by a newer sidelight.
        StoreError: it cannot be reached.
    """
    parsed = parse_url(url) if isinstance(url, str) else url
    shown = parsed.render_as_string(hide_password=True)
    if parsed.get_backend_name() == "sqlite":
        engine = _sqlite(parsed, create=create, read_only=read_only)
    else:
        engine = create_engine(parsed, pool_size=1, pool_pre_ping=True)
    try:
        with engine.connect() as connection:
            if create and not inspect(connection).has_table("sidelight_schema"):
                _create(connection)
            _check_version(connection, shown)
    except SQLAlchemyError as error:
        engine.dispose()
        raise StoreError(
            url=shown,
            problem=str(error.__cause__ or error).strip(),
            remedy="see `sidelight doctor`",
        ) from error
    except StoreError:
        engine.dispose()
        raise
    return engine


def _sqlite(url: URL, *, create: bool, read_only: bool) -> Engine:
    path = Path(url.database or "")
    if not path.exists():
        if not create:
            raise StoreMissingError(
                url=url,
                remedy="run something that emits, or name another with --store or SIDELIGHT_STORE",
            )
        if not path.parent.exists():
            path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    engine = create_engine(
        url, connect_args={"isolation_level": None, "check_same_thread": False, "timeout": 0.25}
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        if read_only:
            cursor.execute("PRAGMA query_only = ON")
        else:
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA synchronous = NORMAL")
            # A checkpoint every 32 MB, not every 4: it is the fsyncs that cost.
            cursor.execute("PRAGMA wal_autocheckpoint = 8000")
            cursor.execute("PRAGMA cache_size = -32768")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def _create(connection: Connection) -> None:
    with connection.begin() if not connection.in_transaction() else connection.get_transaction():  # type: ignore[union-attr]
        metadata.create_all(connection)
        if connection.execute(select(_version)).first() is None:
            connection.execute(_version.insert().values(version=VERSION))


def _check_version(connection: Connection, shown: str) -> None:
    if not inspect(connection).has_table("sidelight_schema"):
        raise StoreMissingError(
            url=shown, remedy="it is a database, but holds no events of sidelight's"
        )
    found = connection.execute(select(_version.c.version)).scalar()
    if found is not None and found > VERSION:
        raise StoreVersionError(url=shown, found=found, known=VERSION)


def has_wal_reset_bug() -> bool:
    """Whether this SQLite can lose commits in WAL mode with two connections.

    Fixed in 3.51.3, 3.50.7 and 3.44.6.
    """
    version = sqlite3.sqlite_version_info
    fixed = {(3, 50): (3, 50, 7), (3, 44): (3, 44, 6)}
    return version < fixed.get(version[:2], (3, 51, 3))


class WriteLock:
    """Serializes the write transactions of all processes on one SQLite file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def __enter__(self) -> None:
        if self._fd < 0:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        until = time.monotonic() + _LOCK_WITHIN
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > until:
                    raise TimeoutError from error
                time.sleep(0.001)
            else:
                return

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
