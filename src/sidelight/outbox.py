"""The outbox: a table in the caller's database that holds events until a relay moves them.

For Alembic and `create_all`: ``from sidelight.outbox import table``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import MetaData, Table


def table(metadata: MetaData) -> Table:
    """Add the outbox's table to your tables."""
    from sidelight.transactions import outbox_table  # noqa: PLC0415  # imports SQLAlchemy

    return outbox_table().to_metadata(metadata)
