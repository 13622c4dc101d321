"""Django's databases, by their alias.

The INSERT goes to the driver's cursor, past Django's: the application's logs and counters
(`connection.queries`, `assertNumQueries`, `execute_wrapper`) show what they showed without it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from django.db import Error, connections, transaction
from django.utils.connection import ConnectionDoesNotExist

from sidelight.transactions import control
from sidelight.transactions.control import Statement
from sidelight.transactions.django_state import (
    State,
    commits_itself,
    dialect_of,
    is_in_autocommit,
    is_psycopg,
    state_of,
)
from sidelight.transactions.entry import (
    BROKEN,
    ENDED,
    Entry,
    Refused,
    RolledBackError,
    UndoneError,
)
from sidelight.transactions.hooks import Contained, is_raised_by
from sidelight.transactions.statements import (
    bounded,
    check_postgres,
    execute_all,
    executing,
    postgres_insert,
    sqlite_insert,
)
from sidelight.transactions.transaction import Fate, Transaction
from sidelight.transactions.turns import turn
from sidelight.transactions.waiting import Waiting


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
        self._begun = _watch(self._connection)
        self._commits, self._rollbacks = self._begun.commits, self._begun.rollbacks

    def check(self) -> None:
        """See `Transaction.check`."""
        if self._outermost and self._connection.atomic_blocks[:1] != self._outermost:
            raise Refused(ENDED)
        if self._is_committed:
            raise Refused(ENDED)
        state = state_of(self._connection)
        if state in {State.FAILED, State.GONE}:
            raise Refused(BROKEN)
        if state is State.IDLE:
            self._check_idle()

    def _check_idle(self) -> None:
        """Check that the next statement begins a transaction of the caller's."""
        if self._begun.rollbacks != self._rollbacks:
            raise UndoneError
        if commits_itself(self._connection):
            raise Refused("autocommit" if is_in_autocommit(self._connection) else "no transaction")
        if not self._connection.in_atomic_block:
            raise Refused("no transaction")

    @property
    def _is_committed(self) -> bool:
        """Whether the transaction was committed since the call of the point began."""
        return bool(self._begun.commits != self._commits)

    @property
    def place(self) -> object:
        """See `Transaction.place`."""
        return self._alias

    @property
    def is_begun(self) -> bool:
        """See `Transaction.is_begun`."""
        is_open = state_of(self._connection) in {State.OPEN, State.FAILED}
        return is_open or self._connection.in_atomic_block

    def fate(self) -> Fate:
        """See `Transaction.fate`; the statements of a call are not known."""
        state = state_of(self._connection)
        if self._is_committed:
            return Fate.DECIDED
        if state is State.OPEN:
            return Fate.OPEN
        if state is not State.IDLE or self._begun.rollbacks != self._rollbacks:
            return Fate.NOTHING
        return Fate.OPEN if commits_itself(self._connection) else Fate.NOTHING

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
            _watch(self._connection).rolled_back()
            self._connection.needs_rollback = True  # so that Django takes no commit
            raise

    def _insert_in_sqlite(self, cursor: Any, entry: Entry, within: float | None) -> None:
        if self._connection.is_in_memory_db():
            raise Refused("unsupported database")
        path = os.fspath(Path(self._connection.settings_dict["NAME"]).absolute())
        raw = self._connection.connection
        with turn(raw, within):
            sqlite_insert(cursor, raw, [entry.row()], path, within=within)

    def _insert_in_postgres(self, cursor: Any, entry: Entry, within: float | None) -> None:
        raw = self._connection.connection
        check_postgres(raw)
        statements = postgres_insert([entry.row()], database=self._alias, within=within)
        if is_psycopg(raw):
            from sidelight.transactions.psycopg.connections import execute  # noqa: PLC0415

            execute(raw, statements, within)
        else:
            with turn(raw, within):
                execute_all(statements, executing(cursor))

    def after_commit(self, entry: Entry) -> None:
        """Emit an event once the transaction has committed; at once where there is none."""
        entry.settle()
        state = state_of(self._connection)
        if self._is_committed:
            entry.emit()  # the work is done
        elif state is State.GONE:
            raise Refused(BROKEN)
        elif state is not State.IDLE:
            watch = _watch(self._connection)
            watch.wait(entry)
            self._call_back(_Waiting(entry, watch).emit)
        elif self._begun.rollbacks != self._rollbacks:
            raise UndoneError
        elif commits_itself(self._connection):
            entry.emit()
        elif self._connection.in_atomic_block:
            self._call_back(_Idle(entry, _watch(self._connection)).emit)
        else:
            raise Refused("no transaction")

    def _call_back(self, callback: Callable[[], None]) -> None:
        """Let Django call back, because tests call the hooks of blocks that never commit."""
        if self._connection.in_atomic_block:
            transaction.on_commit(callback, using=self._alias, robust=True)


