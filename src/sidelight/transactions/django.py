"""Django's databases, by their alias.

The INSERT goes to the driver's cursor, past Django's: the application's logs and counters
(`connection.queries`, `assertNumQueries`, `execute_wrapper`) show what they showed without it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from django.db import connections, transaction
from django.db.utils import ConnectionDoesNotExist

if TYPE_CHECKING:
    from sidelight.transactions.psycopg.watch import Watch

from sidelight.emission import EMITTER
from sidelight.transactions.entry import ENDED, Entry, Refused, keep_settings
from sidelight.transactions.statements import (
    check_postgres,
    execute_all,
    postgres_insert,
    sqlite_insert,
)


class DjangoTransaction:
    """The transaction of a database in this thread."""

    needs_await = False

    def __init__(self, alias: str) -> None:
        self._alias = alias
        try:
            self._connection: Any = connections[alias]
        except ConnectionDoesNotExist as error:
            raise ValueError(f"there is no database {alias!r}") from error
        self._outermost = self._connection.atomic_blocks[:1]

    def suspend_autoflush(self) -> Callable[[], object]:
        """Do nothing: Django flushes nothing."""
        return keep_settings

    def check(self) -> None:
        """See `Transaction.check`."""
        if self._outermost and self._connection.atomic_blocks[:1] != self._outermost:
            raise Refused(ENDED)
        if not self._connection.in_atomic_block:
            raise Refused("autocommit" if self._connection.get_autocommit() else "no transaction")
        if self._connection.needs_rollback:
            raise Refused("broken transaction")

    def insert(self, entry: Entry) -> None:
        """Insert an event into the outbox."""
        within = None if entry.strict else EMITTER.deadline
        raw = self._connection.connection
        if self._connection.vendor not in {"sqlite", "postgresql"}:
            raise Refused("unsupported database")
        with contextlib.closing(raw.cursor()) as cursor:
            if self._connection.vendor == "sqlite":
                if self._connection.is_in_memory_db():
                    raise Refused("unsupported database")
                path = os.fspath(Path(self._connection.settings_dict["NAME"]).absolute())
                sqlite_insert(cursor, [entry.row()], path, within=within)
                return
            check_postgres(raw)
            statements = postgres_insert([entry.row()], within=within)
            if _is_psycopg(raw):
                from sidelight.transactions.psycopg.connections import execute  # noqa: PLC0415

                execute(raw, statements)
            else:
                execute_all(statements, cursor.execute)

    async def insert_awaited(self, entry: Entry) -> None:
        """Insert an event into the outbox."""
        self.insert(entry)

    def after_commit(self, entry: Entry) -> None:
        """Emit an event once the transaction has committed; at once where there is none."""
        waiting = _Waiting(entry, self._connection)
        transaction.on_commit(waiting, using=self._alias, robust=True)


class _Waiting:
    """An event that waits for a commit; without a commit, Django drops it.

    Django does not tell of a commit that was not answered, but psycopg's connection does.
    """

    __slots__ = ("_entry", "_watch")

    def __init__(self, entry: Entry, connection: Any) -> None:
        self._entry: Entry | None = entry
        self._watch = _watch(connection)

    def __call__(self) -> None:
        """Emit the event."""
        entry, self._entry = self._entry, None
        if entry is not None:
            entry.emit()

    def __del__(self) -> None:
        if self._entry is not None and self._watch is not None and self._watch.is_unknown:
            self._entry.forget()


def _watch(connection: Any) -> Watch | None:
    """Watch psycopg's connection below Django's; None with another driver."""
    if not _is_psycopg(connection.connection):
        return None
    from sidelight.transactions.psycopg.watch import watch  # noqa: PLC0415  # needs psycopg

    return watch(connection.connection)


def _is_psycopg(raw: Any) -> bool:
    psycopg = sys.modules.get("psycopg")
    return psycopg is not None and isinstance(raw, psycopg.Connection)


ADAPTERS: Final[Mapping[type, Callable[[Any], DjangoTransaction]]] = {str: DjangoTransaction}
