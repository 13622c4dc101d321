"""What may pass the guard: an interrupt that came from outside while sidelight was at work.

The guard stops what instrumentation raises, and what a captured value raises when it is looked at,
whatever its class. Ctrl-C, and what the application's own signal handlers raise (a job's time
limit, `sys.exit` at SIGTERM), are neither: they happen to arrive while our code runs, and
swallowing one would change the work. So the rule is simple: a KeyboardInterrupt always passes, and
so does everything that came through the frame of an installed signal handler.
"""

from __future__ import annotations

import functools
import signal
from types import CodeType
from typing import Final

#: The signals for which programs install handlers that raise.
_SIGNALS: Final = tuple(
    getattr(signal, name)
    for name in (
        *("SIGALRM", "SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"),
        *("SIGVTALRM", "SIGPROF", "SIGXCPU", "SIGCHLD"),
    )
    if hasattr(signal, name)
)
_MOST_FRAMES: Final = 10_000


def from_outside(error: BaseException) -> bool:
    """Whether an exception that the guard has caught was not raised by what it guards."""
    if isinstance(error, KeyboardInterrupt):
        return True
    handlers = {_code(signal.getsignal(number)) for number in _SIGNALS} - {None}
    if not handlers:
        return False
    traceback = error.__traceback__
    for _ in range(_MOST_FRAMES):
        if traceback is None:
            break
        if traceback.tb_frame.f_code in handlers:
            return True
        traceback = traceback.tb_next
    return False


def _code(handler: object) -> CodeType | None:
    while isinstance(handler, functools.partial):
        handler = handler.func
    code = getattr(handler, "__code__", None)  # a method hands on its function's
    return code if isinstance(code, CodeType) else None
