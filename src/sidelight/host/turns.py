"""Turns: one thread at a time does something, and an interrupt leaves no turn taken.

A lock would stay locked where an exception from outside arrives between its acquisition and the
``try`` whose end releases it. A ticket exists before it is drawn, and one call of a C function
gives it back, whether it was drawn or not. No exception can arrive within such a call::

    ticket = object()
    try:
        if turns.take(ticket, 1.0): ...
    finally:
        turns.pop(ticket, None)
"""

from __future__ import annotations

from threading import get_ident
from typing import Final

from sidelight.host.clock import monotonic
from sidelight.host.threads import sleep

_POLL: Final = 0.0005  # seconds


class Turns(dict[object, int]):
    """The tickets that were drawn, and the thread of each, the first one first: it has the turn."""

    def take(self, ticket: object, seconds: float) -> bool:
        """Draw a ticket, and wait until it has the turn.

        Args:
            ticket: an object that is used once.
            seconds: the longest wait. A thread that has the turn already does not wait.

        Returns:
            Whether the ticket has the turn.
        """
        self[ticket] = get_ident()
        until = monotonic() + seconds
        while True:
            first, thread = next(iter(self.copy().items()))
            if first == ticket:
                return True
            if thread == get_ident() or monotonic() >= until:
                return False
            sleep(_POLL)

    def is_of_this_thread(self) -> bool:
        """Return whether this thread has the turn: a signal handler or a log handler asks."""
        return next(iter(self.copy().values()), 0) == get_ident()
