"""Django's databases, by their alias.

The INSERT goes to the driver's cursor, past Django's: what the application logs or counts
(`connection.queries`, `assertNumQueries`, `execute_wrapper`) is what it was.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.db import connections, transaction
from django.db.utils import ConnectionDoesNotExist

if TYPE_CHECKING:
    from sidelight.transactions.psycopg_watch import Watched

from sidelight.emission import EMITTER
from sidelight.transactions.entry import ENDED, Entry, Refused
from sidelight.transactions.statements import check_postgres, run_postgres_insert, sqlite_insert


def alias(target: str) -> DjangoTransaction:
    """Look at the transaction of a database."""
    return DjangoTransaction(target)


class DjangoTransaction:
    """The transaction of a database in this thread."""

    awaited = False

    def __init__(self, target: str) -> None:
        self._alias = target
        try:
            self._connection: Any = connections[target]
        except ConnectionDoesNotExist as error:
            raise ValueError(f"there is no database {target!r}") from error
        self._outermost = self._connection.atomic_blocks[:1]

    def hush(self) -> Callable[[], object]:
        """Do nothing: Django flushes nothing."""
        return _nothing

    def check(self) -> None:
        """See `Transaction.check`."""
        if self._outermost and self._connection.atomic_blocks[:1] != self._outermost:
            raise Refused(ENDED)
        if not self._connection.in_atomic_block:
            raise Refused("autocommit" if self._connection.get_autocommit() else "no transaction")
        if self._connection.needs_rollback:
            raise Refused("broken transaction")

    def insert(self, entry: Entry) -> None:
        """Put an event into the outbox."""
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
            run_postgres_insert(cursor, [entry.row()], within=within)

    async def insert_awaited(self, entry: Entry) -> None:
        """Put an event into the outbox."""
        self.insert(entry)

    def after_commit(self, entry: Entry) -> None:
        """Emit an event once the transaction has committed; at once where there is none."""
        waiting = _Waiting(entry, self._connection)
        transaction.on_commit(waiting, using=self._alias, robust=True)


class _Waiting:
    """An event that waits for a commit. Django lets go of it where there is none.

    Of a commit that was not answered it tells nobody; psycopg's connection knows.
    """

    __slots__ = ("_entry", "_watched")

    def __init__(self, entry: Entry, connection: Any) -> None:
        self._entry: Entry | None = entry
        self._watched = _watched(connection)

    def __call__(self) -> None:
        """Emit it."""
        entry, self._entry = self._entry, None
        if entry is not None:
            entry.emit()

    def __del__(self) -> None:
        if self._entry is not None and self._watched is not None and self._watched.is_unknown:
            self._entry.forget()


def _watched(connection: Any) -> Watched | None:
    """What is known of the connection below; None where the driver is another."""
    psycopg = sys.modules.get("psycopg")
    if psycopg is None or not isinstance(connection.connection, psycopg.Connection):
        return None
    from sidelight.transactions.psycopg_watch import watch  # noqa: PLC0415  # where psycopg is

    return watch(connection.connection)


def _nothing() -> None:
    pass
