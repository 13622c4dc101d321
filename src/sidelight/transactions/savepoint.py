"""The savepoint around an INSERT into an outbox of PostgreSQL.

Inside the savepoint no failure can fail the caller's transaction. The state of the driver's
transaction tells what is to be undone, whatever has interrupted the INSERT.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from typing import Any, Final, TypeAlias

from sidelight.host import is_interrupt
from sidelight.transactions.entry import sqlstate
from sidelight.transactions.libpq import Status

Statements: TypeAlias = Generator[str, Any, None]
"""Statements to execute in turn; gets the rows of a `Question`, and errors are thrown in."""

NAME: Final = "sidelight_outbox"
_PROBE: Final = "sidelight_probe"
_UNDO: Final = f"ROLLBACK TO SAVEPOINT {NAME}; RELEASE SAVEPOINT {NAME}"
_NO_SUCH_SAVEPOINT: Final = "3B001"


class Savepoint:
    """The savepoint of one INSERT.

    Attributes:
        may_be_open: whether it may be open while the transaction is sound: between two messages.
    """

    __slots__ = ("_is_used", "_raw", "may_be_open")

    def __init__(self, raw: Any, *, is_used: bool) -> None:
        """Make a savepoint; nothing is sent.

        Args:
            raw: the connection of psycopg or psycopg2, which tells the status of its transaction;
                None of a driver that does not tell.
            is_used: whether there is a savepoint at all.
        """
        self._raw = raw
        self._is_used = is_used
        self.may_be_open = False

    def undo(self) -> Statements:
        """Yield what undoes it after an error of one of the statements, if that is needed."""
        if self._raw is None and self._is_used:
            yield _UNDO
        else:
            yield from self.undo_by_state()

    def undo_by_state(self) -> Statements:
        """Yield what undoes it, if the driver tells that there is anything to undo."""
        if self._raw is None or not self._is_used:
            return
        status = self._raw.info.transaction_status
        if status not in {Status.IDLE, Status.INTRANS}:  # failed, or the connection has ended
            yield _UNDO
        elif self.may_be_open and status == Status.INTRANS:
            try:
                # An error would fail the transaction; the second savepoint is for that.
                yield f"SAVEPOINT {_PROBE}; {_UNDO}"
            except Exception as error:
                if sqlstate(error) != _NO_SUCH_SAVEPOINT:
                    raise
                yield f"ROLLBACK TO SAVEPOINT {_PROBE}; RELEASE SAVEPOINT {_PROBE}"
        self.may_be_open = False


@contextlib.contextmanager
def failed_closed(raw: Any) -> Iterator[None]:
    """Close a connection of psycopg or psycopg2 whose transaction an interrupt leaves failed.

    Otherwise the caller's commit would succeed, and do nothing.
    """
    try:
        yield
    except BaseException as error:
        if raw.info.transaction_status == Status.INERROR and is_interrupt(error, ran="library"):
            raw.close()
        raise
