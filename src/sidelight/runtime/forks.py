"""Forks: no thread of ours is anywhere meanwhile, and the child gets a segment of the spool.

A child whose own first event allocated its segment would wait for the disk in the middle of its
work. So its parent, whose relay allocates ahead of need, gives it one of those: parent and child
hold the same lock on it until the parent closes its descriptor, and then it is the child's.
"""

from __future__ import annotations

import os
from threading import get_ident
from typing import TYPE_CHECKING, Final

from sidelight.runtime.process import RUNTIME

if TYPE_CHECKING:
    from sidelight.spool import Segment

_WITHIN: Final = 0.3  # seconds that a fork may wait for the relay: longer than a lock's wait
_IMPORTS_WITHIN: Final = 5.0  # … and for the relay's imports

_forking: Final[dict[int, Segment | None]] = {}
"""The threads that hold `Runtime.starting` while they fork, and what each gives its child."""


def _before() -> None:
    """Let no thread of ours be anywhere while the process forks, nor in the middle of an import."""
    if RUNTIME.starting.acquire(timeout=_IMPORTS_WITHIN):
        _forking[get_ident()] = None
        if RUNTIME.relay is not None:
            RUNTIME.relay.halt(_WITHIN, briefly=True)
        if RUNTIME.spool is not None:
            _forking[get_ident()] = RUNTIME.spool.supply.give_away()


def _after_in_parent() -> None:
    if get_ident() in _forking:
        given = _forking.pop(get_ident())
        if given is not None:
            given.close()
        if not RUNTIME.ending:
            RUNTIME.go_on()
        RUNTIME.starting.release()


def _after_in_child() -> None:
    given = _forking.get(get_ident())
    _forking.clear()
    RUNTIME.abandon(given)


def register_hooks() -> None:
    """Let the interpreter call this module around each fork."""
    os.register_at_fork(
        before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
    )
