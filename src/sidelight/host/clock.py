"""Monotonic clocks for waits and durations, which no test tool can stop.

freezegun replaces the functions of `time` in every imported module while it freezes the time. A
wait that measures its time with a frozen clock never ends, and a duration between a frozen and a
real clock is negative. So these functions come from a second copy of the built-in module, which no
other module can see. The wall clock of records is not here: it may be frozen, because the
application's own times are frozen as well.
"""

from __future__ import annotations

import importlib.util
import time
from _thread import get_ident
from collections.abc import Callable
from types import BuiltinFunctionType, ModuleType
from typing import Final

from sidelight.host.platform import HAS_THREAD_CLOCKS


def _own_copy() -> ModuleType:
    """Create the `time` module once more; fall back to the shared one."""
    try:
        spec = importlib.util.find_spec("time")
        if spec is None or spec.loader is None:
            return time
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except (ImportError, ValueError):
        return time
    return module


_time: Final = _own_copy()
monotonic: Final[Callable[[], float]] = _time.monotonic
perf_counter_ns: Final[Callable[[], int]] = _time.perf_counter_ns
process_time_ns: Final[Callable[[], int]] = _time.process_time_ns
_seen: Final[dict[int, int]] = {}  # CPU time by thread, when it last looked at its own clock


def _note_own_time(thread: int) -> int:
    """Note the CPU time of the current thread; the thread stands for its clock."""
    _seen[thread] = _time.thread_time_ns()
    return thread


def _noted_time(thread: int) -> int:
    return int(_time.thread_time_ns()) if thread == get_ident() else _seen.get(thread, 0)


cpu_clock_of: Final[Callable[[int], int]] = (
    _time.pthread_getcpuclockid if HAS_THREAD_CLOCKS else _note_own_time
)
"""The id of the CPU clock of a thread: of the current one, where threads cannot read others'."""
_read_clock: Final[Callable[[int], int]] = (
    _time.clock_gettime_ns if HAS_THREAD_CLOCKS else _noted_time
)


def read_cpu_clock(clock: int) -> int:
    """Return the CPU time of a thread (ns); 0 for a thread that has ended. It keeps the GIL.

    Where threads cannot read others' clocks, it is the time when the thread last read its own.
    """
    try:
        return _read_clock(clock)
    except OSError:
        return 0


def is_time_frozen() -> bool:
    """Return whether a test tool has replaced the clock of the event loops.

    Then no event loop runs its timers, and a task cannot wait for a bounded time.
    """
    return type(time.monotonic) is not BuiltinFunctionType