class _Waiting:
    """An event that waits for the driver's commit, unless a test calls Django's hooks."""

    __slots__ = ("_entry", "_watch")

    def __init__(self, entry: Entry, watch: Waiting) -> None:
        self._entry = entry
        self._watch = watch

    def emit(self) -> None:
        """Emit the event if it is waiting still."""
        with Contained(self._entry.fail):
            if self._watch.taken(self._entry):
                self._entry.emit()


class _Idle:
    """An event of a block that has sent nothing to the server, which needs no commit.

    Django calls it after each commit, but the server may have answered by a rollback, because the
    transaction had failed.
    """

    __slots__ = ("_commits", "_ends", "_entry", "_watch")

    def __init__(self, entry: Entry, watch: Waiting) -> None:
        self._entry = entry
        self._watch = watch
        self._commits, self._ends = watch.commits, watch.ends

    def emit(self) -> None:
        """Emit the event, unless a transaction was begun and rolled back."""
        with Contained(self._entry.fail):
            if self._watch.ends == self._ends or self._watch.commits != self._commits:
                self._entry.emit()


class _Watch(Waiting):
    """How the transactions of sqlite3 and psycopg2 end, as their state before and after tells.

    Django has no hooks around a commit, so its methods that end a transaction are overlaid. The
    caller's SQL is seen by an `execute_wrapper`. It is the outermost one, and the first of Django's
    list, because Django takes the last one off.
    """

    def __init__(self, connection: Any) -> None:
        super().__init__()
        self._connection = connection
        self._errors = connection.Database.Error, Error
        self._overlay("_commit", self._after_commit)
        self._overlay("_rollback", self._after_rollback)
        self._overlay("_close", self._after_rollback)
        self._overlay("_set_autocommit", self._after_commit)  # sqlite3 commits
        connection.execute_wrappers.insert(0, self._execute)

    def wait(self, entry: Entry) -> None:
        """Emit an event when the transaction has committed."""
        self.add(entry)

    def _overlay(self, name: str, ended: Callable[[State], None]) -> None:
        original = getattr(self._connection, name)

        def call(*arguments: Any) -> Any:
            before = State.OPEN
            with Contained(self._lose):
                before = self._looked()
            ends, handled = self.ends, sys.exc_info()[1]
            try:
                answer = original(*arguments)
                with Contained(self._lose):
                    if before is not State.IDLE and self._is_over():
                        ended(before)
            except BaseException as error:
                with Contained(self._lose):
                    if is_raised_by(self._errors, error, handled):
                        self._has_failed([], before)
                    elif not self._is_taken_in(ends) and before is not State.IDLE:
                        self._is_interrupted(partial(ended, before))
                raise
            return answer

        setattr(self._connection, name, call)

    def _lose(self, error: Exception) -> None:
        """Drop the events and count them, because a hook has failed."""
        (self.doubt if self._connection.in_atomic_block else self.lose)(error)

    def _looked(self) -> State:
        """Return the state; count what waits for a transaction whose end was not seen."""
        state = state_of(self._connection)
        if state is State.IDLE and self:
            self.unknown()
        return state

    def _is_over(self) -> bool:
        return state_of(self._connection) in {State.IDLE, State.GONE}

    def _after_commit(self, before: State) -> None:
        if before is State.OPEN:
            self.committed()
        else:
            self.rolled_back()

    def _after_rollback(self, _: State) -> None:
        self.rolled_back()

    def _execute(self, execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        before = State.OPEN
        with Contained(self._lose):
            before = self._looked()
        ends, handled = self.ends, sys.exc_info()[1]
        try:
            answer = execute(sql, params, many, context)
            with Contained(self._lose):
                self._take_in(_statements(sql, context), context)
        except BaseException as error:
            with Contained(self._lose):
                if is_raised_by(self._errors, error, handled):
                    self._has_failed(_statements(sql, context), before)
                elif not self._is_taken_in(ends) and before is not State.IDLE:
                    self._is_interrupted_at(_statements(sql, context), before)
            raise
        return answer

    def _is_taken_in(self, ends: int) -> bool:
        """Return whether an end was taken in since there were so many; go on with one."""
        return self.finish() or self.ends != ends

    def _is_interrupted(self, ended: Callable[[], None]) -> None:
        """Take in what an interrupt has struck before or behind an end of the transaction.

        Args:
            ended: takes in the end.
        """
        state = state_of(self._connection)
        if state is State.GONE:
            self.unknown()
        elif state is State.IDLE:
            ended()

    def _is_interrupted_at(self, sent: Sequence[Statement], before: State) -> None:
        """Take in a statement that was interrupted before or behind its execution."""
        verbs = {each.verb for each in sent}
        if self._is_over() and len(sent) == 1 and verbs <= {control.COMMIT, control.RELEASE}:
            self._is_interrupted(partial(self._after_commit, before))
        elif self._is_over() and sent:
            self._is_interrupted(self.rolled_back if len(sent) == 1 else self.unknown)
        else:
            for each in sent:
                if each.verb == control.SAVEPOINT:
                    self.executed(each)  # one too many does no harm
            self.is_doubtful = self.is_doubtful or control.ROLLBACK_TO in verbs

    def _take_in(self, sent: Sequence[Statement], context: Mapping[str, Any]) -> None:
        for each in sent:
            if each.verb == control.COMMIT:
                self._take_in_commit(context["cursor"], is_alone=len(sent) == 1)
            elif each.verb == control.RELEASE and self._is_over():
                self.committed()  # in SQLite a savepoint can be the whole transaction
            else:
                self.executed(each)

    def _take_in_commit(self, cursor: Any, *, is_alone: bool) -> None:
        """Take in a COMMIT: psycopg2 has its tag, and in SQLite one that fails raises an error."""
        tag = getattr(cursor, "statusmessage", control.COMMIT)
        if not is_alone:
            self.unknown()
        elif tag == control.COMMIT:
            self.committed()
        else:
            self.rolled_back()

    def _has_failed(self, sent: Sequence[Statement], before: State) -> None:
        """Take in an error, which may have ended the transaction."""
        verbs = [each.verb for each in sent]
        ending = [verb for verb in verbs if verb in control.ENDS]
        if before is State.IDLE:
            return
        state = state_of(self._connection)
        if state is State.GONE and control.COMMIT in ending:
            self.unknown()
        elif self._is_over() and (len(sent) < 2 or ending[:1] != [control.COMMIT]):
            self.rolled_back()
        elif len(sent) > 1 and (ending or control.ROLLBACK_TO in verbs):
            self.unknown()  # nothing tells which of them has failed


def _statements(sql: Any, context: Mapping[str, Any]) -> list[Statement]:
    """Return the statements of a text that may control the transaction."""
    if hasattr(sql, "as_string"):  # of psycopg2.sql
        sql = sql.as_string(context["cursor"].connection)
    text = sql.decode("utf-8", "surrogateescape") if isinstance(sql, bytes) else str(sql)
    if not control.may_control(text):
        return []
    return list(control.statements(text, dialect_of(context["connection"])))


def _watch(connection: Any) -> Any:
    """Watch the driver's connection, or Django's where the driver does not tell."""
    if is_psycopg(connection.connection):
        from sidelight.transactions.psycopg.watch import watch  # noqa: PLC0415  # needs psycopg

        return watch(connection.connection)
    found = connection.__dict__.get("sidelight_watch")
    if found is None:
        found = connection.sidelight_watch = _Watch(connection)
    return found


ADAPTERS: Final[Mapping[type, Callable[[Any], DjangoTransaction]]] = {str: DjangoTransaction}
