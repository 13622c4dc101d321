"""What happens to the transactions of a psycopg connection, which has no events to tell it.

Two methods of the connection are overlaid: the one that every exchange with the server goes through
and the one that psycopg sends its own BEGIN, COMMIT and SAVEPOINT by. Both hand everything on.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Generator
from typing import Any, Final, TypeAlias

from psycopg import AsyncConnection, Connection
from psycopg.pq import ConnStatus, TransactionStatus
from psycopg.sql import Composable

from sidelight.transactions.entry import Entry, Guard
from sidelight.transactions.statements import SAVEPOINT

AnyConnection: TypeAlias = Connection[Any] | AsyncConnection[Any]

_OPEN: Final = (TransactionStatus.INTRANS, TransactionStatus.INERROR)
_WORDS: Final = re.compile(
    r"""\s* (?P<verb> SAVEPOINT | RELEASE | ROLLBACK\s+PREPARED | ROLLBACK | ABORT
        | COMMIT\s+PREPARED | COMMIT | END | PREPARE\s+TRANSACTION ) \b
        (?: \s+ (?:WORK|TRANSACTION) )? (?: \s+ (?P<to> TO) )? (?: \s+ SAVEPOINT )?
        \s* (?P<name> "[^"]*" | \w+ )?""",
    re.IGNORECASE | re.VERBOSE,
)
_COMMITS: Final = frozenset({"COMMIT", "END"})


class Watch:
    """The transactions of one connection since the watch began.

    Attributes:
        commits: how many have ended otherwise than by a rollback, as far as can be told.
        is_unknown: whether the last one ended in a commit that was not answered.
    """

    def __init__(self) -> None:
        self.commits = 0
        self.is_unknown = False
        self._savepoints: list[tuple[str, object]] = []
        self._waiting: list[tuple[frozenset[object], Entry]] = []
        self._said = ""

    def wait(self, entry: Entry) -> None:
        """Emit an event when the transaction has committed."""
        self._waiting.append((frozenset(mark for _, mark in self._savepoints), entry))

    def sent(self, text: str, tag: str = "") -> None:
        """Take in what was sent; ``tag`` is the server's answer to it, where it is known."""
        for command in text.split(";"):
            if (words := _WORDS.match(command)) is not None:
                verb = " ".join(words["verb"].upper().split())
                if tag == "ROLLBACK" and verb in _COMMITS:  # what failed cannot be committed
                    verb = tag
                self._takes_in(verb, words["name"] or "", to=bool(words["to"]))

    def _takes_in(self, verb: str, name: str, *, to: bool) -> None:
        if verb == "SAVEPOINT":
            self._savepoints.append((name, object()))
        elif verb == "RELEASE":
            del self._savepoints[self._place(name) :]
        elif verb == "ROLLBACK" and to:
            place = self._place(name)
            marks = {mark for _, mark in self._savepoints[place : place + 1]}
            # One that is older than our watch had everything inside.
            self._waiting = [each for each in self._waiting if marks and not marks & each[0]]
            del self._savepoints[place + 1 :]
        else:
            self._said = verb
            if verb in {"COMMIT PREPARED", "ROLLBACK PREPARED"}:
                self._ends(committed=verb == "COMMIT PREPARED")

    def _place(self, name: str) -> int:
        names = [known for known, _ in self._savepoints]
        return len(names) - 1 - names[::-1].index(name) if name in names else len(names)

    def exchanged(self, before: int, after: int) -> None:
        """Take in how an exchange with the server has left the transaction."""
        said, self._said = self._said, ""
        if before not in _OPEN or after != TransactionStatus.IDLE:
            return
        if said == "PREPARE TRANSACTION":  # the last word comes later
            self.commits += 1
            return
        failed = before == TransactionStatus.INERROR or said in {"ROLLBACK", "ABORT"}
        self._ends(committed=not failed)

    def failed(self, *, cut_off: bool) -> None:
        """Take in that an exchange has failed, by a refusal or because the connection broke."""
        said, self._said = self._said, ""
        if cut_off and said in {*_COMMITS, "COMMIT PREPARED"}:
            self.is_unknown = True  # for good: the connection has gone with it
            for _, entry in self._waiting:
                entry.forget()
        if cut_off or said in {*_COMMITS, "PREPARE TRANSACTION"}:
            self._ends(committed=False)

    def _ends(self, *, committed: bool) -> None:
        waiting, self._waiting = self._waiting, []
        self._savepoints.clear()
        if not committed:
            return
        self.commits += 1
        for _, entry in waiting:
            with Guard(entry):
                entry.emit()


_watches: Final[weakref.WeakKeyDictionary[AnyConnection, Watch]] = weakref.WeakKeyDictionary()


def watch(connection: AnyConnection) -> Watch:
    """Watch a connection; once for each."""
    found = _watches.get(connection)
    if found is None:
        found = _watches[connection] = Watch()
        # A weak reference, because a cycle would keep the connection from being closed at once.
        reference, kind = weakref.ref(connection), type(connection)
        connection.__dict__["wait"] = _overlay_wait(reference, kind, found)
        connection.__dict__["_exec_command"] = _overlay_command(reference, kind, found)
    return found


def _overlay_wait(reference: Any, kind: Any, watched: Watch) -> Any:
    """Overlay the method that runs a generator of psycopg, synchronously or not."""

    def wait(gen: Any, *arguments: Any, **named: Any) -> Any:
        connection = reference()
        return kind.wait(connection, _watched(gen, connection, watched), *arguments, **named)

    return wait


def _watched(gen: Any, connection: Any, watched: Watch) -> Generator[Any, Any, Any]:
    """Run a generator of psycopg, which is one exchange with the server."""
    before = connection.pgconn.transaction_status
    if text := _text_in(gen, connection):
        watched.sent(text)
    try:
        answer = yield from gen
    except BaseException:
        watched.failed(cut_off=connection.pgconn.status != ConnStatus.OK)
        raise
    watched.exchanged(before, connection.pgconn.transaction_status)
    return answer


def _overlay_command(reference: Any, kind: Any, watched: Watch) -> Any:
    def _exec_command(command: Any, *arguments: Any, **named: Any) -> Generator[Any, Any, Any]:
        connection = reference()
        watched._said = _verb_of(text := _plain(command, connection))  # noqa: SLF001
        answer = yield from kind._exec_command(connection, command, *arguments, **named)  # noqa: SLF001
        tag = getattr(answer, "command_status", None) or b""
        watched.sent(text, tag.decode("ascii", "replace"))
        return answer

    return _exec_command


def _verb_of(text: str) -> str:
    words = _WORDS.match(text)
    return "" if words is None or words["to"] else " ".join(words["verb"].upper().split())


def _text_in(gen: Any, connection: Any) -> str:
    """The statement that a cursor is about to send, if it is one about transactions."""
    frame = getattr(gen, "gi_frame", None)
    query = None if frame is None else frame.f_locals.get("query")
    if query is None:
        return ""
    text = _plain(query, connection)
    return text if _WORDS.match(text) and not text.startswith(SAVEPOINT) else ""


def _plain(command: Any, connection: Any) -> str:
    if isinstance(command, Composable):
        command = command.as_bytes(connection)
    if isinstance(command, str):
        return command
    return bytes(command).decode("utf-8", "replace") if isinstance(command, bytes) else ""
