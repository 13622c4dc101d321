"""Which outbox a URL names."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path

from sidelight.exceptions import ConfigurationError
from sidelight.outbox.mover import Outbox
from sidelight.outbox.sqlite import SqliteOutbox


def outboxes_of(urls: Iterable[str]) -> list[Outbox]:
    """The outboxes that a process is to drain."""
    return [outbox_of(url) for url in urls]


def outbox_of(url: str) -> Outbox:
    """The outbox in a database; nothing is opened yet.

    Raises:
        ConfigurationError: it is in a PostgreSQL, and psycopg is missing.
    """
    if url.startswith("sqlite:///"):
        return SqliteOutbox(Path(url.removeprefix("sqlite:///")))
    if importlib.util.find_spec("psycopg") is None:
        raise ConfigurationError(
            setting="outboxes",
            problem="PostgreSQL needs psycopg",
            remedy="pip install 'sidelight[postgres]'",
        )
    from sidelight.outbox.postgres import PostgresOutbox  # noqa: PLC0415  # where psycopg is

    return PostgresOutbox(url)
