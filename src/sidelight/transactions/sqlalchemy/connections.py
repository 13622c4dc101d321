"""SQLAlchemy's Connection, and the insert that the Session shares."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Engine, event
from sqlalchemy.engine import Connection

from sidelight.emission import EMITTER
from sidelight.transactions.entry import ENDED, Entry, Guard, Refused, keep_settings
from sidelight.transactions.sqlalchemy.drivers import driver_of

_OVERLAID: Final = ("_commit_impl", "_commit_twophase_impl")

_commits: Final[weakref.WeakKeyDictionary[Connection, int]] = weakref.WeakKeyDictionary()
_watched: Final[weakref.WeakSet[Engine]] = weakref.WeakSet()


def insert(connection: Connection, entries: Sequence[Entry], *, first: bool) -> None:
    """Insert events into the outbox of a connection that is in a transaction.

    Args:
        connection: the caller's.
        entries: of the same strictness.
        first: whether the INSERT may have to wait for other writers: nothing was flushed before.

    Raises:
        Refused: the events cannot be part of a transaction.
        Exception: of the driver; the transaction is as it was.
    """
    within = None if entries[0].strict else EMITTER.deadline
    rows = [entry.row() for entry in entries]
    driver_of(connection).insert(connection, rows, within=within, first=first)


class ConnectionTransaction:
    """The transaction of a Core connection."""

    needs_await = False

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        _watch(connection.engine)
        self._commits = _commits.setdefault(connection, 0)

    def suspend_autoflush(self) -> Callable[[], object]:
        """Do nothing: a connection flushes nothing."""
        return keep_settings

    def check(self) -> None:
        """See `Transaction.check`."""
        if _commits.get(self._connection, 0) != self._commits:
            raise Refused(ENDED)
        root = self._connection.get_transaction()
        if root is None:
            raise Refused("no transaction")
        nested = self._connection.get_nested_transaction()
        if not root.is_active or (nested is not None and not nested.is_active):
            raise Refused("broken transaction")

    def insert(self, entry: Entry) -> None:
        """Insert an event into the outbox."""
        insert(self._connection, [entry], first=True)

    async def insert_awaited(self, entry: Entry) -> None:
        """Insert an event into the outbox."""
        self.insert(entry)

    def after_commit(self, entry: Entry) -> None:
        """Emit an event once the transaction has committed."""
        connection = self._connection
        if _commits.get(connection, 0) != self._commits or driver_of(connection).commits_itself(
            connection
        ):
            entry.emit()  # the work is done
        elif connection.in_transaction():
            wait(connection, entry)
        else:
            raise Refused("no transaction")


def _watch(engine: Engine) -> None:
    """Listen to the transactions of an engine's connections; once for each engine."""
    if engine not in _watched:
        _watched.add(engine)
        event.listen(engine, "commit", _committed)
        event.listen(engine, "commit_twophase", _committed)
        event.listen(engine, "rollback", _rolled_back)
        event.listen(engine, "rollback_twophase", _rolled_back)
        event.listen(engine, "rollback_savepoint", _rolled_back_to)


def _committed(connection: Connection, *_: object) -> None:
    if connection in _commits:
        _commits[connection] += 1


# -- after the commit --------------------------------------------------------------------------

_waiting: Final[weakref.WeakKeyDictionary[Connection, list[tuple[frozenset[str], Entry]]]] = (
    weakref.WeakKeyDictionary()
)
"""Events that wait for a connection's commit, with the savepoints that they are in."""


def wait(connection: Connection, entry: Entry) -> None:
    """Emit an event when the transaction that a connection is in has committed."""
    entry.settle()
    _watch(connection.engine)
    waiting = _waiting.get(connection)
    if waiting is None:
        waiting = _waiting[connection] = []
        for name in _OVERLAID:
            _overlay(connection, name)
    savepoints = set()
    nested: Any = connection.get_nested_transaction()
    while nested is not None:
        savepoints.add(nested._savepoint)  # noqa: SLF001
        nested = nested._previous_nested  # noqa: SLF001
    waiting.append((frozenset(savepoints), entry))


def _overlay(connection: Connection, name: str) -> None:
    """Overlay a method that commits, because SQLAlchemy has no event after the commit."""
    commit = getattr(type(connection), name)
    weakly = weakref.ref(connection)

    def commit_and_emit(*arguments: Any) -> None:
        connection = weakly()
        assert connection is not None  # noqa: S101  # its method is being called
        try:
            commit(connection, *arguments)
        except BaseException:
            if connection.invalidated:
                for _, entry in _waiting.pop(connection, ()):
                    entry.forget()
            raise
        for _, entry in _waiting.pop(connection, ()):
            with Guard(entry):
                entry.emit()
        for overlaid in _OVERLAID:
            connection.__dict__.pop(overlaid, None)

    connection.__dict__[name] = commit_and_emit


def _rolled_back(connection: Connection, *_: object) -> None:
    if connection in _waiting:
        _waiting[connection].clear()


def _rolled_back_to(connection: Connection, name: str, _: object) -> None:
    if waiting := _waiting.get(connection):
        waiting[:] = [each for each in waiting if name not in each[0]]


ADAPTERS: Final[Mapping[type, Callable[[Any], ConnectionTransaction]]] = {
    Connection: ConnectionTransaction
}
