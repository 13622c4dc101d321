"""Open a store with SQLAlchemy, for questions, for the pruner and for `sidelight doctor`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.engine import URL, Connection
from sqlalchemy.engine.create import create_engine  # tracers wrap `sqlalchemy.create_engine`
from sqlalchemy.exc import DisconnectionError

from sidelight.store.address import Address, parse_url
from sidelight.store.opening import open_store
from sidelight.store.sqlite import begin_statement, open_file


def connect(url: str, *, create: bool, upgrade: bool = False, read_only: bool = False) -> Engine:
    """Open a store, as `open_store` does, and raise the same errors.

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
    address = parse_url(url)
    opened = open_store(address, create=create, upgrade=upgrade, read_only=read_only)
    return engine_on(address, read_only=read_only, opened=opened.raw)


def engine_on(address: Address, *, read_only: bool, opened: Any = None) -> Engine:
    """Make an engine whose connections are those of a relay.

    Args:
        address: of the database.
        read_only: take no lock and write nothing.
        opened: a connection of the driver, which becomes the first.
    """
    ready = [] if opened is None else [opened]
    engine = _engine(address, ready, read_only=read_only)

    @event.listens_for(engine, "engine_disposed")
    def _close(_engine: Engine) -> None:
        for each in ready:  # the connection that was never asked for
            each.close()

    return engine


def _engine(address: Address, ready: list[Any], *, read_only: bool) -> Engine:
    if address.backend == "sqlite":
        return _engine_on_file(address, ready, read_only=read_only)
    from sidelight.store.postgres import connect_server  # noqa: PLC0415  # needs psycopg

    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: ready.pop() if ready else connect_server(address),
        use_native_hstore=False,
        pool_size=1,
        pool_pre_ping=read_only,
    )

    @event.listens_for(engine, "checkout")
    def _check(connection: Any, _record: Any, _proxy: Any) -> None:
        if connection.has_ended():
            raise DisconnectionError("the session has ended")  # the pool opens another

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        """Send BEGIN and all settings in one message, instead of psycopg's own BEGIN."""
        raw: Any = connection.connection.driver_connection
        connection.exec_driver_sql(raw.begin_text(read_only=read_only))

    return engine


def _engine_on_file(address: Address, ready: list[Any], *, read_only: bool) -> Engine:
    begin = begin_statement(read_only=read_only)
    engine = create_engine(
        URL.create("sqlite", database=str(address.path)),
        creator=lambda: ready.pop() if ready else open_file(address.path, read_only=read_only),
    )

    @event.listens_for(engine, "checkout")
    def _check(connection: Any, _record: Any, _proxy: Any) -> None:
        if not (connection.identity.is_current() and connection.is_usable()):
            raise DisconnectionError("the file was replaced")  # the pool opens the new file

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine
