"""Code that emits during an emission, for programs that emit (see `tests.faults`)."""

from __future__ import annotations

import gc
import json
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import sidelight
from sidelight import Receipt, emit

_OURS = sidelight.__name__
_receipts: list[Receipt] = []
_DEEPEST = 30


def again() -> None:
    """Emit, in the middle of something."""
    _receipts.append(emit("reentered"))


class Phoenix:
    """Garbage in a cycle, of which each collection makes one more."""

    active = True

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        if Phoenix.active:
            again()
            Phoenix()


def from_del() -> None:
    """Whenever something is allocated, the collector may run."""
    gc.set_threshold(100)
    for _ in range(3):
        Phoenix()


class Handler(logging.Handler):
    """Makes an event of each log record."""

    def emit(self, record: logging.LogRecord) -> None:
        """Called with the lock of this handler held."""
        again()


def from_logging() -> None:
    """Everything that is logged, also by what is captured (`logged`) and by sidelight."""
    logging.basicConfig(level=logging.DEBUG, handlers=[Handler()])


def logged(n: int) -> int:
    """A value to capture that logs."""
    logging.getLogger(__name__).info("captured %d", n)
    return n


def from_signal(every: float = 1e-3) -> None:
    """At any instruction, every so many seconds; one inside another, within the stack's bounds."""
    depth = 0

    def handle(*_: object) -> None:
        nonlocal depth
        depth += 1
        if depth < _DEEPEST:  # a busy machine gets no time for one before the next comes
            again()
        depth -= 1

    signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, every, every)


def _hook(frame: FrameType, event: str, argument: Any) -> Any:
    if not str(frame.f_globals.get("__name__")).startswith(_OURS):
        return None
    again()
    return _hook


def from_trace() -> None:
    """Emit at every line of sidelight, as under a debugger or when coverage is measured."""
    sys.settrace(_hook)


def from_profile() -> None:
    """Emit at every call that sidelight makes, as under a profiler."""
    sys.setprofile(_hook)


WAYS: dict[str, Callable[[], None]] = {
    "__del__": from_del,
    "a logging handler": from_logging,
    "a signal handler": from_signal,
    "sys.settrace": from_trace,
    "sys.setprofile": from_profile,
}


def times() -> int:
    """The number of emissions inside others so far."""
    return len(_receipts)


def tell(path: str) -> None:
    """Stop, and write the ids of what was emitted into a file."""
    sys.settrace(None)
    sys.setprofile(None)
    signal.setitimer(signal.ITIMER_REAL, 0)
    Phoenix.active = False
    Path(path).write_text(json.dumps([str(receipt) for receipt in _receipts]))
