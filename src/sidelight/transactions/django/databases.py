"""Django's databases, by their alias.

The INSERT goes to the driver's cursor, past Django's: the application's logs and counters
(`connection.queries`, `assertNumQueries`, `execute_wrapper`) show what they showed without it.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from django.db import connections, transaction
from django.utils.connection import ConnectionDoesNotExist

from sidelight.transactions.django.state import (
    State,
    commits_itself,
    is_in_autocommit,
    is_psycopg,
    state_of,
)
from sidelight.transactions.django.watch import CALLS, IdleEvent, WaitingEvent, watch_of
from sidelight.transactions.entry import (
    BROKEN,
    ENDED,
    Entry,
    Refused,
    RolledBackError,
    UndoneError,
    UnknownError,
)
from sidelight.transactions.libpq import check_postgres
from sidelight.transactions.savepoint import failed_closed
from sidelight.transactions.sqlite import sqlite_insert
from sidelight.transactions.statements import (
    PostgresInsert,
    bounded,
    execute_all,
    executing,
)
from sidelight.transactions.transaction import Transaction
from sidelight.transactions.turns import in_turn


class DjangoTransaction(Transaction):
    """The transaction of a database in this thread.

    The driver tells whether one is open. Django does not know of what the caller begins and ends by
    SQL, and `needs_rollback` can be unset.
    """

    def __init__(self, alias: str) -> None:
        self._alias = alias
        try:
            self._connection: Any = connections[alias]
        except ConnectionDoesNotExist as error:
            raise ValueError(f"there is no database {alias!r}") from error
        self._outermost = self._connection.atomic_blocks[:1]
        self._was_gone = state_of(self._connection) is State.GONE
        begun = watch_of(self._connection)
        self._commits, self._rollbacks = begun.commits, begun.rollbacks
        self._unknown, self._alone = begun.unknown_ends, begun.alone
        self._work = begun.begun()
        self._connection.__dict__.setdefault(CALLS, weakref.WeakSet()).add(self)

    def check(self) -> None:
        """See `Transaction.check`."""
        if self._outermost and self._connection.atomic_blocks[:1] != self._outermost:
            raise Refused(ENDED)
        if self.is_committed:
            raise Refused(ENDED)
        state = state_of(self._connection)
        if state is State.GONE:
            raise self._gone()
        if state is State.FAILED:
            raise Refused(BROKEN)
        if state is State.IDLE:
            self._check_idle()

    def _check_idle(self) -> None:
        """Check that the next statement begins a transaction of the caller's."""
        if self._is_undone:
            raise UndoneError
        if commits_itself(self._connection):
            raise Refused("autocommit" if is_in_autocommit(self._connection) else "no transaction")
        if not self._connection.in_atomic_block:
            raise Refused("no transaction")

    def _gone(self) -> Exception:
        """Return the error for a connection that has ended."""
        if self.is_alone:
            return Refused("no transaction")
        return Refused(BROKEN) if self._was_gone else UndoneError()

    @property
    def is_committed(self) -> bool:
        """See `Transaction.is_committed`."""
        begun = watch_of(self._connection)
        if not self.is_alone and begun.has_undone(self._work):
            raise UndoneError
        if begun.commits != self._commits:
            return True
        if begun.unknown_ends != self._unknown:
            raise UnknownError
        return self.is_alone and state_of(self._connection) in {State.OPEN, State.FAILED}

    @property
    def is_alone(self) -> bool:
        """See `Transaction.is_alone`."""
        return bool(watch_of(self._connection).alone != self._alone)

    @property
    def is_open(self) -> bool:
        """See `Transaction.is_open`."""
        state = state_of(self._connection)
        if state is State.IDLE:  # the next statement may begin a transaction
            return not self._is_undone and commits_itself(self._connection)
        return state is State.OPEN

    @property
    def _is_undone(self) -> bool:
        """Whether the work of the call was rolled back."""
        return watch_of(self._connection).rollbacks != self._rollbacks and not self.is_alone

    @property
    def place(self) -> object:
        """See `Transaction.place`."""
        return self._alias

    @property
    def is_begun(self) -> bool:
        """See `Transaction.is_begun`."""
        is_open = state_of(self._connection) in {State.OPEN, State.FAILED}
        return is_open or self._connection.in_atomic_block

    def insert(self, entry: Entry) -> None:
        """See `Transaction.insert`."""
        if self._connection.vendor not in {"sqlite", "postgresql"}:
            raise Refused("unsupported database")
        if self._connection.needs_rollback:
            if entry.strict:
                raise Refused(BROKEN)
            self.after_commit(entry)  # the mark can be taken away again
            return
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
            watch_of(self._connection).rolled_back()
            self._connection.needs_rollback = True  # so that Django takes no commit
            raise

    def _insert_in_sqlite(self, cursor: Any, entry: Entry, within: float | None) -> None:
        if self._connection.is_in_memory_db():
            raise Refused("unsupported database")
        path = os.fspath(Path(self._connection.settings_dict["NAME"]).absolute())
        raw = self._connection.connection
        rows = [entry.row()]
        in_turn(raw, within, lambda: sqlite_insert(cursor, raw, rows, path, within=within))

    def _insert_in_postgres(self, cursor: Any, entry: Entry, within: float | None) -> None:
        raw = self._connection.connection
        check_postgres(raw)
        insert = PostgresInsert([entry.row()], database=self._alias, within=within, raw=raw)
        if is_psycopg(raw):
            from sidelight.transactions.psycopg.connections import execute  # noqa: PLC0415

            execute(raw, insert, within)
        else:
            with failed_closed(raw):
                in_turn(raw, within, lambda: execute_all(insert, executing(cursor)))

    def after_commit(self, entry: Entry) -> None:
        """Emit an event once the transaction has committed; at once where there is none."""
        entry.settle()
        state = state_of(self._connection)
        if self.is_committed or (state is State.GONE and self.is_alone):
            entry.emit()  # the work is done
        elif state is State.GONE:
            raise self._gone()
        elif state is not State.IDLE:
            watch = watch_of(self._connection)
            watch.wait(entry)
            self._call_back(WaitingEvent(entry, watch).emit)
        elif self._is_undone:
            raise UndoneError
        elif commits_itself(self._connection):
            entry.emit()
        elif self._connection.in_atomic_block:
            self._call_back(IdleEvent(entry, self._connection).emit)
        else:
            raise Refused("no transaction")

    def _call_back(self, callback: Callable[[], None]) -> None:
        """Let Django call back, because tests call the hooks of blocks that never commit."""
        if self._connection.in_atomic_block:
            transaction.on_commit(callback, using=self._alias, robust=True)


ADAPTERS: Final[Mapping[type, Callable[[Any], DjangoTransaction]]] = {str: DjangoTransaction}
