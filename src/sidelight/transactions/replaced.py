"""The function replaces the session or the connection that its point names.

It reconnects (``self.connection = connect()``), or gives up a session for a new one
(``scoped_session.remove()``). The point names the old one before the call, and the new one after
it. What the new one has done before its look is not known, because nothing watched it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from sidelight.transactions.entry import Entry, UnknownError
from sidelight.transactions.transaction import Fate, Transaction

_REMEDY: Final = "give the function the session or connection that it is to use"


def chosen(old: Transaction | None, new: Transaction) -> Transaction:
    """Return the transaction that has the work of a function which has replaced one by another.

    Args:
        old: of what the point named before the call; None where that was of no known kind.
        new: of what it names after the call.
    """
    fate = Fate.NOTHING if old is None else old.fate()
    if old is not None and fate is Fate.DECIDED:
        return old
    return new if fate is Fate.NOTHING and new.is_begun else _Unknown()


def in_scope(adapter: Callable[[Any], Transaction], scope: Any) -> Transaction:
    """Make the transaction of the session that a registry has now.

    Args:
        adapter: makes the transaction of a session.
        scope: a scoped_session or an async_scoped_session.
    """
    transaction = adapter(scope())
    transaction.successor = partial(_successor, adapter, scope, transaction.place)
    return transaction


def _successor(
    adapter: Callable[[Any], Transaction], scope: Any, before: object
) -> Transaction | None:
    """Return the transaction of another session; a registry without one is not asked for one."""
    if not scope.registry.has():
        return None
    session = scope()
    if getattr(session, "sync_session", session) is before:
        return None
    return adapter(session)


class _Unknown(Transaction):
    """Stands for two transactions: nothing tells which of them has work that stands."""

    def check(self) -> None:
        """See `Transaction.check`."""
        raise UnknownError(_REMEDY)

    def after_commit(self, entry: Entry) -> None:  # noqa: ARG002  # of the libraries
        """See `Transaction.after_commit`."""
        raise UnknownError(_REMEDY)

    @property
    def place(self) -> object:
        """See `Transaction.place`."""
        return self

    @property
    def is_begun(self) -> bool:
        """See `Transaction.is_begun`."""
        return False

    @property
    def is_committed(self) -> bool:
        """See `Transaction.is_committed`."""
        raise UnknownError(_REMEDY)

    @property
    def is_alone(self) -> bool:
        """See `Transaction.is_alone`."""
        return False

    @property
    def is_open(self) -> bool:
        """See `Transaction.is_open`."""
        return False
