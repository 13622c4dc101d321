"""The events that wait for the commit of a SQLAlchemy connection, and what it executes meanwhile.

SQLAlchemy tells of statements by events. The methods that commit and roll back are overlaid. A
commit counts only if the transaction was sound before it, because some servers answer the COMMIT of
a failed transaction by a rollback and no error.
"""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from sqlalchemy.engine import Connection, ExceptionContext

from sidelight.transactions import control
from sidelight.transactions.entry import Entry
from sidelight.transactions.hooks import Contained, is_raised_by
from sidelight.transactions.reads import only_reads
from sidelight.transactions.sqlalchemy import departures, listening, two_phases
from sidelight.transactions.sqlalchemy.departures import is_lost
from sidelight.transactions.sqlalchemy.drivers import driver_of
from sidelight.transactions.sqlalchemy.interrupted import (
    commit_has_ended,
    rollback_has_ended,
    take_in_interrupted,
)
from sidelight.transactions.sqlalchemy.protocol import Answers, Driver
from sidelight.transactions.waiting import Waiting
from sidelight.transactions.work import End, Work

_ATTRIBUTE: Final = "_sidelight_watch"


class Watch(Waiting):
    """The transactions of one connection.

    Attributes:
        has_begun: whether the driver was in a transaction when an event began to wait, or when the
            last statement was executed.
        has_failed: whether a statement has failed in the transaction.
        was_in_vain: whether the last commit was answered by a rollback, or not sent at all.
        was_open: whether a transaction was open when an error has invalidated the connection; None
            where nothing tells.
        is_blind: whether SQL has ended the transaction in a pipeline. psycopg sends no BEGIN there,
            so that nothing tells whether the next statement is committed.
        outlives: whether the transaction stays when the connection is dropped without a close.
    """

    def __init__(self, driver: Driver, *, outlives: bool) -> None:
        super().__init__()
        self.outlives = outlives
        self._driver = driver
        self.has_begun = self.has_failed = False
        self.was_in_vain = False
        self.was_open: bool | None = None
        self.is_blind = False

    @property
    def is_used(self) -> bool:
        """Whether the transaction has events or work that its end decides on."""
        return self.statements.standing.last > 0 or bool(self)

    def _forget_transaction(self) -> None:
        self.has_begun = self.has_failed = self.is_blind = False
        super()._forget_transaction()

    def settle(self, connection: Connection) -> None:
        """Look whether the statements that were executed are in a transaction."""
        if not self.statements.standing.last:
            return
        if self.is_blind:
            self.statements.ended(End.UNKNOWN)
        elif self._driver.has_begun(connection):
            self.has_begun = True
        elif self._driver.commits_alone(connection):
            self.statements.ended(End.ALONE)

    def wait(self, connection: Connection, entry: Entry) -> None:
        """Emit an event when the transaction of the connection has committed."""
        if connection.invalidated:  # its transaction is undone
            if is_autocommit(connection):
                entry.forget()
        elif self.is_blind:
            entry.forget()
        elif not self._driver.takes(connection, entry):
            self.hold(connection, entry)

    def hold(self, connection: Connection, entry: Entry) -> None:
        """Keep an event until the transaction of the connection ends."""
        self.has_begun = self.has_begun or self._driver.has_begun(connection)
        self.outlives = departures.outlives(connection) or self._driver.leaves_open(connection)
        self.add(entry)

    def __del__(self) -> None:
        super().__del__()
        if getattr(self, "outlives", False):  # nothing tells how the pool has ended it
            self.unknown()

    def check_open(self, connection: Connection) -> None:
        """Count what waits for a transaction that has ended past SQLAlchemy, by the driver."""
        if self.has_begun and self.is_used and not connection.invalidated:
            try:
                is_open = self._driver.has_begun(connection)
            except Exception:  # noqa: BLE001  # the driver's connection may be closed
                return
            if not is_open:
                self.unknown()

    def is_sound(self, connection: Connection) -> bool:
        """Return whether the work of all events can still be committed."""
        if connection.invalidated:
            return False
        if self.has_begun and not self._driver.has_begun(connection):
            return False
        return self._driver.is_sound(connection, ask=bool(self) or self.has_failed)


def watch(connection: Connection) -> Watch:
    """Watch a connection; once for each.

    An interrupt may arrive at any time. The connection is watched wholly then, or not yet.
    """
    found: Watch | None = connection.__dict__.get(_ATTRIBUTE)
    if found is None:
        listening.listen(connection.engine, _LISTENERS)
        found = Watch(driver_of(connection), outlives=departures.outlives(connection))
        kind: Any = type(connection)
        living = _living(connection)
        overlays = {
            _ATTRIBUTE: found,
            "_commit_impl": _committing(kind._commit_impl, living, found),  # noqa: SLF001
            "_rollback_impl": _rolling_back(kind._rollback_impl, living, found),  # noqa: SLF001
            **departures.overlays(kind, living, found),
            **two_phases.overlays(
                kind,
                living,
                found,
                commit=_committing(kind._commit_twophase_impl, living, found),  # noqa: SLF001
                rollback=_rolling_back(kind._rollback_twophase_impl, living, found),  # noqa: SLF001
            ),
        }
        connection.__dict__.update(overlays)
    return found


