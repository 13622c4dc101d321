"""Open the business database, a SQLite file. It also holds the outbox of sidelight."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from sidelight.outbox import table
from voice_notes.errors import DatabaseError
from voice_notes.models import Base

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

table(Base.metadata)


@contextmanager
def open_database(path: Path) -> Iterator[sessionmaker[Session]]:
    """Create the database at `path` if it is missing, and yield its session maker."""
    engine = create_engine(f"sqlite:///{path}")
    event.listen(engine, "connect", _prepare)
    try:
        try:
            Base.metadata.create_all(engine)
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", error))
            raise DatabaseError(
                f"{path} cannot be used as the business database: {reason}"
            ) from error
        # Rows are shown after their transaction. Keep their values, to avoid another SELECT.
        yield sessionmaker(engine, expire_on_commit=False)
    finally:
        engine.dispose()


def _prepare(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA journal_mode = WAL")  # readers do not block a commit
