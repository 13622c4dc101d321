"""Rows and counters, stored exactly once; questions about them.

SQLite and PostgreSQL behind one contract. Loaded lazily, because SQLAlchemy and pydantic are slow
to import.
"""

from typing import TYPE_CHECKING

from sidelight.host import lazily

if TYPE_CHECKING:
    from sidelight.store.event import Event
    from sidelight.store.postgres import WRITE_WITHIN, BoundedConnection, begin, unsaid_by
    from sidelight.store.queries import Count, Loss, Store
    from sidelight.store.retention import Plan, Pruner
    from sidelight.store.schema import connect, metadata
    from sidelight.store.sink import StoreSink
    from sidelight.store.sqlite import connect_file
    from sidelight.store.times import from_ns

__all__ = [
    "WRITE_WITHIN",
    "BoundedConnection",
    "Count",
    "Event",
    "Loss",
    "Plan",
    "Pruner",
    "Store",
    "StoreSink",
    "begin",
    "connect",
    "connect_file",
    "from_ns",
    "metadata",
    "unsaid_by",
]

__getattr__ = lazily(
    __name__,
    {
        "event": "Event",
        "postgres": "WRITE_WITHIN BoundedConnection begin unsaid_by",
        "queries": "Count Loss Store",
        "retention": "Plan Pruner",
        "schema": "connect metadata",
        "sink": "StoreSink",
        "sqlite": "connect_file",
        "times": "from_ns",
    },
)
