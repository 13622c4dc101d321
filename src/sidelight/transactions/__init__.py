"""An event exists if and only if the transaction of the caller commits.

`registry` knows the libraries whose transactions an event can join, one module or folder for each.
An outbox row rides the transaction itself; `after_commit=` waits for the commit. Loaded lazily.
"""

from typing import TYPE_CHECKING

from sidelight.host import lazily

if TYPE_CHECKING:
    from sidelight.transactions.joining import Joining, JoiningLater
    from sidelight.transactions.outbox.admin import create_outbox, outbox_status
    from sidelight.transactions.outbox.postgres import PostgresOutbox
    from sidelight.transactions.outbox.same_database import SameDatabase
    from sidelight.transactions.outbox.sqlite import SqliteOutbox
    from sidelight.transactions.outbox.table import OUTBOX

__all__ = [
    "OUTBOX",
    "Joining",
    "JoiningLater",
    "PostgresOutbox",
    "SameDatabase",
    "SqliteOutbox",
    "create_outbox",
    "outbox_status",
]

__getattr__ = lazily(
    __name__,
    {
        "joining": "Joining JoiningLater",
        "outbox.admin": "create_outbox outbox_status",
        "outbox.postgres": "PostgresOutbox",
        "outbox.same_database": "SameDatabase",
        "outbox.sqlite": "SqliteOutbox",
        "outbox.table": "OUTBOX",
    },
)
