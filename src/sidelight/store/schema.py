"""The tables of an events store, and how to open, create and upgrade one.

Times are nanoseconds since 1970 (UTC), durations nanoseconds, ids text. ``event_id`` is a UUIDv7:
its order is the order of time, and a range of time is a range of ids. In PostgreSQL the tables are
in the schema ``sidelight``, and `events` is partitioned by month.
"""

from __future__ import annotations

import hashlib
import importlib.util
from typing import Any, Final

from sqlalchemy import (
    DDL,
    BigInteger,
    Column,
    ColumnElement,
    Engine,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    cast,
    event,
    inspect,
    select,
    update,
)
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.types import UserDefinedType

from sidelight.exceptions import (
    ConfigurationError,
    StoreError,
    StoreMissingError,
    StoreVersionError,
)
from sidelight.settings import public_url
from sidelight.store.migrations import UPGRADES
from sidelight.store.partitions import DEFAULT
from sidelight.store.sqlite import open_file

NO_ORGANIZATION: Final = ""
"""In counters: events without an organization, because a key cannot be NULL."""
MAX_KEY: Final = 512  # bytes: a row of a PostgreSQL index holds no more than 2,704 bytes

metadata: Final = MetaData()


class _PostgresType(UserDefinedType[str]):
    """A type of PostgreSQL that Python reads as text; SQLAlchemy's dialect is slow to import."""

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_: object) -> str:
        return self.name

    def column_expression(self, colexpr: ColumnElement[Any]) -> ColumnElement[Any]:
        return cast(colexpr, Text)


# Compare bytes in PostgreSQL, as SQLite does, because the rules of a locale are slow.
_text: Final = Text().with_variant(Text(collation="C"), "postgresql")
_uuid: Final = String(36).with_variant(_PostgresType("UUID"), "postgresql")
# Not JSONB, because it reorders keys, makes integers of large floats, and refuses NUL.
_json: Final = Text().with_variant(_PostgresType("JSON"), "postgresql")

events: Final = Table(
    "events",
    metadata,
    Column("event_id", _uuid, primary_key=True),
    Column("type", _text, nullable=False),
    Column("artifact_id", _text),
    Column("organization_id", _text),
    Column("occurred_at", BigInteger, nullable=False),
    Column("recorded_at", BigInteger, nullable=False),
    Column("point", _text, nullable=False),
    Column("mode", _text, nullable=False),
    Column("outcome", _text, nullable=False),
    Column("duration", BigInteger),
    Column("trace_id", _text),
    Column("span_id", _text),
    Column("attributes", _json, nullable=False),
    Index("events_by_artifact", "artifact_id", "occurred_at"),
    Index("events_by_organization", "organization_id", "occurred_at"),
    Index("events_by_type", "type", "occurred_at"),
    Index("events_by_trace", "trace_id").ddl_if(dialect="sqlite"),
    Index("events_by_recording", "recorded_at"),  # for `Store.follow`
)

# A hash index is cheaper for trace ids, because they have no order. (`postgresql_using` would
# import SQLAlchemy's dialect here.)
_traces_by_hash: Final = DDL("CREATE INDEX events_by_trace ON events USING hash (trace_id)")  # type: ignore[no-untyped-call]
event.listen(events, "after_create", _traces_by_hash.execute_if(dialect="postgresql"))

event_counts: Final = Table(
    "event_counts",
    metadata,
    Column("organization_id", _text, primary_key=True),
    Column("type", _text, primary_key=True),
    Column("day", _text, primary_key=True),
    Column("count", BigInteger, nullable=False),
    Index("event_counts_by_day", "day"),
    sqlite_with_rowid=False,
)

artifacts: Final = Table(
    "artifacts",
    metadata,
    Column("artifact_id", _text, primary_key=True),
    Column("organization_id", _text),
    Column("first_event_at", BigInteger, nullable=False),
    Column("last_event_at", BigInteger, nullable=False),
    Column("events", BigInteger, nullable=False),
    Column("ambiguous", BigInteger, nullable=False, server_default="0"),  # several organizations
    Index("artifacts_by_last_event", "last_event_at"),
    Index("artifacts_by_organization", "organization_id", "last_event_at"),
    sqlite_with_rowid=False,
)

