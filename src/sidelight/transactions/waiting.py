"""Events that wait for the commit of a connection's transaction and its savepoints."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final, TypeAlias

from sidelight.exceptions import InstrumentationError
from sidelight.transactions import control
from sidelight.transactions.control import Statement
from sidelight.transactions.entry import Entry
from sidelight.transactions.hooks import Contained
from sidelight.transactions.names import UNSURE, Name
from sidelight.transactions.work import NOTHING, End, Standing, Statements, Work

Kept: TypeAlias = deque[tuple[object, Entry]]
"""Events in their order; each with what it belongs to."""


class Outcome(Enum):
    """How a transaction has ended."""

    COMMITTED = "it was committed"
    UNDONE = "it was rolled back"
    UNKNOWN = "nothing tells"


_ENDS: Final[Mapping[Outcome, End]] = {
    Outcome.COMMITTED: End.COMMITTED,
    Outcome.UNDONE: End.UNDONE,
    Outcome.UNKNOWN: End.UNKNOWN,
}
_SETTLE: Final[Mapping[Outcome, Callable[[Entry], None]]] = {
    Outcome.COMMITTED: Entry.emit,
    Outcome.UNDONE: lambda _: None,
    Outcome.UNKNOWN: Entry.forget,
}


class _Savepoint:
    """A savepoint, by the statements before it."""

    __slots__ = ("standing",)

    def __init__(self, standing: Standing) -> None:
        self.standing = standing


class Waiting:
    """The events that wait for one connection.

    `executed` takes in each statement that the server has executed. Only a commit emits events. A
    rollback drops the events of the work that it undoes.

    An interrupt may arrive while the end of a transaction is taken in. The rest is left, and
    `finish` goes on with it.

    Attributes:
        commits: number of transactions that were committed or prepared.
        rollbacks: number of transactions that were rolled back.
        unknown_ends: number of those whose end is unknown; each counts as a rollback, too.
        alone: number of statements that may have written, and have committed by themselves; not
            counted below SQLAlchemy.
        is_doubtful: whether it is unknown what of the transaction can still be committed.
        statements: those that were executed since the watch began.
    """

    def __init__(self) -> None:
        self.commits = 0
        self.rollbacks = 0
        self.unknown_ends = 0
        self.alone = 0
        self.is_doubtful = False
        self.statements = Statements()
        self._savepoints: list[tuple[Name, _Savepoint]] = []
        self._entries: deque[tuple[Any, Entry]] = deque()
        self._prepared: dict[str, Kept] = {}
        self._outcome: Outcome | None = None  # of an end that is being taken in

    def __bool__(self) -> bool:
        return bool(self._entries or self._prepared)

    @property
    def ends(self) -> int:
        """Number of transactions that have ended."""
        return self.commits + self.rollbacks

    def continuing(self, earlier: Waiting) -> dict[str, Any]:
        """Return the attributes that count on from an earlier connection, which this replaces."""
        counted = ("commits", "rollbacks", "unknown_ends", "alone")
        counts = {name: getattr(self, name) + getattr(earlier, name) for name in counted}
        statements = self.statements if self.statements.number else earlier.statements
        return {**counts, "statements": statements}

    def begun(self) -> Work:
        """Return the work that a function does from now on."""
        return Work(self.statements)

    def has_undone(self, work: Work) -> bool:
        """Return whether a function has undone all that it has written."""
        return not self.is_doubtful and work.is_undone(self.statements)

    def add(self, entry: Entry) -> None:
        """Emit an event when the transaction has committed."""
        self._entries.append((frozenset(mark for _, mark in self._savepoints), entry))

    def taken(self, entry: Entry) -> bool:
        """Take an event out; return whether it was waiting."""
        left = deque(each for each in self._entries if each[1] is not entry)
        was_waiting = len(left) < len(self._entries)
        self._entries = left
        return was_waiting

    def executed(self, statement: Statement) -> None:
        """Take in a statement that the server has executed."""
        match statement.verb:
            case control.OTHER | control.READ:
                self.statements.executed(reads=statement.verb == control.READ)
            case control.SAVEPOINT:
                self._savepoints.append((statement.name, _Savepoint(self.statements.standing)))
            case control.RELEASE:
                self._released(statement.name)
            case control.ROLLBACK_TO:
                self._rolled_back_to(statement.name)
            case control.COMMIT:
                self.committed()
            case control.ROLLBACK:
                self.rolled_back()
            case control.PREPARE:
                self.commits += bool(self._entries)
                self.prepared(statement.name.text)
            case control.COMMIT_PREPARED:
                emit(self._prepared.get(statement.name.text, deque()))
                self._prepared.pop(statement.name.text, None)
            case control.ROLLBACK_PREPARED:
                self._prepared.pop(statement.name.text, None)

    def committed(self) -> None:
        """Emit the events, because the transaction has committed."""
        self._end(Outcome.UNKNOWN if self.is_doubtful else Outcome.COMMITTED)

    def rolled_back(self) -> None:
        """Drop the events, because the transaction was rolled back."""
        self._end(Outcome.UNDONE)

    def unknown(self) -> None:
        """Drop the events and count them, because nothing tells how the transaction has ended."""
        self._end(Outcome.UNKNOWN)

    def _end(self, outcome: Outcome) -> None:
        self.finish()
        self._outcome = outcome
        self.finish()

    def finish(self) -> bool:
        """Go on with an end that is being taken in; return whether there was one."""
        outcome = self._outcome
        if outcome is None:
            return False
        self.statements.ended(_ENDS[outcome])
        _settle_all(self._entries, _SETTLE[outcome])
        self._forget_transaction()
        # No interrupt arrives from here on, because nothing is called.
        if outcome is Outcome.COMMITTED:
            self.commits += 1
        else:
            self.rollbacks += 1
            self.unknown_ends += outcome is Outcome.UNKNOWN
        self._outcome = None
        return True

    def prepared(self, name: str) -> None:
        """Keep the events until it is told how the transaction of a name has ended."""
        kept = self._prepared.setdefault(name, deque())
        while self._entries:
            kept.append(self._entries[0])
            self._entries.popleft()
        if not kept:
            del self._prepared[name]
        self._forget_transaction()

    def decided(self, name: str, *, committed: bool) -> None:
        """Take in how a prepared transaction has ended."""
        if committed:
            emit(self._prepared.get(name, deque()))
        self._prepared.pop(name, None)
        if committed:
            self.committed()
        else:
            self.rolled_back()

    def undecided(self, name: str) -> None:
        """Drop the events of a prepared transaction and count them; another may commit it."""
        _settle_all(self._prepared.get(name, deque()), Entry.forget)
        self._prepared.pop(name, None)
        self.unknown()

    def doubt(self, error: Exception) -> None:
        """Drop the events and count them, because a hook has failed within the transaction."""
        self.is_doubtful = True
        entries, self._entries = self._entries, deque()
        for _, entry in entries:
            entry.fail(error)

    def lose(self, error: Exception) -> None:
        """Drop the events and count them, because a hook has failed at the transaction's end."""
        self.statements.ended(End.UNKNOWN)
        self.doubt(error)
        self._outcome = None
        self.rollbacks += 1
        self._forget_transaction()

    def _forget_transaction(self) -> None:
        """Forget what holds for one transaction only."""
        self._savepoints.clear()
        self.is_doubtful = False

    def _released(self, name: Name) -> None:
        newest, oldest = self._found(name)
        del self._savepoints[max(newest, 0) :]
        self._doubt_savepoints(max(oldest, 0))

    def _rolled_back_to(self, name: Name) -> None:
        newest, oldest = self._found(name)
        for how, index in ((End.UNDONE, newest), (End.UNKNOWN, oldest)):
            left = self._savepoints[index][1].standing if index >= 0 else NOTHING
            self.statements.ended(how, left=left)
        entries, self._entries = self._entries, deque()
        for marks, entry in entries:
            if newest < 0 or self._savepoints[newest][1] in marks:
                continue  # its work is undone
            if oldest >= 0 and self._savepoints[oldest][1] not in marks:
                self._entries.append((marks, entry))
            else:
                entry.forget()
        del self._savepoints[newest + 1 :]
        self._doubt_savepoints(oldest + 1)

    def _doubt_savepoints(self, first: int) -> None:
        """Take in that the savepoints from an index on may not exist any more."""
        doubted = [(UNSURE, mark) for _, mark in self._savepoints[first:]]
        self._savepoints[first:] = doubted

    def _found(self, name: Name) -> tuple[int, int]:
        """Return the indices of the newest and the oldest savepoint that a name may stand for.

        -1 stands for one that is older than the watch, and so than every event that waits.
        """
        newest = -1
        for index in reversed(range(len(self._savepoints))):
            known, _ = self._savepoints[index]
            if known.may_be(name):
                newest = max(newest, index)
                if known.text == name.text:
                    return newest, index
        return newest, -1

    def __del__(self) -> None:
        if getattr(self, "_outcome", None) is not None:  # interrupted twice
            self.finish()
        prepared: dict[str, Kept] = getattr(self, "_prepared", {})  # else interrupted
        for entries in prepared.values():  # another connection decides: nothing tells how
            _settle_all(entries, Entry.forget)


def emit(entries: Kept) -> None:
    """Emit events, because their transaction has committed; take each out of the deque.

    An interrupt arrives after the last event.
    """
    try:
        _settle_all(entries, Entry.emit)
    except BaseException:
        _settle_all(entries, Entry.emit)
        raise


def _settle_all(entries: Kept, settle: Callable[[Entry], None]) -> None:
    while entries:
        entry = entries[0][1]
        try:
            with Contained(entry.fail):
                if not entry.is_settled:  # else an interrupt has arrived after it
                    settle(entry)
        except InstrumentationError:  # of strict mode, which has counted the event
            entries.popleft()
            raise
        entries.popleft()
