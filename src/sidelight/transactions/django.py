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

from sidelight.transactions.entry import BROKEN, ENDED, Entry, Refused
from sidelight.transactions.statements import (
    bounded,
    check_postgres,
    execute_all,
    executing,
    postgres_insert,
    sqlite_insert,
)
from sidelight.transactions.transaction import Transaction


class DjangoTransaction(Transaction):
    """The transaction of a database in this thread."""

    def __init__(self, alias: str) -> None:
        self._alias = alias
        try:
            self._connection: Any = connections[alias]
        except ConnectionDoesNotExist as error:
            raise ValueError(f"there is no database {alias!r}") from error
        self._outermost = self._connection.atomic_blocks[:1]

    def check(self) -> None:
        """See `Transaction.check`."""
        if self._outermost and self._connection.atomic_blocks[:1] != self._outermost:
            raise Refused(ENDED)
        if not self._connection.in_atomic_block:
            raise Refused("autocommit" if self._connection.get_autocommit() else "no transaction")
        if self._connection.needs_rollback:
            raise Refused(BROKEN)

    def insert(self, entry: Entry) -> None:
        """See `Transaction.insert`."""
        if self._connection.vendor not in {"sqlite", "postgresql"}:
            raise Refused("unsupported database")
        with (
            bounded(self._alias, strict=entry.strict) as within,
            contextlib.closing(self._connection.connection.cursor()) as cursor,
        ):
            if self._connection.vendor == "sqlite":
                self._insert_in_sqlite(cursor, entry, within)
            else:
                self._insert_in_postgres(cursor, entry, within)

    def _insert_in_sqlite(self, cursor: Any, entry: Entry, within: float | None) -> None:
        if self._connection.is_in_memory_db():
            raise Refused("unsupported database")
        path = os.fspath(Path(self._connection.settings_dict["NAME"]).absolute())
        sqlite_insert(cursor, [entry.row()], path, within=within)

    def _insert_in_postgres(self, cursor: Any, entry: Entry, within: float | None) -> None:
        raw = self._connection.connection
        check_postgres(raw)
        statements = postgres_insert([entry.row()], database=self._alias, within=within)
        if _is_psycopg(raw):
            from sidelight.transactions.psycopg.connections import execute  # noqa: PLC0415

            execute(raw, statements)
        else:
            execute_all(statements, executing(cursor))

    def after_commit(self, entry: Entry) -> None:
        """Emit an event once the transaction has committed; at once where there is none."""
        waiting = _Waiting(entry, self._connection)
        transaction.on_commit(waiting, using=self._alias, robust=True)


class _Waiting:
    """An event that waits for a commit; without a commit, Django drops it.

    Django calls it after each commit, but psycopg's connection knows how the server answered: by a
    rollback, where the transaction had failed, or not at all.
    """

    __slots__ = ("_commits", "_ends", "_entry", "_watch")

    def __init__(self, entry: Entry, connection: Any) -> None:
        self._entry: Entry | None = entry
        self._watch = found = _watch(connection)
        self._commits, self._ends = (0, 0) if found is None else (found.commits, found.ends)

    def __call__(self) -> None:
        """Emit the event."""
        entry, self._entry = self._entry, None
        if entry is not None and not self._is_undone():
            entry.emit()

    def _is_undone(self) -> bool:
        found = self._watch
        return found is not None and found.ends != self._ends and found.commits == self._commits

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
