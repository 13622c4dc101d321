"""Which database of a SQLAlchemy session an event is inserted into."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from sidelight.transactions.entry import NO_TABLE, SEVERAL, Entry, Refused, reason_of
from sidelight.transactions.outbox.table import outbox_table
from sidelight.transactions.sqlalchemy.connections import insert
from sidelight.transactions.sqlalchemy.events import connections_of

#: Tells a session that has not begun on any of its databases which of them to take.
_HINT: Final[dict[str, Any]] = {"clause": outbox_table()}


def insert_into_one(
    session: Session, connections: list[Connection], entries: list[Entry], *, first: bool
) -> None:
    """Insert into the database that has the work.

    In two phases all databases of the session commit or none, so that any with an outbox will do.

    Raises:
        Refused: several databases may have the work.
        Exception: of the last database.
    """
    if session.twophase:
        connections = connections_of(session.get_transaction())
    elif len(connections) > 1:
        raise Refused(SEVERAL)
    binds = [{"bind": each.engine} for each in connections]
    for number, bind in enumerate(binds or [_HINT], 1):
        try:
            insert(session.connection(bind_arguments=bind), entries, first=first)
        except Exception as error:
            reason = error.reason if isinstance(error, Refused) else reason_of(error)
            if number >= len(binds) or reason != NO_TABLE:
                raise
        else:
            return
