"""Create the table of an outbox, and show what waits in it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Engine, create_engine, event, func, inspect, select, text
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import SQLAlchemyError

from sidelight.exceptions import OutboxError, in_one_line
from sidelight.host import monotonic
from sidelight.record import blank_payload
from sidelight.settings import outbox_url, public_url, sqlite_path
from sidelight.spool import Choose
from sidelight.store import Address, parse_url
from sidelight.transactions.outbox.position import read_position, unwritable_beside
from sidelight.transactions.outbox.table import (
    FIND_TABLES,
    GRANT,
    TABLE_NAME,
    FoundTable,
    outbox_command,
    outbox_table,
)

_WITHIN: Final = 5.0  # seconds to wait for a SQLite file
_WITHIN_SERVER: Final = 60.0  # seconds of one transaction
_AT_ONCE: Final = 500  # rows of one transaction
_READ: Final = (
    "SELECT position, event_id, record FROM {table}"
    " WHERE (position, event_id) > (:position, :event_id)"
    " ORDER BY position, event_id LIMIT :at_once"
)
_TRIGGERS: Final = {
    "sqlite": "SELECT name, tbl_name, sql FROM sqlite_master WHERE type = 'trigger'",
    "postgresql": "SELECT t.tgname, c.relname, p.prosrc FROM pg_catalog.pg_trigger t"
    " JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid"
    " WHERE NOT t.tgisinternal",
}
_DELETES: Final = re.compile(rf"\b(DELETE\s+FROM|TRUNCATE)\b[^;]*\b{TABLE_NAME}\b", re.IGNORECASE)
_LOOK: Final = "SELECT 1 FROM {table} WHERE position = :position AND event_id = :event_id"
_WRITE: Final = (
    "UPDATE {table} SET record = :record WHERE position = :position AND event_id = :event_id"
)


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What keeps a relay with the same URL and user from moving rows, and what helps."""

    problem: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxStatus:
    """The state of an outbox.

    Attributes:
        url: of its database, without the password.
        waiting: number of rows that no relay has moved yet.
        oldest_ns: when the oldest waiting event occurred (Unix time); None where none waits.
        moved: number of rows that were moved and that the next joined event deletes (SQLite only).
        journal_mode: of a SQLite database.
        deleting_triggers: triggers whose text deletes rows of the outbox, with their tables.
        obstacle: what keeps a relay with this URL from moving rows; None where nothing is known.
    """

    url: str
    waiting: int
    oldest_ns: int | None
    moved: int = 0
    journal_mode: str | None = None
    deleting_triggers: Sequence[str] = ()
    obstacle: Obstacle | None = None


def create_outbox(url: str) -> bool:
    """Create the table where it is missing, and return whether it was missing.

    A SQLite database is put into WAL mode, so that a relay that reads delays no commit.

    Raises:
        ConfigurationError: the URL is not valid.
        OutboxError: the database refuses.
    """
    with _opened(url, create=True) as engine, engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        missing = not inspect(connection).has_table(TABLE_NAME)
        outbox_table().create(connection, checkfirst=True)
    return missing


def outbox_status(url: str) -> OutboxStatus:
    """Return the state of an outbox.

    Raises:
        ConfigurationError: the URL is not valid.
        OutboxError: there is no outbox, or the database does not answer.
    """
    with _opened(url) as engine, engine.connect() as connection:
        if engine.dialect.name != "sqlite":
            return _status_of_postgres(connection, url)
        if not inspect(connection).has_table(TABLE_NAME):
            raise _missing(url)
        column = outbox_table().c
        path = str(sqlite_path(outbox_url(url)))
        moved = _moved_up_to(connection, path)
        query = select(column.event_id).where(column.position > moved)
        ids = connection.execute(query).scalars().all()
        total = connection.execute(select(func.count()).select_from(outbox_table())).scalar_one()
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
        place = unwritable_beside(path)
        return OutboxStatus(
            url=public_url(url),
            waiting=len(ids),
            oldest_ns=min(map(_occurred, ids), default=None),
            moved=total - len(ids),
            journal_mode=str(mode),
            deleting_triggers=_deleting_triggers(connection),
            obstacle=None
            if place is None
            else Obstacle(f"{place} is not writable", "let the relay's user write there"),
        )


def erase_from_outbox(url: str, choose: Choose) -> int:
    """Replace the records of chosen rows by ones that say nothing; return how many.

    The rows stay, because their positions tell a relay how far it is.

    Args:
        url: of the business database.
        choose: tells of each record whether it is to be erased.

    Raises:
        ConfigurationError: the URL is not valid.
        OutboxError: there is no outbox, or the database does not answer.
    """
    with _opened(url) as engine, engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            tables = [TABLE_NAME] if inspect(connection).has_table(TABLE_NAME) else []
        else:
            schemas = connection.exec_driver_sql(FIND_TABLES).scalars().all()  # quoted
            tables = [f"{schema}.{TABLE_NAME}" for schema in schemas]
        connection.rollback()
        if not tables:
            raise _missing(url)
        return sum(_erase_from(connection, table, choose, public_url(url)) for table in tables)


