"""The outbox: the table in the caller's database where events lie until a relay moves them.

For Alembic and `create_all`: ``from sidelight.outbox import table``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import MetaData, Table


def table(metadata: MetaData) -> Table:
    """The outbox's table in a collection of tables of yours."""
    from sidelight.transactions import OUTBOX  # noqa: PLC0415  # SQLAlchemy is slow to import

    return OUTBOX.to_metadata(metadata)
