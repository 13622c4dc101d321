"""How the transactions of a psycopg connection end; psycopg has no events for that.

The server answers each statement by a command tag, and the tag is the proof: the COMMIT of a failed
transaction is answered by ROLLBACK. Two methods of the connection are overlaid: the one that runs
every exchange with the server, and the one by which psycopg sends its own BEGIN, COMMIT and
SAVEPOINT. Where an exchange shows no tags (a pipeline, `stream`), the text of the statements is the
proof, provided that none of them fails. Events are counted as lost where nothing is proved.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Generator, Sequence
from functools import partial
from threading import get_ident
from typing import Any, Final

from psycopg import Error as PsycopgError
from psycopg.pq import ConnStatus, TransactionStatus

from sidelight.transactions import control
from sidelight.transactions.control import Dialect, Statement
from sidelight.transactions.entry import Entry
from sidelight.transactions.hooks import Contained, is_raised_by
from sidelight.transactions.psycopg import queries
from sidelight.transactions.psycopg.pipelines import may_be_alone, statements_in, status_after
from sidelight.transactions.psycopg.queries import Query, plain
from sidelight.transactions.reads import only_reads
from sidelight.transactions.waiting import Waiting
from sidelight.transactions.work import End, Work

_SOMEBODY: Final = -1
_OPEN: Final = (TransactionStatus.INTRANS, TransactionStatus.INERROR)
_OTHER: Final = Statement(control.OTHER)
_READ: Final = Statement(control.READ)
_PLAIN: Final = frozenset({control.OTHER, control.READ})
_TAGS: Final = frozenset(tag.encode() for tag in control.TAGS)


class Watch(Waiting):
    """The transactions of one connection since the watch began.

    Attributes:
        exchanges: number of exchanges with the server that have begun.
    """

    def __init__(self, *, is_async: bool, dialect: Dialect) -> None:
        super().__init__()
        self._dialect = dialect
        self.exchanges = 0
        self._status: int = TransactionStatus.IDLE  # … of the transaction, after the last exchange
        # The number of the current task or thread. (A task itself would be kept alive.)
        self._runner: Callable[[], int] = _task if is_async else get_ident
        self._is_async = is_async
        self._running: int | None = None  # what runs an exchange
        self._last: int | None = None  # what has begun the last exchange
        self._command: list[Statement] = []  # of psycopg's own, while it is sent
        # What was sent without a tag being seen, with the events that were added between.
        self._untagged: list[Statement | Entry] = []
        self._before: int = TransactionStatus.IDLE  # … and the status before it
        self._failed = self._is_cut = False  # … and whether any has failed, or was interrupted
        self._tells_no_end = False  # … of the exchange: see `queries.tells_no_end`

    def begin(self, status: int, *, is_busy: bool) -> None:
        """Begin with the status of the transaction, maybe in an exchange of an unknown task."""
        self._status = status
        if self._is_async:
            self._running = _SOMEBODY if is_busy else None

    def wait(self, entry: Entry) -> None:
        """Emit an event when the transaction has committed."""
        if self._untagged:
            self._untagged.append(entry)
        else:
            self.add(entry)

    def begun(self) -> Work:
        """See `Waiting.begun`."""
        sent = [each.verb for each in statements_in(self._untagged)]
        return Work(self.statements, sent=sum(verb in _PLAIN for verb in sent))

    def has_undone(self, work: Work) -> bool:
        """See `Waiting.has_undone`; in a pipeline nothing tells."""
        return not self._untagged and super().has_undone(work)

    def exchange(self, gen: Any, connection: Any) -> Generator[Any, Any, Any]:
        """Run a generator of psycopg, which is one exchange with the server."""
        self._running = self._last = self._runner()
        self.exchanges += 1
        try:
            return (yield from self._exchange(gen, connection))
        finally:
            self._running = None

    @property
    def has_sent(self) -> bool:
        """Whether there are statements whose tags are not seen."""
        return bool(self._untagged)

    @property
    def is_own(self) -> bool:
        """Whether the last exchange is of the current task or thread."""
        return self._last == self._runner()

    @property
    def is_of_another(self) -> bool:
        """Whether the last exchange is known, and not of the current task or thread."""
        return self._last is not None and not self.is_own

    def stands(self, pgconn: Any) -> bool:
        """Return whether a statement has begun that does not go on by itself.

        Such are a COPY and a stream between two rows, and a statement that runs this very code.
        """
        if self._running is None:
            return bool(pgconn.transaction_status == TransactionStatus.ACTIVE)
        return self._running == self._runner()

    def goes_on(self, seen: int) -> bool:
        """Return whether anything executes, or has executed since there were `seen` exchanges."""
        if self._running == _SOMEBODY:
            self._running = None  # the wait that has ended would have shown its end
        return self._running is not None or self.exchanges != seen

    def look(self, connection: Any) -> None:
        """Take in that the connection was closed, if it was."""
        if self._status != TransactionStatus.UNKNOWN and connection.pgconn.status != ConnStatus.OK:
            self.closed(is_autocommit=connection.autocommit)

    def closed(self, *, is_autocommit: bool) -> None:
        """Take in that the connection was closed: the server undoes what is not committed."""
        if self._status != TransactionStatus.UNKNOWN:
            sent = statements_in(self._untagged)
            if sent and self._before == TransactionStatus.IDLE and is_autocommit:
                # A pipeline is a transaction of its own, and nothing tells whether it has ended.
                self._has_closed([] if sent[0].begins else [Statement(control.COMMIT)])
            elif sent or self._status != TransactionStatus.IDLE:
                self._has_closed([])
            self._status = TransactionStatus.UNKNOWN

    def _has_closed(self, sent: Sequence[Statement]) -> None:
        """Take in that the connection has ended after statements that may have been executed."""
        ends = self.ends
        untagged, self._untagged = self._untagged, []
        for each in untagged:
            if isinstance(each, Entry):
                self.add(each)
        self._ended_perhaps([*statements_in(untagged), *sent], TransactionStatus.UNKNOWN)
        if self.ends == ends:
            self.rolled_back()

    def _exchange(self, gen: Any, connection: Any) -> Generator[Any, Any, Any]:
        before, ends = connection.pgconn.transaction_status, self.ends
        contained, query = Contained(partial(self._lose, connection)), None
        handled = sys.exc_info()[1]
        with contained:
            self.look(connection)
            if before == TransactionStatus.IDLE and not self._untagged:
                self.statements.ended(End.UNKNOWN)
            query = Query.of(gen)
            self._tells_no_end = queries.tells_no_end(gen)
        try:
            answer = yield from gen
            with contained:
                if query is not None:
                    self._has_answered(query, connection, before)
                elif not self._untagged:
                    self._go_on(connection.pgconn, before)
                self._settle(connection.pgconn, before, ends)
        except BaseException as error:
            with contained:
                sent = self._command or (
                    [] if query is None else self._statements(query.text, connection)
                )
                self._command = []
                self._take_in_failed(sent, connection.pgconn)
                if not is_raised_by(PsycopgError, error, handled):
                    self._is_interrupted(sent, connection.pgconn, before, ends)
                elif self._is_sent(connection.pgconn) and queries.is_of_psycopg(error):
                    self._send(sent, before)  # the server has not failed
                    self._settle(connection.pgconn, before, ends)
                else:
                    if queries.is_unparsed(error):  # nothing was executed
                        sent = sent[:1]
                    self._has_failed(sent, connection.pgconn, before, ends)
            raise
        return answer

    def _lose(self, connection: Any, error: Exception) -> None:
        """Drop the events and count them, because a hook has failed."""
        untagged, self._untagged, self._command = self._untagged, [], []
        self._failed = self._is_cut = False
        for each in untagged:
            if isinstance(each, Entry):
                self.add(each)
        is_over = connection.pgconn.transaction_status == TransactionStatus.IDLE
        (self.lose if is_over else self.doubt)(error)

    def command(
        self, gen: Generator[Any, Any, Any], command: Any, connection: Any
    ) -> Generator[Any, Any, Any]:
        """Run a generator that sends one command of psycopg's own."""
        before = connection.pgconn.transaction_status
        contained = Contained(partial(self._lose, connection))
        sent: list[Statement] = []
        with contained:
            sent = [each for each in self._statements(command, connection) if each.verb]
            self._command = sent
        answer = yield from gen
        with contained:
            if answer is None:  # a pipeline
                self._command = []
                self._send(sent, before)
            elif sent:
                self._take_in(sent, [answer.command_status or b""])
                self._command = []
        return answer

    def _statements(self, text: Any, connection: Any) -> list[Statement]:
        text = plain(text, connection)
        return [_READ] if only_reads(text) else list(control.statements(text, self._dialect))

    def _has_answered(self, query: Query, connection: Any, before: int) -> None:
        """Take in the answers to a query."""
        tags = query.tags()
        if not tags or connection.pgconn.pipeline_status:
            self._send(self._statements(query.text, connection), before)
        elif _TAGS.isdisjoint(tags):
            self.statements.executed(reads=only_reads(plain(query.text, connection)))
        else:
            self._take_in(self._statements(query.text, connection), tags)

    def _go_on(self, pgconn: Any, before: int) -> None:
        """Take in the beginning or a part of a COPY, or of a stream that began before the watch."""
        is_part = TransactionStatus.ACTIVE in {before, pgconn.transaction_status}
        if is_part and not pgconn.pipeline_status:
            self.statements.executed(reads=False)

    def _take_in(self, sent: Sequence[Statement], tags: Sequence[bytes | None]) -> None:
        """Take in statements and their tags."""
        if len(sent) != len(tags):  # the text is not understood
            self.statements.executed(reads=False)
            ends = [tag for tag in tags if tag in {b"COMMIT", b"ROLLBACK", b"PREPARE TRANSACTION"}]
            if ends:
                self.statements.ended(End.UNKNOWN)
            if ends[:1] == [b"COMMIT"]:
                self.committed()
            elif ends:
                self.unknown()
            return
        for statement, tag in zip(sent, tags, strict=True):
            if tag == b"ROLLBACK" and statement.verb != control.ROLLBACK_TO:
                self.rolled_back()
            elif tag in _TAGS or statement.verb in _PLAIN:
                self.executed(statement)

    def _is_sent(self, pgconn: Any) -> bool:
        return self.has_sent or pgconn.transaction_status == TransactionStatus.ACTIVE

    def _send(self, sent: Sequence[Statement], before: int) -> None:
        """Take in statements whose tags are not seen."""
        if sent and not self._untagged:
            self._before = before
        self._untagged += sent

    def _settle(self, pgconn: Any, before: int, ends: int) -> None:
        """Take in the state after an exchange."""
        status = pgconn.transaction_status
        if status == TransactionStatus.IDLE and pgconn.pipeline_status and self._tells_no_end:
            # The pipeline's own transaction ends at the next Sync, and may be undone until then.
            status = TransactionStatus.ACTIVE
        self._status = status
        if status == TransactionStatus.ACTIVE:
            return
        # A COPY or a stream that was running before the watch, and was a transaction of its own.
        is_alone = before == TransactionStatus.ACTIVE and not self._untagged
        untagged, self._untagged = self._untagged, []
        failed, self._failed = self._failed, False
        is_cut, self._is_cut = self._is_cut, False
        if untagged:
            before = self._before
        if failed:
            self._number(statements_in(untagged))
            self._ended_perhaps(statements_in(untagged), status)
            untagged = [each for each in untagged if isinstance(each, Entry)]
        for each in untagged:
            self._take_in_untagged(each, before)
            before = status_after(each, before)
        if status == TransactionStatus.IDLE and failed:
            if self._entries or self.ends == ends:
                (self.unknown if self._entries or is_cut else self.rolled_back)()
        elif status == TransactionStatus.IDLE:
            is_alone = is_alone or bool(untagged and before == TransactionStatus.IDLE)
            self._is_idle(before in _OPEN and bool(untagged or self.ends == ends), is_alone, ends)

    def _is_idle(self, is_open: bool, is_alone: bool, ends: int) -> None:
        """Take in an end that no statement explains; what has begun alone commits by itself."""
        if self._entries:
            (self.committed if is_alone else self.unknown)()
        elif is_open:
            self.rollbacks += self.ends == ends  # no event waits, but a transaction has ended
        else:
            self.alone += bool(self.statements.standing.written)
            self.statements.ended(End.ALONE)

    def _take_in_untagged(self, each: Statement | Entry, before: int) -> None:
        if isinstance(each, Entry):
            self.add(each)
        elif before == TransactionStatus.INERROR and each.verb == control.COMMIT:
            self.rolled_back()
        else:
            self.executed(each)

    def _take_in_failed(self, sent: Sequence[Statement], pgconn: Any) -> None:
        """Take in statements of a transaction which an error or an interrupt has struck."""
        if pgconn.transaction_status in _OPEN and not self._untagged:
            self._number(sent or [_OTHER])

    def _number(self, sent: Sequence[Statement]) -> None:
        """Number statements one of which has perhaps failed."""
        plain = [each for each in sent if each.verb in _PLAIN]
        for each in plain:
            self.executed(each)
        if len(plain) < len(sent) > 1:  # nothing tells what of the transaction stands
            self.statements.ended(End.UNKNOWN)

    def _has_failed(self, sent: Sequence[Statement], pgconn: Any, before: int, ends: int) -> None:
        """Take in that an exchange has raised an error."""
        self._status = status = pgconn.transaction_status
        if pgconn.status != ConnStatus.OK:
            if self.ends == ends:
                self._has_closed(sent)
        elif self._is_sent(pgconn):
            self._send(sent, before)
            self._failed = True
            self._settle(pgconn, before, ends)
        elif len(sent) > 1:
            self._ended_perhaps(sent, status)
        elif status == TransactionStatus.IDLE and self.ends == ends:
            self.rolled_back()

    def _is_interrupted(
        self, sent: Sequence[Statement], pgconn: Any, before: int, ends: int
    ) -> None:
        """Take in what an interrupt has struck before, within or behind an exchange."""
        self._status = status = pgconn.transaction_status
        if self.finish() or self.ends != ends:
            return
        if self._untagged or before not in _OPEN:
            self._are_undecided(sent)
            self._is_cut = self._is_sent(pgconn)
            is_sent = self._is_cut or status != TransactionStatus.IDLE
            if is_sent or not may_be_alone(sent, before):
                self._has_failed(sent, pgconn, before, ends)
            else:
                self.unknown()
        elif status in _OPEN:
            for each in sent:
                if each.verb == control.SAVEPOINT:
                    self.executed(each)  # one too many does no harm
            verbs = {each.verb for each in sent}
            is_chained = any(each.begins for each in sent)
            self.is_doubtful = self.is_doubtful or is_chained or control.ROLLBACK_TO in verbs
        elif status == TransactionStatus.IDLE and len(sent) == 1:
            if before == TransactionStatus.INERROR:
                self.rolled_back()
            else:
                self.executed(sent[0])
        elif status == TransactionStatus.IDLE or any(each.verb in control.ENDS for each in sent):
            self.unknown()
        else:
            self._has_failed(sent, pgconn, before, ends)

    def _are_undecided(self, sent: Sequence[Statement]) -> None:
        """Count the events of prepared transactions that a statement may have ended."""
        for each in sent:
            if each.verb in {control.COMMIT_PREPARED, control.ROLLBACK_PREPARED}:
                self.undecided(each.name.text)

    def _ended_perhaps(self, sent: Sequence[Statement], status: int) -> None:
        """Take in statements one of which has failed, and nothing tells which one."""
        ending = [each.verb for each in sent if each.verb in control.ENDS]
        if not ending or (status in _OPEN and not any(each.begins for each in sent)):
            if any(each.verb == control.ROLLBACK_TO for each in sent) and self._entries:
                self.unknown()
        elif ending[0] == control.ROLLBACK:
            self.rolled_back()
        else:
            self.unknown()


def _task() -> int:
    return id(asyncio.current_task())