class ConnectionWork(Work):
    """The statements that a connection has executed since a call began."""

    __slots__ = ("connection",)

    def __init__(self, connection: Connection) -> None:
        super().__init__(watch(connection).statements)
        self.connection = connection


def _living(connection: Connection) -> Callable[[], Connection]:
    """Return what returns a connection, which its overlays must not keep alive."""
    weakly = weakref.ref(connection)

    def living() -> Connection:
        connection = weakly()
        assert connection is not None  # noqa: S101  # its method is being called
        return connection

    return living


def _committing(
    commit: Callable[..., None], living: Callable[[], Connection], found: Watch
) -> Callable[..., None]:
    """Return what overlays a method that commits: SQLAlchemy has no event after the commit."""

    def commit_and_emit(*arguments: Any) -> None:
        connection, answers = living(), None
        with Contained(found.doubt):
            answers = driver_of(connection).own_answers(connection)
        if answers is not None:
            _commit_in_pipeline(found, connection, answers, partial(commit, connection, *arguments))
            return
        with Contained(found.lose):
            found.check_open(connection)
        was_lost = connection.invalidated  # SQLAlchemy sends no COMMIT then
        found.was_in_vain = not _is_sound(found, connection)
        ends, handled = found.ends, sys.exc_info()[1]
        try:
            commit(connection, *arguments)
            with Contained(found.lose):
                _take_in_returned_commit(found, connection)
        except BaseException as error:
            with Contained(found.lose):
                of_driver = connection.dialect.loaded_dbapi.Error
                if found.finish() or found.ends != ends:
                    pass  # it was taken in
                elif was_lost or is_raised_by(of_driver, error, handled):
                    _take_in_failed_commit(found, connection, was_lost=was_lost)
                elif commit_has_ended(found, connection):
                    _take_in_returned_commit(found, connection)
            raise

    return commit_and_emit


def _rolling_back(
    roll_back: Callable[..., None], living: Callable[[], Connection], found: Watch
) -> Callable[..., None]:
    """Return what overlays a method that rolls back: SQLAlchemy has no event after the rollback."""

    def roll_back_and_drop(*arguments: Any) -> None:
        connection, take_in = living(), found.rolled_back
        with Contained(found.lose):
            found.check_open(connection)
            if found.is_used and _is_unproved(connection):
                take_in = found.unknown
        ends, handled = found.ends, sys.exc_info()[1]
        try:
            roll_back(connection, *arguments)
            with Contained(found.lose):
                take_in()
        except BaseException as error:
            with Contained(found.lose):
                of_driver = connection.dialect.loaded_dbapi.Error
                if found.finish() or found.ends != ends:
                    pass  # it was taken in
                elif is_raised_by(of_driver, error, handled) or (
                    rollback_has_ended(found, connection)
                ):
                    take_in()
            raise

    return roll_back_and_drop


def _is_sound(found: Watch, connection: Connection) -> bool:
    """Ask whether the work of all events can be committed; a cancelled question ends it."""
    try:
        with Contained(found.doubt):
            return found.is_sound(connection)
    except BaseException as error:
        # As where SQLAlchemy's COMMIT is cancelled: else the connection goes back to the pool with
        # the transaction open, because SQLAlchemy takes a commit that has raised as ended.
        found.rolled_back()
        connection.invalidate(error)
        raise
    return True


def _take_in_failed_commit(found: Watch, connection: Connection, *, was_lost: bool) -> None:
    if connection.invalidated and not was_lost:
        found.unknown()
    elif was_lost or driver_of(connection).ends_at_failed_commit(connection):
        found.rolled_back()


def _take_in_returned_commit(found: Watch, connection: Connection) -> None:
    if found.was_in_vain:
        found.rolled_back()
    elif found.is_used and _is_left_open(connection):
        found.was_in_vain = True
        found.unknown()
    else:
        found.committed()


def commits_itself(connection: Connection) -> bool:
    """Return whether each statement commits by itself; a lost connection is not connected again."""
    return not is_lost(connection) and driver_of(connection).commits_itself(connection)


def is_open(connection: Connection) -> bool:
    """Return whether the next statement on a connection is part of a transaction."""
    return not is_lost(connection) and not driver_of(connection).commits_itself(connection)


