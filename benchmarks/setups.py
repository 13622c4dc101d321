"""Peers set up as their manuals say: for the caller's latency and for the cost of a whole process.

What a set-up imports is a part of its cost, so nothing of a peer is imported with this module.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

_TABLES: Final = """
    PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;
    CREATE TABLE events (event_id INTEGER PRIMARY KEY, type TEXT, artifact_id TEXT,
     organization_id TEXT, occurred_at INTEGER, attributes TEXT);
    CREATE INDEX by_artifact ON events (artifact_id, occurred_at);
    CREATE TABLE counts (organization_id TEXT, type TEXT, day INTEGER, count INTEGER,
     PRIMARY KEY (organization_id, type, day)) WITHOUT ROWID
"""
_INSERT: Final = """
    INSERT INTO events (type, artifact_id, organization_id, occurred_at, attributes)
    VALUES ('work', ?, ?, ?, ?)
"""
_COUNT: Final = """
    INSERT INTO counts VALUES (?, 'work', ?, 1)
    ON CONFLICT DO UPDATE SET count = count + excluded.count
"""
_DAY: Final = 86_400_000_000_000  # ns


class AbsentError(Exception):
    """A peer is not installed: its rows are left out, with this reason."""


def needed(module: str) -> Any:
    """Import a peer.

    Raises:
        AbsentError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise AbsentError(f"{package} is not installed: pip install '.[bench]'") from error


@contextlib.contextmanager
def tracer_of_the_sdk(processor: Any) -> Iterator[Any]:
    """Yield a tracer of the OpenTelemetry SDK with one span processor."""
    trace = importlib.import_module("opentelemetry.sdk.trace")
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)  # its queue overflows; it says so
    provider = trace.TracerProvider()
    provider.add_span_processor(processor)
    yield provider.get_tracer("benchmarks")
    provider.shutdown()


@contextlib.contextmanager
def json_lines(directory: Path) -> Iterator[tuple[Any, Callable[[], None]]]:
    """Yield a logger of structlog that writes JSON lines to a file, and the file's flush."""
    structlog = needed("structlog")
    with (directory / "structlog.log").open("w") as file:
        structlog.configure(
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso"),
                structlog.processors.JSONRenderer(),
            ],
            logger_factory=structlog.WriteLoggerFactory(file),
            cache_logger_on_first_use=True,
        )
        yield structlog.get_logger(), file.flush


@contextlib.contextmanager
def rows_of_sqlite(directory: Path, *, counted: bool) -> Iterator[Callable[..., None]]:
    """Yield a function that inserts a row into SQLite, in WAL mode, a transaction for each.

    Args:
        directory: of the database.
        counted: the transaction also moves a counter.
    """
    import json  # noqa: PLC0415
    import sqlite3  # noqa: PLC0415

    connection = sqlite3.connect(directory / "direct.db", isolation_level=None)
    connection.executescript(_TABLES)
    execute = connection.execute

    def insert(artifact: str, organization: str, **attributes: object) -> None:
        execute(_INSERT, (artifact, organization, time.time_ns(), json.dumps(attributes)))

    def insert_and_count(artifact: str, organization: str, **attributes: object) -> None:
        execute("BEGIN IMMEDIATE")
        insert(artifact, organization, **attributes)
        execute(_COUNT, (organization, time.time_ns() // _DAY))
        execute("COMMIT")

    yield insert_and_count if counted else insert
    connection.close()
