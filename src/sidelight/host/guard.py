"""The guard: contain what sidelight raises, and let interrupts pass.

The guard contains exceptions of the instrumentation, and those of a captured value while it is
read. It must not contain an interrupt: Ctrl-C, an exception of the application's signal handler (a
job's time limit, `sys.exit` at SIGTERM), or one that another thread sets
(``PyThreadState_SetAsyncExc``, by which job queues stop a job). An interrupt arrives while
sidelight's code happens to run, and to contain it would change the work. An exception counts as an
interrupt by where it was raised:

- It came through a signal handler.
- It was raised at an instruction where Python only checks for pending interrupts.
- Its class does not derive from Exception, and no foreign code raised it explicitly. GeneratorExit
  and CancelledError are excepted, because Python raises them without a ``raise``, and only in what
  awaits or yields. sidelight reads a value without either.
- Only sidelight's own code ran, and the exception was thrown into a waiting coroutine, or its class
  belongs neither to Python nor to a library that sidelight calls there.
- Only sidelight's code and a library's ran, no ``raise`` raised the exception, it has no arguments,
  and its class belongs to a package of Python code: the application's, or a job queue's.

An Exception that another thread sets while a value is read looks like one of the value, and is
contained. So is one of Python's own classes that is set within a library. The exception itself may
be hostile: only `type` and `BaseException` read it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable
from opcode import opmap
from types import CodeType, FrameType, TracebackType
from typing import Any, Final, Literal, TypeAlias, TypeVar

from sidelight.host.imports import imported

_Error = TypeVar("_Error", bound=BaseException)
Ran: TypeAlias = Literal["sidelight", "library", "value"]
"""The code that may have run where an exception was caught: see `is_interrupt`."""
#: The signals for which programs install handlers that raise.
_SIGNALS: Final = (
    *("SIGALRM", "SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"),
    *("SIGVTALRM", "SIGPROF", "SIGXCPU", "SIGCHLD"),
)
_MAX_FRAMES: Final = 10_000
_ARGUMENTS_OF_HANDLER: Final = 2
#: Instructions at which only interrupts are raised: the start of a function, the end of a loop.
#: A later Python may name an instruction otherwise; then it is in none of these sets.
_RESUME: Final = opmap.get("RESUME")
_CHECKS: Final = frozenset({_RESUME, opmap.get("JUMP_BACKWARD")})
_RESUMED: Final = frozenset({opmap.get("YIELD_VALUE"), opmap.get("SEND")})
#: Since Python 3.13 an exception that is thrown in is raised at RESUME, with this in its argument.
_AFTER_YIELD: Final = 3 if sys.version_info >= (3, 13) else 0
_RAISES: Final = frozenset({opmap.get("RAISE_VARARGS"), opmap.get("RERAISE")})
_RAISES_AT_ONCE: Final = bytes((opmap.get("RAISE_VARARGS", 0), 1))
_EXITS: Final = frozenset({"exit", "quit"})  # functions that raise without a `raise` in the caller
_OWN_FILES: Final = ("<sidelight ", os.path.join(os.path.dirname(os.path.dirname(__file__)), ""))  # noqa: PTH118, PTH120
#: The modules whose exceptions sidelight's own code can raise.
_KNOWN: Final = frozenset(
    {"asyncio.exceptions", "builtins", "msgspec", "sidelight.exceptions", "struct", "zlib"}
)
_COMPILED: Final = (".so", ".pyd")
_arguments: Final[Callable[[BaseException], Any]] = BaseException.__dict__["args"].__get__
_module: Final = type.__dict__["__module__"].__get__
traceback_of: Final[Callable[[BaseException], TracebackType | None]] = BaseException.__dict__[
    "__traceback__"
].__get__
"""Reads the traceback of an exception past its class, which may override every access."""


def without_frame(error: _Error) -> _Error:
    """Drop the first frame from the traceback of an exception, and return the exception."""
    if (traceback := traceback_of(error)) is not None:
        BaseException.with_traceback(error, traceback.tb_next)
    return error


class guarded(contextlib.ContextDecorator):  # noqa: N801  # used like a function
    """Contain and report an Exception of a block or function; let interrupts pass.

    For use off the hot path, where the cost of a context manager does not matter::

        with guarded(lambda error: logger.warning("… %r", error)):
            provider.load()
    """

    __slots__ = ("_ran", "_report")

    def __init__(
        self,
        report: Callable[[Exception], object] | None = None,
        *,
        ran: Ran = "value",
    ) -> None:
        """Make a guard.

        Args:
            report: called with the exception; None contains it silently.
            ran: see `is_interrupt`.
        """
        self._report = report
        self._ran: Ran = ran

    def __enter__(self) -> None:
        """Begin the block."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> bool:
        """Contain an Exception that is not an interrupt."""
        if not isinstance(error, Exception):
            return False
        if is_interrupt(error, ran=self._ran):
            return False
        if self._report is not None:
            self._report(error)
        return True


