"""Django's databases, by their alias.

The INSERT goes to the driver's cursor, past Django's: what the application logs or counts
(`connection.queries`, `assertNumQueries`, `execute_wrapper`) is what it was.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.db import connections, transaction
from django.db.utils import ConnectionDoesNotExist

from sidelight.emitter import emitter
from sidelight.stacks.statements import BACK, check_postgres, postgres_insert, sqlite_insert
from sidelight.transaction import ENDED, Entry, Refused


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
        within = None if entry.strict else emitter.deadline
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
            try:
                cursor.execute(postgres_insert([entry.row()], within=within))
            except BaseException:
                if within is not None:
                    with contextlib.suppress(Exception):  # the connection is gone
                        cursor.execute(BACK)
                raise

    async def insert_awaited(self, entry: Entry) -> None:
        """Put an event into the outbox."""
        self.insert(entry)

    def after_commit(self, entry: Entry) -> None:
        """Emit an event once the transaction has committed; at once where there is none."""
        transaction.on_commit(entry.emit, using=self._alias, robust=True)


def _nothing() -> None:
    pass
