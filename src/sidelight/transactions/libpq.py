"""What psycopg and psycopg2 tell of a transaction, in the numbers of libpq below both.

Neither driver is imported, because a process may have the other one only.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

from sidelight.transactions.entry import BROKEN, BUSY, Refused

BEGUN: Final = 2
"""The status of a connection that psycopg2 takes as in a transaction (its ``STATUS_BEGIN``)."""


class Status(IntEnum):
    """libpq's status of a transaction; any other number says that the connection has ended."""

    IDLE = 0
    ACTIVE = 1
    INTRANS = 2
    INERROR = 3


def check_postgres(raw: Any) -> None:
    """Check that an INSERT on a connection of psycopg or psycopg2 will be part of a transaction.

    Raises:
        Refused: it will not.
    """
    status = raw.info.transaction_status
    if status == Status.INERROR:
        raise Refused(BROKEN)
    if status == Status.IDLE and raw.autocommit:
        raise Refused("autocommit")
    pgconn = getattr(raw, "pgconn", None)
    if pgconn is not None and pgconn.pipeline_status:
        raise Refused("pipeline mode")
    if status == Status.ACTIVE and pgconn is None:  # psycopg's connection gives a turn
        raise Refused(BUSY)
