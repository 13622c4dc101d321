"""Open a store, and create or upgrade its tables."""

from __future__ import annotations

from typing import Final

from sidelight.exceptions import StoreError, StoreMissingError, StoreVersionError
from sidelight.store.address import Address
from sidelight.store.database import Connection, DatabaseError
from sidelight.store.migrations import UPGRADES
from sidelight.store.sqlite import SqliteConnection
from sidelight.store.tables import RETENTION, SCHEMA_VERSION, TABLES

VERSION: Final = 1 + len(UPGRADES)


def open_store(
    address: Address, *, create: bool, upgrade: bool = False, read_only: bool = False
) -> Connection:
    """Open a store whose tables have this version.

    Args:
        address: of the database.
        create: create missing tables, and upgrade old ones.
        upgrade: upgrade old tables, and create none.
        read_only: take no lock and write nothing.

    Raises:
        StoreMissingError: the store does not exist and ``create`` is False.
        StoreVersionError: a newer sidelight made the store.
        StoreError: the store cannot be reached or used.
    """
    try:
        connection = _connect(address, create=create, read_only=read_only)
        try:
            _check(connection, address, create=create, upgrade=create or upgrade)
        except BaseException:
            connection.close()
            raise
    except DatabaseError as error:
        raise StoreError(
            url=address.shown, problem=str(error), remedy="see `sidelight doctor`"
        ) from error
    return connection


def _connect(address: Address, *, create: bool, read_only: bool) -> Connection:
    if address.backend == "sqlite":
        return SqliteConnection(address.path, create=create, read_only=read_only)
    from sidelight.store.postgres import PostgresConnection  # noqa: PLC0415  # needs psycopg

    return PostgresConnection(address, read_only=read_only)


def _check(connection: Connection, address: Address, *, create: bool, upgrade: bool) -> None:
    """Check that the tables exist in this version; create or upgrade them if wanted.

    Raises:
        StoreError: the tables are missing or of another version.
    """
    with connection.transaction():
        found = _version_of(connection)
    if create if found is None else upgrade and found < VERSION:
        with connection.transaction():
            found = _upgrade(connection, address)
    if found is None:
        raise StoreMissingError(
            url=address.shown,
            remedy="the database holds no sidelight tables: name another with --store"
            " or SIDELIGHT_STORE",
        )
    if found > VERSION:
        raise StoreVersionError(url=address.shown, found=found, known=VERSION)
    if found < VERSION:
        raise StoreError(
            url=address.shown,
            problem=f"the store has schema version {found}, this sidelight needs {VERSION}",
            remedy="run `sidelight relay --once`, which upgrades the store",
        )


def _version_of(connection: Connection) -> int | None:
    if not connection.has_table(SCHEMA_VERSION.name):
        return None
    row = connection.execute("SELECT version FROM sidelight_schema").fetchone()
    return None if row is None else int(row[0])


def _upgrade(connection: Connection, address: Address) -> int:
    """Create or upgrade the tables, unless another process has done so; return the version."""
    connection.lock_for_upgrade()
    found = _version_of(connection)
    if found is None:
        if foreign := sorted(table.name for table in TABLES if connection.has_table(table.name)):
            raise StoreError(
                url=address.shown,
                problem=f"the database has other tables named {', '.join(foreign)}",
                remedy="use a separate database for the store",
            )
        _create(connection)
        return VERSION
    for step in UPGRADES[found - 1 :]:
        step(connection)
    if found < VERSION:
        connection.ask("UPDATE sidelight_schema SET version = ?", VERSION)
        return VERSION
    return found


def _create(connection: Connection) -> None:
    for table in TABLES:
        for statement in table.create(connection.backend):
            connection.execute(statement)
    connection.execute(f"{RETENTION.insert} VALUES (0, 0, 0)")
    connection.execute(f"{SCHEMA_VERSION.insert} VALUES ({VERSION})")
