"""The table of the outbox: its name, its definition for SQLAlchemy, and how to find it."""

from __future__ import annotations

import functools
import shlex
from typing import TYPE_CHECKING, Final, NamedTuple

from sidelight.exceptions import OutboxError

if TYPE_CHECKING:
    from sqlalchemy import Table

TABLE_NAME: Final = "sidelight_outbox"
GRANT: Final = "grant it SELECT, UPDATE and DELETE; where row-level security is on, BYPASSRLS"
"""What helps a relay whose role may not move rows; UPDATE, because it locks them."""


def outbox_command(name: str, shown: str) -> str:
    """Return a command about an outbox, in backticks and quoted for a shell.

    Args:
        name: of the subcommand.
        shown: the URL of the database, without the password.
    """
    return f"`sidelight outbox {name} {shlex.quote(shown)}`"


@functools.cache
def outbox_table() -> Table:
    """Return the table where the events of a transaction lie until a relay has moved them.

    position: the order in which a relay reads (SQLite), or the time of the event in ns
    (PostgreSQL). event_id: the UUIDv7 of the event, as text. record: the payload, as a frame of the
    spool has it.
    """
    # A relay needs the name only, and SQLAlchemy is slow to import.
    from sqlalchemy import BigInteger, Column, LargeBinary, MetaData, String, Table  # noqa: PLC0415

    return Table(
        TABLE_NAME,
        MetaData(),
        # SQLite: counts up in the order of the commits.
        # PostgreSQL, where relays take rows in any order: when the event occurred (ns).
        Column("position", BigInteger, primary_key=True, autoincrement=False),
        Column("event_id", String(36), primary_key=True),
        Column("record", LargeBinary, nullable=False),
        # Without a rowid, because last_insert_rowid() belongs to the caller.
        sqlite_with_rowid=False,
    )


FIND_TABLES: Final = (
    "SELECT pg_catalog.quote_ident(n.nspname), d.oid::bigint, c.oid::bigint, d.datname,"
    " c.relhasrules OR EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid"
    " AND NOT t.tgisinternal), pg_catalog.has_table_privilege(c.oid, 'SELECT')"
    " AND NOT pg_catalog.row_security_active(c.oid), EXISTS (SELECT FROM pg_catalog.pg_trigger t"
    " WHERE t.tgrelid = c.oid AND t.tgdeferrable), pg_catalog.concat_ws(' and ',"
    " CASE WHEN NOT pg_catalog.has_any_column_privilege(c.oid, 'UPDATE') THEN 'UPDATE' END,"
    " CASE WHEN NOT pg_catalog.has_table_privilege(c.oid, 'DELETE') THEN 'DELETE' END)"
    " FROM pg_catalog.pg_class c"
    " JOIN pg_catalog.pg_database d ON d.datname = pg_catalog.current_database()"
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.relname = 'sidelight_outbox' AND c.relkind IN ('r', 'p')"
    " AND n.nspname !~ '^pg_' ORDER BY 1"
)
"""The outboxes of a PostgreSQL database, one for each schema: see `FoundTable`.

Events join the only one, or the one on the search path where there are several. A relay drains all.
"""


class FoundTable(NamedTuple):
    """A row of `FIND_TABLES`.

    Attributes:
        schema: quoted.
        database_id, table_id: oids.
        database: its name.
        may_leave_out: whether a trigger or a rule may leave a row out.
        is_readable: whether the role of the session may read all rows.
        may_undo: whether a trigger or a constraint may be deferred to the commit, when it can still
            take a row away, or fail the commit.
        lacks: the rights, besides SELECT, that the role of the session would need to move rows.
    """

    schema: str
    database_id: int
    table_id: int
    database: str
    may_leave_out: bool
    is_readable: bool
    may_undo: bool
    lacks: str

    @property
    def ids(self) -> tuple[int, int]:
        """The identity of the table."""
        return self.database_id, self.table_id

    @property
    def path(self) -> str:
        """Its name with its schema."""
        return f"{self.schema}.{TABLE_NAME}"

    def check_readable(self, shown: str) -> None:
        """Refuse to read some of the rows, as if they were all.

        Args:
            shown: the database's URL without secrets.

        Raises:
            OutboxError: the role of the session may not read all rows.
        """
        if not self.is_readable:
            problem = f"its role may not read all rows of {self.path}"
            raise OutboxError(url=shown, problem=problem, remedy=GRANT)
