"""An event exists if and only if the transaction of the caller commits.

With ``transaction=`` the event is a row of the outbox, inserted on the caller's own connection.
With ``after_commit=`` it waits in memory for the commit. `registry` lists the libraries whose
transactions an event can join. Whatever imports SQLAlchemy is imported at first use.
"""

from typing import TYPE_CHECKING

from sidelight.host import lazily

if TYPE_CHECKING:
    from sidelight.transactions.joining import Joining, JoiningLater
    from sidelight.transactions.outbox.admin import create_outbox, erase_from_outbox, outbox_status
    from sidelight.transactions.outbox.draining import (
        Joined,
        forget_outboxes,
        outboxes_not_drained,
    )
    from sidelight.transactions.outbox.postgres import PostgresOutbox
    from sidelight.transactions.outbox.same_database import SameDatabaseOutbox
    from sidelight.transactions.outbox.sqlite import SqliteOutbox
    from sidelight.transactions.outbox.table import outbox_table
    from sidelight.transactions.registry import ANNOTATIONS, prepare_libraries

__all__ = [
    "ANNOTATIONS",
    "Joined",
    "Joining",
    "JoiningLater",
    "PostgresOutbox",
    "SameDatabaseOutbox",
    "SqliteOutbox",
    "create_outbox",
    "erase_from_outbox",
    "forget_outboxes",
    "outbox_status",
    "outbox_table",
    "outboxes_not_drained",
    "prepare_libraries",
]

__getattr__ = lazily(
    __name__,
    {
        "joining": "Joining JoiningLater",
        "outbox.draining": "Joined forget_outboxes outboxes_not_drained",
        "outbox.admin": "create_outbox erase_from_outbox outbox_status",
        "outbox.postgres": "PostgresOutbox",
        "outbox.same_database": "SameDatabaseOutbox",
        "outbox.sqlite": "SqliteOutbox",
        "outbox.table": "outbox_table",
        "registry": "ANNOTATIONS prepare_libraries",
    },
)
