"""Forks: the relay's threads end before one, and the child gets a segment of the spool.

A child that allocated a segment at its own first event would wait for the disk in the middle of its
work. Therefore the parent gives it a spare segment that its relay has allocated. Parent and child
hold the same lock on the segment until the parent closes its descriptor.

Python prints and drops what is raised in a hook of a fork. An exception from outside that arrives
there is raised in the parent after the hooks, without its arguments.

Everything else gets `RUNTIME` from here, so that the hooks are there wherever the runtime is.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING, Final

from sidelight.host import guarded, interrupt_soon, is_interrupt
from sidelight.runtime.inheritance import awaits_settings
from sidelight.runtime.process import RUNTIME

if TYPE_CHECKING:
    from sidelight.spool import Segment

__all__ = ["RUNTIME"]

_HALT_WITHIN: Final = 0.3  # s; a fork waits for the relay longer than the relay waits for a lock
_IMPORTS_WITHIN: Final = 5.0  # s; a fork waits for the relay's imports

_REPEATS: Final = 3

_forking: Final[dict[int, Segment | None]] = {}
"""The segment that each forking thread gives its child; the thread's id is its ticket."""
_interrupts: Final[dict[int, type[BaseException]]] = {}  # by forking thread


def _whole(hook: Callable[[], None]) -> None:
    """Run a hook again where an exception from outside has ended it, and keep the exception."""
    for _ in range(_REPEATS):
        try:
            return hook()
        except BaseException as error:
            if not is_interrupt(error, ran="sidelight"):
                raise
            _interrupts[get_ident()] = type(error)
    return None


def _before() -> None:
    _whole(_halt)


def _halt() -> None:
    """End the relay's threads, wait until none is importing, and share what waits for settings."""
    if not RUNTIME.starting.take(get_ident(), _IMPORTS_WITHIN):
        RUNTIME.starting.pop(get_ident(), None)
    else:
        if RUNTIME.relay is not None:
            RUNTIME.relay.halt(_HALT_WITHIN, briefly=True)
        if RUNTIME.spool is not None:
            _forking[get_ident()] = RUNTIME.spool.supply.take_for_child()
        elif awaits_settings():
            with guarded():
                RUNTIME.early.share()


def _go_on() -> None:
    if (given := _forking.pop(get_ident(), None)) is not None:
        given.close()
    if get_ident() in RUNTIME.starting and not RUNTIME.ending:
        RUNTIME.start_threads()


def _after_in_parent() -> None:
    try:
        _whole(_go_on)
    finally:
        RUNTIME.starting.pop(get_ident(), None)
    if (kind := _interrupts.pop(get_ident(), None)) is not None:
        interrupt_soon(kind)


def _after_in_child() -> None:
    given = _forking.get(get_ident())
    _forking.clear()
    _interrupts.clear()
    RUNTIME.abandon(given)


if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(
        before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
    )
