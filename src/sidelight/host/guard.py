"""What may pass the guard: an exception that came from outside while sidelight was at work.

The guard stops what instrumentation raises, and what a captured value raises when it is looked at,
whatever its class. Ctrl-C, what the application's signal handlers raise (a job's time limit,
`sys.exit` at SIGTERM) and what another thread makes this one raise (``PyThreadState_SetAsyncExc``,
by which job queues stop a job) are neither: they happen to arrive while our code runs, and to
swallow one would change the work. They are told from the others by where they were raised:

- A KeyboardInterrupt always passes, and so does what came through an installed signal handler.
- What was raised where Python only looks whether there is something to raise, passes.
- What is no Exception was raised by a stranger only where his code says so.
- While only code of ours runs, an Exception that is neither Python's nor of a library that it
  calls was sent, and so was what is thrown into a coroutine that waits. (One that is sent while a
  value is looked at cannot be told from the value's own, and is taken for that.)
"""

from __future__ import annotations

import functools
import os
import signal
from opcode import opmap
from types import CodeType, TracebackType
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
#: Instructions at which only what was sent is raised: a function begins, or a loop goes on.
_LOOKS: Final = frozenset({opmap["RESUME"], opmap["JUMP_BACKWARD"]})
_RESUMED: Final = frozenset({opmap["YIELD_VALUE"], opmap["SEND"]})
_RAISES: Final = frozenset({opmap["RAISE_VARARGS"], opmap["RERAISE"]})
_RAISES_AT_ONCE: Final = bytes((opmap["RAISE_VARARGS"], 1))
_EXITS: Final = frozenset({"exit", "quit"})  # by these a stranger raises without saying so
_OUR_FILES: Final = ("<sidelight ", os.path.join(os.path.dirname(os.path.dirname(__file__)), ""))  # noqa: PTH118, PTH120
#: The modules of the errors that are raised while only code of ours runs.
_KNOWN: Final = frozenset(
    {"asyncio.exceptions", "builtins", "msgspec", "sidelight.exceptions", "struct", "zlib"}
)
_module: Final = type.__dict__["__module__"].__get__


def from_outside(error: BaseException, *, looking: bool = True) -> bool:
    """Whether an exception that the guard has caught was not raised by what it guards.

    Args:
        error: as it was caught.
        looking: it came while code of a stranger may have run: a value was looked at, or a span
            that is not ours.
    """
    if isinstance(error, KeyboardInterrupt):
        return True
    if isinstance(error, RecursionError | MemoryError):
        return False
    traceback = innermost = error.__traceback__
    handlers = {_code(signal.getsignal(number)) for number in _SIGNALS} - {None}
    for _ in range(_MOST_FRAMES):
        if traceback is None:
            break
        if traceback.tb_frame.f_code in handlers:
            return True
        traceback, innermost = traceback.tb_next, traceback
    return innermost is not None and _was_sent(error, innermost, looking=looking)


def _was_sent(error: BaseException, raised: TracebackType, *, looking: bool) -> bool:
    code = raised.tb_frame.f_code
    instruction = code.co_code[raised.tb_lasti]
    if instruction in _LOOKS and not _is_compiled(code):
        return True
    if not isinstance(error, Exception):
        ours = code.co_filename.startswith(_OUR_FILES)
        return ours or not (instruction in _RAISES or _EXITS.intersection(code.co_names))
    thrown_in = instruction in _RESUMED or _module(type(error)) not in _KNOWN
    return not looking and thrown_in


def _is_compiled(code: CodeType) -> bool:
    """Whether the frame was made for the traceback only, as Cython and mypyc do for a function.

    Its code never ran: three instructions, the last of which raises.
    """
    return code.co_code[4:] == _RAISES_AT_ONCE and not code.co_nlocals


def _code(handler: object) -> CodeType | None:
    while isinstance(handler, functools.partial):
        handler = handler.func
    code = getattr(handler, "__code__", None)  # a method hands on its function's
    return code if isinstance(code, CodeType) else None
