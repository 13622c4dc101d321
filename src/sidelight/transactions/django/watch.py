"""How the transactions of Django's databases end.

Below Django psycopg is watched by itself. The other drivers are watched by what Django does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from django.db import Error
from django.db.backends.signals import connection_created

from sidelight.host import guarded
from sidelight.transactions import control
from sidelight.transactions.control import Statement
from sidelight.transactions.django.state import State, dialect_of, state_of, uses_psycopg
from sidelight.transactions.entry import Entry
from sidelight.transactions.hooks import Contained, is_raised_by
from sidelight.transactions.reads import only_reads
from sidelight.transactions.turns import at_once
from sidelight.transactions.waiting import Waiting
from sidelight.transactions.work import End

#: What Django's connection has in its dictionary: how its transactions end, and the calls on it.
_WATCH: Final = "sidelight_watch"
CALLS: Final = "sidelight_calls"


class WaitingEvent:
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


class IdleEvent:
    """An event of a block that has sent nothing to the server, which needs no commit.

    Django calls it after each commit, but the server may have answered by a rollback, because the
    transaction had failed.
    """

    __slots__ = ("_commits", "_connection", "_ends", "_entry")

    def __init__(self, entry: Entry, connection: Any) -> None:
        self._entry = entry
        self._connection = connection
        watch = watch_of(connection)
        self._commits, self._ends = watch.commits, watch.ends

    def emit(self) -> None:
        """Emit the event, unless a transaction was begun and rolled back."""
        with Contained(self._entry.fail):
            watch = watch_of(self._connection)
            if watch.ends == self._ends or watch.commits != self._commits:
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
        self._is_savepoint = False  # whether the oldest savepoint is the whole transaction
        self._is_empty = False  # … and everything in it is undone

    def _forget_transaction(self) -> None:
        super()._forget_transaction()
        self._is_savepoint = self._is_empty = False

    def wait(self, entry: Entry) -> None:
        """Emit an event when the transaction has committed."""
        self.add(entry)

    def begin(self) -> None:
        """Begin to watch, by one call of C: after an interrupt all is there, or nothing."""
        self._connection.__dict__.update(
            {
                "_commit": self._overlaid("_commit", self._after_commit),
                "_rollback": self._overlaid("_rollback", self._after_rollback),
                "_close": self._overlaid("_close", self._after_rollback),
                # sqlite3 commits
                "_set_autocommit": self._overlaid("_set_autocommit", self._after_commit),
                "execute_wrappers": [self._execute, *self._connection.execute_wrappers],
                _WATCH: self,
            }
        )

    def _overlaid(self, name: str, ended: Callable[[State], None]) -> Callable[..., Any]:
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

        return call

    def _lose(self, error: Exception) -> None:
        """Drop the events and count them, because a hook has failed."""
        (self.doubt if self._connection.in_atomic_block else self.lose)(error)

    def _looked(self) -> State:
        """Return the state; count what waits for a transaction whose end was not seen."""
        state = state_of(self._connection)
        if state is State.IDLE:
            if self:
                self.unknown()
            self.statements.ended(End.UNKNOWN)
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
                sent = _statements(sql, context)
                self._take_in(sent, context)
                self._take_in_work(sql, sent, before, ends)
        except BaseException as error:
            with Contained(self._lose):
                sent = _statements(sql, context)
                self._take_in_perhaps(sql, sent)
                if is_raised_by(self._errors, error, handled):
                    self._has_failed(sent, before)
                elif not self._is_taken_in(ends) and before is not State.IDLE:
                    self._is_interrupted_at(sent, before)
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

    def _take_in_work(self, sql: Any, sent: Sequence[Statement], before: State, ends: int) -> None:
        """Take in what a text has done beside the control of the transaction."""
        if before is State.IDLE and [each.verb for each in sent] == [control.SAVEPOINT]:
            self._is_savepoint = True
        if not sent:
            reads = _reads(sql)
            self.statements.executed(reads=reads)
            if not reads:
                self._is_empty = False
                self.alone += before is State.IDLE and self._is_over() and self.ends == ends

    def _take_in_perhaps(self, sql: Any, sent: Sequence[Statement]) -> None:
        """Take in a text that may have left a part of its work, though it has failed.

        In SQLite the rows before the one that fails stay; in PostgreSQL nothing stays.
        """
        if self._is_over():
            return
        if len(sent) > 1:  # nothing tells which of them has failed
            self.statements.executed(reads=False)
            self.statements.ended(End.UNKNOWN)
        elif not sent or sent[0].verb == control.OTHER:
            self.statements.executed(reads=_reads(sql))

    def _take_in(self, sent: Sequence[Statement], context: Mapping[str, Any]) -> None:
        for each in sent:
            if each.verb == control.COMMIT:
                self._take_in_commit(context["cursor"], is_alone=len(sent) == 1)
            elif each.verb == control.RELEASE and self._is_over():
                # In SQLite a savepoint can be the whole transaction.
                (self.rolled_back if self._is_empty else self.committed)()
            else:
                if each.verb == control.ROLLBACK_TO:
                    self._is_empty = self._is_savepoint and not self._found(each.name)[0]
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


def _reads(sql: Any) -> bool:
    return isinstance(sql, str) and only_reads(sql)


def _statements(sql: Any, context: Mapping[str, Any]) -> list[Statement]:
    """Return the statements of a text that may control the transaction."""
    if hasattr(sql, "as_string"):  # of psycopg2.sql
        sql = sql.as_string(context["cursor"].connection)
    text = sql.decode("utf-8", "surrogateescape") if isinstance(sql, bytes) else str(sql)
    if not control.may_control(text):
        return []
    return list(control.statements(text, dialect_of(context["connection"])))


def watch_of(connection: Any) -> Any:
    """Watch the driver's connection, or Django's where the driver does not tell."""
    found = connection.__dict__.get(_WATCH)
    if uses_psycopg(connection):
        return _watch_psycopg(connection, found)
    if found is None:
        found = _Watch(connection)
        found.begin()
    return found


def _watch_psycopg(connection: Any, last: Any) -> Waiting:
    """Watch the connection of psycopg, which counts on from the one that Django had before.

    Args:
        connection: of Django.
        last: the watch of the last connection of psycopg.
    """
    from sidelight.transactions.psycopg.overlays import watch  # noqa: PLC0415  # needs psycopg
    from sidelight.transactions.psycopg.watch import Watch  # noqa: PLC0415

    raw = connection.connection
    found: Waiting = watch(raw) if raw is not None else Waiting() if last is None else last
    if isinstance(last, Watch) and (raw is None or found is not last):
        last.closed(is_autocommit=False)  # by Django
    if found is not last:
        counts = {} if last is None else found.continuing(last)
        # After an interrupt nothing is counted twice.
        at_once(
            partial(found.__dict__.update, counts),
            partial(connection.__dict__.__setitem__, _WATCH, found),
        )()
    return found


def _connected(connection: Any, **_: object) -> None:
    """Watch a new connection of a database from its beginning, if a call goes on."""
    if connection.__dict__.get(CALLS):
        with guarded(ran="library"):
            watch_of(connection)


connection_created.disconnect(dispatch_uid="sidelight")  # of an import that was interrupted
connection_created.connect(_connected, dispatch_uid="sidelight")