def is_autocommit(connection: Connection) -> bool:
    """Return whether each statement commits by itself, unless SQL has begun a transaction."""
    return connection._is_autocommit_isolation()  # noqa: SLF001


def _commit_in_pipeline(
    found: Watch, connection: Connection, answers: Answers, commit: Callable[[], None]
) -> None:
    """Commit and emit where only the answer to the COMMIT tells whether it was sound."""
    is_empty, has_returned, has_failed, found.was_in_vain = False, False, False, True
    tags: list[bytes] = []
    handled = sys.exc_info()[1]
    with contextlib.ExitStack() as collecting:
        with Contained(found.doubt):
            is_empty = not driver_of(connection).has_begun(connection)
            tags = collecting.enter_context(answers)
        try:
            commit()
            has_returned = True
        except BaseException as error:
            has_failed = is_raised_by(connection.dialect.loaded_dbapi.Error, error, handled)
            raise
        finally:
            with Contained(found.lose):
                if tags[-1:] == [b"COMMIT"] or (has_returned and is_empty):
                    found.was_in_vain = False
                    found.committed()
                elif connection.invalidated or not (tags or has_failed):
                    found.unknown()
                else:
                    found.rolled_back()


def _is_left_open(connection: Connection) -> bool:
    """Return whether a transaction stays open, which a later user of the pool may commit."""
    return not connection.invalidated and driver_of(connection).leaves_open(connection)


def _is_unproved(connection: Connection) -> bool:
    """Return whether nothing tells what a rollback undoes."""
    if connection.invalidated:
        return False
    return _is_left_open(connection) or driver_of(connection).is_alone(connection)


def _executes(connection: Connection, *_: object) -> None:
    found: Watch | None = connection.__dict__.get(_ATTRIBUTE)
    if found is not None:
        with Contained(found.lose):
            found.check_open(connection)


def _executed(connection: Connection, cursor: Any, statement: str, *_: object) -> None:
    found: Watch | None = connection.__dict__.get(_ATTRIBUTE)
    if found is not None:
        with Contained(found.doubt):
            if control.may_control(statement):
                _take_in(found, connection, cursor, statement)
            else:
                found.statements.executed(reads=only_reads(statement))
            found.settle(connection)


def _take_in(found: Watch, connection: Connection, cursor: Any, statement: str) -> None:
    """Take in a statement, which may control the transaction: a savepoint, or one by hand."""
    statements = list(control.statements(statement, driver_of(connection).dialect(connection)))
    for each in statements:
        if each.verb == control.COMMIT and len(statements) > 1:
            found.unknown()
        elif each.verb == control.COMMIT:
            _take_in_commit(found, driver_of(connection).answer(cursor, each.verb))
        elif each.verb == control.RELEASE and not driver_of(connection).has_begun(connection):
            found.committed()  # in SQLite a savepoint can be the whole transaction
        else:  # PREPARE TRANSACTION too: where it was in vain, COMMIT PREPARED fails
            found.executed(each)
    if any(each.verb in control.ENDS for each in statements):
        found.is_blind = driver_of(connection).own_answers(connection) is not None


def _take_in_commit(found: Watch, tag: str | None) -> None:
    if tag == control.COMMIT:
        found.committed()
    elif tag == control.ROLLBACK:
        found.rolled_back()
    else:
        found.unknown()


def _failed(context: ExceptionContext) -> None:
    """Take in an error, which may have undone the whole transaction."""
    connection = context.connection
    found: Watch | None = None if connection is None else connection.__dict__.get(_ATTRIBUTE)
    if connection is None or found is None:
        return
    with Contained(found.doubt):
        if not isinstance(context.original_exception, connection.dialect.loaded_dbapi.Error):
            take_in_interrupted(found, connection, context)
            return
        if context.is_disconnect:
            statements = control.statements(context.statement or "", control.UNKNOWN)
            if any(each.verb == control.COMMIT for each in statements):
                found.unknown()
            return
        if connection.invalidated:  # its transaction is undone, and the driver has nothing to tell
            return
        driver = driver_of(connection)
        found.has_failed = True
        found.is_doubtful = found.is_doubtful or not driver.tells_its_state
        if driver.has_begun(connection) and not control.may_control(context.statement or ""):
            # In SQLite a part of its rows may stay; else the rollback of a savepoint undoes it.
            found.statements.executed(reads=only_reads(context.statement or ""))
        if driver.may_undo_all and found.has_begun and not driver.has_begun(connection):
            found.rolled_back()


_LISTENERS: Final = (
    listening.Listener("before_cursor_execute", _executes),
    # First, because another listener may call a function whose work is in a new savepoint.
    listening.Listener("after_cursor_execute", _executed, is_first=True),
    listening.Listener("handle_error", _failed),
)