def is_interrupt(error: BaseException, *, ran: Ran = "value") -> bool:
    """Return whether a caught exception interrupted the guarded code instead of being raised by it.

    Args:
        error: the exception as it was caught.
        ran: the code that may have run: only sidelight's; that of a library, such as a database's
            driver; or that of a value, which may be any.
    """
    kind = type(error)
    if issubclass(kind, RecursionError | MemoryError):
        return False
    traceback = innermost = traceback_of(error)
    handlers, before = signal_handlers(), None
    for _ in range(_MAX_FRAMES):
        if traceback is None:
            break
        frame = traceback.tb_frame
        if frame.f_code in handlers or _handles_signal(frame, before):
            return True
        traceback, innermost, before = traceback.tb_next, traceback, frame
    if innermost is None:
        return issubclass(kind, KeyboardInterrupt)
    return _was_set(error, innermost, ran)


def _handles_signal(frame: FrameType, before: FrameType | None) -> bool:
    """Return whether a frame is a signal handler's that is not installed any more.

    Python hands the interrupted frame over. A handler may install the previous one, then raise.
    """
    if frame.f_code.co_argcount < _ARGUMENTS_OF_HANDLER or before is None:
        return False
    return any(each is before for each in frame.f_locals.values())


def _was_set(error: BaseException, raised: TracebackType, ran: Ran) -> bool:
    """Return whether another thread, or a throw into a coroutine, set the exception."""
    kind, code = type(error), raised.tb_frame.f_code
    instruction, argument = code.co_code[raised.tb_lasti : raised.tb_lasti + 2]
    resumes = instruction == _RESUME and bool(argument & _AFTER_YIELD)
    an_exception = issubclass(kind, Exception)
    if ran != "sidelight" and _ends_coroutines(kind):
        return False
    if instruction in _CHECKS and not (an_exception and resumes) and not _is_compiled(code):
        return True
    if not an_exception:
        own = code.co_filename.startswith(_OWN_FILES)
        return own or not (instruction in _RAISES or _EXITS.intersection(code.co_names))
    thrown_in = resumes or instruction in _RESUMED
    if ran == "sidelight":
        return thrown_in or _module(kind) not in _KNOWN
    if ran == "value" or thrown_in or instruction in _RAISES or _is_compiled(code):
        return False
    return not _arguments(error) and _is_of_python_code(kind)


def _is_of_python_code(kind: type[BaseException]) -> bool:
    """Return whether a class belongs to a package that has no compiled module.

    Only a compiled module raises without a ``raise``, and it raises the classes of its package or
    Python's. The compiled part of a package may be a package beside it: psycopg and psycopg_binary.
    """
    package = str(_module(kind)).partition(".")[0]
    if package == "sidelight" or package in sys.stdlib_module_names:
        return False
    return not any(
        f"{name.lstrip('_')}.".startswith((f"{package}.", f"{package}_"))
        and str(getattr(module, "__file__", "")).endswith(_COMPILED)
        for name, module in list(sys.modules.items())
    )


def _ends_coroutines(kind: type[BaseException]) -> bool:
    asyncio = imported("asyncio.exceptions")
    cancelled = () if asyncio is None else (asyncio.CancelledError,)
    return issubclass(kind, (GeneratorExit, *cancelled))


def _is_compiled(code: CodeType) -> bool:
    """Return whether Cython or mypyc made the frame only for the traceback of a compiled function.

    The code of such a frame never ran: it has three instructions, and the last one raises.
    """
    return code.co_code[4:] == _RAISES_AT_ONCE and not code.co_nlocals


def _code(handler: object) -> CodeType | None:
    while isinstance(handler, functools.partial):
        handler = handler.func
    code = getattr(handler, "__code__", None)  # a bound method has its function's
    return code if isinstance(code, CodeType) else None


def signal_handlers() -> set[CodeType | None]:
    """Return the code of the signal handlers that the application has installed."""
    signal = imported("signal")
    if signal is None:  # nothing has installed one
        return set()
    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    return {_code(signal.getsignal(number)) for number in numbers} - {None}
