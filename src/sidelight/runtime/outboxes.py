"""The outboxes that a process drains."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url

from sidelight.exceptions import ConfigurationError
from sidelight.relay import Outbox
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
    if importlib.util.find_spec("psycopg") is None:
        raise ConfigurationError(
            setting="outboxes",
            problem="PostgreSQL needs psycopg",
            remedy="pip install 'sidelight[postgres]'",
        )
    from sidelight.transactions import PostgresOutbox  # noqa: PLC0415

    outbox = PostgresOutbox(url)
    # With OTLP on, the records must pass through the spool, and reach the store from there.
    if settings.sinks == ("store",) and _place(url) == _place(settings.store):
        from sidelight.store import StoreSink  # noqa: PLC0415
        from sidelight.transactions import SameDatabaseOutbox  # noqa: PLC0415

        return SameDatabaseOutbox(outbox, StoreSink(settings.store, count), writer)
    return outbox


def _place(url: str) -> tuple[Any, ...]:
    """Identify a database and the login to it."""
    parsed = make_url(url)
    host, port = parsed.query.get("host", parsed.host), parsed.query.get("port", parsed.port)
    return parsed.get_backend_name(), host, str(port or 5432), parsed.database, parsed.username
