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
from typing import TYPE_CHECKING, Any, Final, Protocol

from django.db import connections, transaction
from django.utils.connection import ConnectionDoesNotExist

if TYPE_CHECKING:
    from sidelight.transactions.psycopg.watch import Watch

from sidelight.transactions.entry import BROKEN, ENDED, Entry, Refused, RolledBackError
from sidelight.transactions.statements import (
    bounded,
    check_postgres,
    execute_all,
    executing,
    postgres_insert,
    sqlite_insert,
)
from sidelight.transactions.transaction import Transaction

#: Transaction statuses in libpq's numbers.
_IDLE: Final = 0
_INTRANS: Final = 2


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
        try:
            with (
                bounded(self._alias, strict=entry.strict) as within,
                contextlib.closing(self._connection.connection.cursor()) as cursor,
            ):
                if self._connection.vendor == "sqlite":
                    self._insert_in_sqlite(cursor, entry, within)
                else:
                    self._insert_in_postgres(cursor, entry, within)
        except RolledBackError:
            self._connection.needs_rollback = True  # so that Django takes no commit
            raise

    def _insert_in_sqlite(self, cursor: Any, entry: Entry, within: float | None) -> None:
        if self._connection.is_in_memory_db():
            raise Refused("unsupported database")
        path = os.fspath(Path(self._connection.settings_dict["NAME"]).absolute())
        sqlite_insert(cursor, self._connection.connection, [entry.row()], path, within=within)

    def _insert_in_postgres(self, cursor: Any, entry: Entry, within: float | None) -> None:
        raw = self._connection.connection
        check_postgres(raw)
        statements = postgres_insert([entry.row()], database=self._alias, within=within)
        if _is_psycopg(raw):
            from sidelight.transactions.psycopg.connections import execute  # noqa: PLC0415

            execute(raw, statements, within)
        else:
            execute_all(statements, executing(cursor))

    def after_commit(self, entry: Entry) -> None:
        """Emit an event once the transaction has committed; at once where there is none."""
        waiting = _Waiting(entry, self._connection)
        transaction.on_commit(waiting, using=self._alias, robust=True)


class _Waiting:
    """An event that waits for a commit; without a commit, Django drops it.

    Django calls it after each commit, but the server may have answered by a rollback, because the
    transaction had failed. The driver's connection knows that.
    """

    __slots__ = ("_entry", "_proof")

    def __init__(self, entry: Entry, connection: Any) -> None:
        self._proof = _proof(connection)
        self._entry: Entry | None = entry  # last: `__del__` needs both

    def __call__(self) -> None:
        """Emit the event, or drop it where it was rolled back, or count it as lost."""
        entry, self._entry = self._entry, None
        if entry is None:
            return
        is_committed = self._proof.is_committed()
        if is_committed:
            entry.emit()
        elif is_committed is None:
            entry.forget()

    def __del__(self) -> None:
        entry: Entry | None = getattr(self, "_entry", None)
        if entry is not None and self._proof.is_unknown():
            entry.forget()


class _Proof(Protocol):
    """Tells how the transaction that was open when it was made has ended."""

    def is_committed(self) -> bool | None:
        """Return whether a commit has succeeded; None where nothing tells. Asked after a commit."""
        ...

    def is_unknown(self) -> bool:
        """Return whether nothing tells how it ended. Asked where Django has dropped the event."""
        ...


class _Watched:
    """psycopg: the command tags that the server has sent."""

    def __init__(self, watched: Watch) -> None:
        self._watch = watched
        self._commits, self._ends = watched.commits, watched.ends

    def is_committed(self) -> bool:
        """See `_Proof.is_committed`."""
        return self._watch.ends == self._ends or self._watch.commits != self._commits

    def is_unknown(self) -> bool:
        """See `_Proof.is_unknown`."""
        return self._watch.is_unknown


class _Looked:
    """sqlite3 and psycopg2: whether a sound transaction was open when Django committed it."""

    def __init__(self, looked: _Commits) -> None:
        self._looked = looked
        self._number, self._begun = looked.number, looked.is_open()

    def is_committed(self) -> bool | None:
        """See `_Proof.is_committed`; None where a statement of the caller has ended it."""
        if self._looked.number == self._number:  # a test has called the hooks
            return True
        was_open = self._looked.was_open
        return None if was_open is None and self._begun else was_open is not False

    def is_unknown(self) -> bool:
        """See `_Proof.is_unknown`."""
        return False


class _Commits:
    """Looks at a driver's transaction before each commit of a Django connection.

    Attributes:
        number: of the last commit.
        was_open: what `is_open` said before it.
    """

    def __init__(self, connection: Any) -> None:
        self.number = 0
        self.was_open: bool | None = None
        self._connection = connection
        self._commit = connection._commit  # noqa: SLF001  # there is no hook before a commit
        connection._commit = self._look_and_commit  # noqa: SLF001

    def _look_and_commit(self) -> Any:
        self.number, self.was_open = self.number + 1, self.is_open()
        return self._commit()

    def is_open(self) -> bool | None:
        """Return whether a transaction is open.

        Return False where it has failed, None where there is none.
        """
        raw = self._connection.connection
        if self._connection.vendor == "sqlite":
            return raw.in_transaction or None
        info = getattr(raw, "info", None)
        status = _INTRANS if info is None else info.transaction_status
        return None if status == _IDLE else status == _INTRANS


def _proof(connection: Any) -> _Proof:
    if _is_psycopg(connection.connection):
        from sidelight.transactions.psycopg.watch import watch  # noqa: PLC0415  # needs psycopg

        return _Watched(watch(connection.connection))
    looked = connection.__dict__.get("sidelight_commits")
    if looked is None:
        looked = connection.sidelight_commits = _Commits(connection)
    return _Looked(looked)


def _is_psycopg(raw: Any) -> bool:
    psycopg = sys.modules.get("psycopg")
    return psycopg is not None and isinstance(raw, psycopg.Connection)


ADAPTERS: Final[Mapping[type, Callable[[Any], DjangoTransaction]]] = {str: DjangoTransaction}
