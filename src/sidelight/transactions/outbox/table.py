"""The outbox's table, as SQLAlchemy has it."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, LargeBinary, MetaData, String, Table

TABLE_NAME: Final = "sidelight_outbox"

OUTBOX: Final = Table(
    TABLE_NAME,
    MetaData(),
    # In SQLite counted up in the order of the commits; in PostgreSQL, where rows are taken in any
    # order, when the event occurred (ns).
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("event_id", String(36), primary_key=True),
    Column("record", LargeBinary, nullable=False),
    # An insert must leave the connection's last_insert_rowid() alone: that is the caller's.
    sqlite_with_rowid=False,
)
"""Where the events of a transaction are rows until a relay has moved them."""
