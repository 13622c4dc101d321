"""Transactions in two phases below SQLAlchemy: another connection may decide on what is prepared.

Only SQLAlchemy's own COMMIT PREPARED and ROLLBACK PREPARED tell how such a transaction has ended.
Where one fails, or is not sent, nothing tells.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from sqlalchemy.engine import Connection

from sidelight.transactions.hooks import Contained
from sidelight.transactions.sqlalchemy.drivers import driver_of


class Prepared(Protocol):
    """The events that wait for the transactions of one connection."""

    was_in_vain: bool

    def prepared(self, name: str) -> None:
        """Take in that the transaction is prepared under a name."""
        ...

    def decided(self, name: str, *, committed: bool) -> None:
        """Take in how a prepared transaction has ended."""
        ...

    def undecided(self, name: str) -> None:
        """Take in that nothing tells how a prepared transaction ends."""
        ...

    def doubt(self, error: Exception) -> None:
        """See `Waiting.doubt`."""
        ...

    def lose(self, error: Exception) -> None:
        """See `Waiting.lose`."""
        ...


def overlays(
    kind: type[Connection],
    living: Callable[[], Connection],
    found: Prepared,
    *,
    commit: Callable[[Any, bool], None],
    rollback: Callable[[Any, bool], None],
) -> dict[str, Callable[..., None]]:
    """Return, by name, what overlays the methods that prepare a transaction or end a prepared one.

    Args:
        kind: the class of the connection.
        living: returns the connection.
        found: the events that wait for its transactions.
        commit: overlays the commit of one that is not prepared.
        rollback: overlays its rollback.
    """

    def prepare(xid: Any) -> None:
        connection, is_sound = living(), True
        with Contained(found.doubt):
            is_sound = driver_of(connection).is_sound(connection, ask=True)
        kind._prepare_twophase_impl(connection, xid)  # noqa: SLF001
        with Contained(found.lose):
            found.prepared(str(xid))
            if not is_sound:  # the server has answered ROLLBACK
                found.decided(str(xid), committed=False)

    def end(xid: Any, is_prepared: bool, unprepared: Callable[..., None], name: str) -> None:
        if is_prepared:
            _end(found, living(), getattr(kind, name), xid)
        else:
            unprepared(xid, is_prepared)

    names = {"_commit_twophase_impl": commit, "_rollback_twophase_impl": rollback}
    ends = {name: partial(end, unprepared=each, name=name) for name, each in names.items()}
    return {"_prepare_twophase_impl": prepare, **ends}


def _end(
    found: Prepared, connection: Connection, end: Callable[[Connection, Any, bool], None], xid: Any
) -> None:
    """End a prepared transaction."""
    is_told = False
    with Contained(found.lose):
        in_pipeline = driver_of(connection).own_answers(connection) is not None
        is_told = not (in_pipeline or connection.invalidated)
    found.was_in_vain = not is_told
    try:
        end(connection, xid, True)
    except BaseException:
        with Contained(found.lose):
            found.undecided(str(xid))
        raise
    with Contained(found.lose):
        if is_told:
            found.decided(str(xid), committed=end is type(connection)._commit_twophase_impl)  # noqa: SLF001
        else:
            found.undecided(str(xid))
