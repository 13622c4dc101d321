"""The outboxes that a process drains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sidelight.relay import Outbox
from sidelight.runtime.measuring import observe_stored
from sidelight.settings import Settings, sqlite_path
from sidelight.transactions import SqliteOutbox


def outboxes_of(
    settings: Settings, writer: dict[str, Any], count: Callable[[str, str], None]
) -> Sequence[Outbox]:
    """Make the outboxes that the settings name, without opening them.

    Args:
        settings: of this process.
        writer: the header of the process's segments.
        count: counts the events that differ from their declaration in the catalogue.

    Raises:
        ConfigurationError: an outbox is in PostgreSQL, and psycopg is not installed.
    """
    return [_outbox(url, settings, writer, count) for url in settings.outboxes]


def _outbox(
    url: str, settings: Settings, writer: dict[str, Any], count: Callable[[str, str], None]
) -> Outbox:
    if (path := sqlite_path(url)) is not None:
        return SqliteOutbox(Path(path))
    from sidelight.store import StoreSink, parse_url  # noqa: PLC0415

    address = parse_url(url, "outboxes")
    from sidelight.transactions import PostgresOutbox, SameDatabaseOutbox  # noqa: PLC0415

    outbox = PostgresOutbox(url)
    # With OTLP on, the records must pass through the spool, and reach the store from there.
    store = settings.store
    if store and settings.sinks == ("store",) and address.place == parse_url(store).place:
        return SameDatabaseOutbox(outbox, StoreSink(store, count, observe_stored), writer)
    return outbox