def _erase_from(connection: Connection, table: str, choose: Choose, shown: str) -> int:
    """Go through a table in the order of its key, one short transaction after the other.

    Raises:
        OutboxError: a row keeps its record; `shown` is the database's URL.
    """
    read, write, look = (text(each.format(table=table)) for each in (_READ, _WRITE, _LOOK))
    erased, position, event_id = 0, -1, ""
    while True:
        with connection.begin():
            behind = {"position": position, "event_id": event_id, "at_once": _AT_ONCE}
            rows = connection.execute(read, behind).all()
            records = [bytes(record) for *_, record in rows]
            for (position, event_id, _), record, is_chosen in zip(
                rows, records, choose(records), strict=True
            ):
                if is_chosen:
                    blank = blank_payload(len(record), time.time_ns()) or b""
                    mine = {"position": position, "event_id": event_id, "record": blank}
                    if connection.execute(write, mine).rowcount == 1:
                        erased += 1
                    elif connection.execute(look, mine).first():  # no relay has moved it
                        raise OutboxError(
                            url=shown,
                            problem=f"a row of {table} cannot be updated",
                            remedy=f"look for a trigger, a rule or a policy on {table}",
                        )
        if len(rows) < _AT_ONCE:
            return erased


def _status_of_postgres(connection: Connection, url: str) -> OutboxStatus:
    """Add up the outboxes of all schemas."""
    tables = [FoundTable(*row) for row in connection.exec_driver_sql(FIND_TABLES)]
    if not tables:
        raise _missing(url)
    counts, times = [], []
    for table in tables:
        table.check_readable(public_url(url))
        query = f"SELECT count(*), min(position) FROM {table.path}"  # noqa: S608  # quoted
        count, oldest = connection.exec_driver_sql(query).one()
        counts.append(count)
        times += [] if oldest is None else [oldest]
    return OutboxStatus(
        url=public_url(url),
        waiting=sum(counts),
        oldest_ns=min(times, default=None),
        deleting_triggers=_deleting_triggers(connection),
        obstacle=next((_obstacle(table) for table in tables if table.lacks), None),
    )


def _obstacle(table: FoundTable) -> Obstacle:
    return Obstacle(f"its role lacks {table.lacks} on {table.path}", GRANT)


def _deleting_triggers(connection: Connection) -> list[str]:
    """Return the triggers whose own text deletes rows of the outbox; a guess, by that text."""
    found = connection.exec_driver_sql(_TRIGGERS[connection.dialect.name])
    return sorted(f"{name} on {table}" for name, table, text in found if _DELETES.search(text))


def _missing(url: str) -> OutboxError:
    return OutboxError(
        url=public_url(url),
        problem=f"there is no table {TABLE_NAME}",
        remedy=f"{outbox_command('create', public_url(url))} makes it",
        holds_events=False,
    )


def _moved_up_to(connection: Any, path: str) -> int:
    """Return the position up to which rows were moved; 0 where it belongs to another database."""
    moved = read_position(path)
    anchor = select(outbox_table().c.event_id).where(outbox_table().c.position == moved.number)
    known = connection.execute(anchor).scalar()
    return moved.number if known == moved.event_id else 0


def _occurred(event_id: str) -> int:
    """Return when an event occurred (ns, to the millisecond): a UUIDv7 begins with it."""
    return int(event_id.replace("-", "")[:12], 16) * 1_000_000


def _engine_on_server(address: Address) -> Engine:
    from sidelight.store import begin_statement, connect_server  # noqa: PLC0415  # needs psycopg

    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: connect_server(address),
        use_native_hstore=False,  # it would be looked up in a transaction without a deadline
    )

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        """Begin whatever the session is set to; its search path tells where a table is made."""
        raw: Any = connection.connection.driver_connection
        raw.deadline = monotonic() + _WITHIN_SERVER
        connection.exec_driver_sql(begin_statement(raw, _WITHIN_SERVER))

    return engine


@contextmanager
def _opened(url: str, *, create: bool = False) -> Iterator[Engine]:
    address = parse_url(outbox_url(url), "outboxes")
    remedy = "check that the database runs, and that you may do this there"
    if address.backend == "sqlite":
        remedy = "check the path, and that you may do this there"
        if not create and not os.path.lexists(str(address.path)):
            raise OutboxError(
                url=public_url(url),
                problem="there is no such file",
                remedy="check the path",
                holds_events=False,
            )
        place = URL.create("sqlite", database=str(address.path))
        engine = create_engine(place, connect_args={"timeout": _WITHIN})
    else:
        engine = _engine_on_server(address)
    try:
        yield engine
    except SQLAlchemyError as error:
        raise OutboxError(
            url=public_url(url),
            problem=in_one_line(getattr(error, "orig", None) or error),
            remedy=remedy,
        ) from error
    finally:
        engine.dispose()