losses: Final = Table(
    "losses",
    metadata,
    Column("process", _text, primary_key=True),
    Column("reason", _text, primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("problem", _text, nullable=False),
    Column("last_at", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

costs: Final = Table(
    "costs",
    metadata,
    Column("process", _text, primary_key=True),
    Column("point", _text, primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("histogram", _text, nullable=False),
    Column("last_at", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

#: Artifacts whose organization became known, and up to when (ns) their events have it.
attribution_work: Final = Table(
    "attribution_work",
    metadata,
    Column("artifact_id", _text, primary_key=True),
    Column("done_until", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

retention: Final = Table(  # one row
    "retention",
    metadata,
    Column("kept_since", BigInteger, nullable=False),
    Column("pruned_until", BigInteger, nullable=False, server_default="0"),
)

_version: Final = Table("sidelight_schema", metadata, Column("version", Integer, nullable=False))

VERSION: Final = 1 + len(UPGRADES)


def parse_url(url: str) -> URL:
    """Parse a store's URL.

    Raises:
        ConfigurationError: the text is not a URL, or names a database that is not supported.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise ConfigurationError(
            setting="store",
            problem=f"{public_url(url)!r} is not a URL",
            remedy="write sqlite:///events.db or postgresql://host/database",
        ) from error
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        if importlib.util.find_spec("psycopg") is None:
            raise ConfigurationError(
                setting="store",
                problem="PostgreSQL needs psycopg",
                remedy="pip install 'sidelight[postgres]'",
            )
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
            problem="a SQLite store in memory is lost with its connection",
            remedy="name a file: sqlite:///events.db",
        )
    return parsed


def display_url(url: URL) -> str:
    """A store's URL without its password."""
    whole = url.set(drivername=url.get_backend_name()).render_as_string(hide_password=False)
    return public_url(whole)


def connect(
    url: str | URL, *, create: bool, upgrade: bool = False, read_only: bool = False
) -> Engine:
    """Open a store.

    Args:
        url: ``sqlite:///…`` or ``postgresql://…``.
        create: create missing tables, and upgrade old ones.
        upgrade: upgrade old tables, and create none.
        read_only: take no lock and write nothing.

    Raises:
        StoreMissingError: the store does not exist and ``create`` is False.
        StoreVersionError: a newer sidelight made the store.
        StoreError: the store cannot be reached or used.
    """
    parsed = parse_url(url) if isinstance(url, str) else url
    if parsed.get_backend_name() == "sqlite":
        engine = open_file(parsed, create=create, read_only=read_only)
    else:
        from sidelight.store.postgres import open_server  # noqa: PLC0415  # needs psycopg

        engine = open_server(parsed, read_only=read_only)
    try:
        _check(engine, parsed, create=create, upgrade=create or upgrade)
    except SQLAlchemyError as error:
        engine.dispose()
        raise StoreError(
            url=display_url(parsed),
            problem=" ".join(str(error.__cause__ or error).split()),
            remedy="see `sidelight doctor`",
        ) from error
    except StoreError:
        engine.dispose()
        raise
    return engine


def _check(engine: Engine, url: URL, *, create: bool, upgrade: bool) -> None:
    """Check that the tables exist in this version; create or upgrade them if wanted.

    Raises:
        StoreError: the tables are missing or of another version.
    """
    with engine.begin() as connection:
        found = _version_of(connection)
    if create if found is None else upgrade and found < VERSION:
        with engine.begin() as connection:
            found = _upgrade(connection, url)
    if found is None:
        raise StoreMissingError(
            url=display_url(url),
            remedy="the database holds no sidelight tables: name another with --store"
            " or SIDELIGHT_STORE",
        )
    if found > VERSION:
        raise StoreVersionError(url=display_url(url), found=found, known=VERSION)
    if found < VERSION:
        raise StoreError(
            url=display_url(url),
            problem=f"the store has schema version {found}, this sidelight needs {VERSION}",
            remedy="run `sidelight relay --once`, which upgrades the store",
        )


def _version_of(connection: Connection) -> int | None:
    if not inspect(connection).has_table(_version.name):
        return None
    return connection.execute(select(_version.c.version)).scalar()


def _upgrade(connection: Connection, url: URL) -> int | None:
    """Create or upgrade the tables, unless another process has done so; return the version."""
    if connection.dialect.name == "postgresql":
        from sidelight.store.postgres import lock_for_upgrade  # noqa: PLC0415

        lock_for_upgrade(connection)
    found = _version_of(connection)
    if found is None:
        foreign = {name for name in metadata.tables if inspect(connection).has_table(name)}
        if foreign:
            raise StoreError(
                url=display_url(url),
                problem=f"the database has other tables named {', '.join(sorted(foreign))}",
                remedy="use a separate database for the store",
            )
        _create(connection)
        return VERSION
    for step in UPGRADES[found - 1 :]:
        step(connection)
    if found < VERSION:
        connection.execute(update(_version).values(version=VERSION))
        return VERSION
    return found


def _create(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        # Set here, because reading `dialect_options` imports SQLAlchemy's dialect.
        events.dialect_options["postgresql"]["partition_by"] = "RANGE (event_id)"
    metadata.create_all(connection, checkfirst=False)
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"CREATE TABLE {DEFAULT} PARTITION OF events DEFAULT")
        # Leave space for the next state of each counter beside it, so that no index changes.
        connection.exec_driver_sql("ALTER TABLE event_counts SET (fillfactor = 50)")
    connection.execute(retention.insert().values(kept_since=0, pruned_until=0))
    connection.execute(_version.insert().values(version=VERSION))


def fit_to_index(key: str) -> str:
    """Make an id or a name fit into an index: without NUL, at most `MAX_KEY` bytes.

    A longer one ends in a digest of the whole text, so that it stays unique.
    """
    if "\0" in key:
        key = key.replace("\0", "␀")
    if len(key) * 4 > MAX_KEY and len(encoded := key.encode()) > MAX_KEY:
        digest = hashlib.blake2b(encoded, digest_size=16).hexdigest()
        return f"{encoded[: MAX_KEY - 40].decode(errors='ignore')}…{digest}"
    return key
