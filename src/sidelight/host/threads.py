"""Operating-system threads for the relay, which end before a fork and start again after it.

gevent replaces threads by greenlets. The relay needs real threads, because a greenlet that waits
inside SQLite would block all others. The threads end before a fork instead of pausing, because a
child that is forked while a thread is inside malloc, SQLite or an import may hang for ever.

A server in C (uWSGI by default, an embedded interpreter) forks without Python's hooks. The kernel
clears a marked page in each child (``MADV_WIPEONFORK``, Linux 4.14), so that one read tells a child
that everything open belongs to its parent. The read costs some 40 ns and no system call.

Until a new thread runs, Python 3.11 takes it for the thread that started it. An exception that a
job queue aims at a caller (``PyThreadState_SetAsyncExc``) may therefore arrive in a new thread of
sidelight, which hands it on.
"""

from __future__ import annotations

import contextlib
import importlib
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from sidelight.host.clock import cpu_clock_of, monotonic
from sidelight.host.imports import imported
from sidelight.host.log import log_failure
from sidelight.host.platform import IS_LINUX


def native(module: str, name: str) -> Any:
    """Find a function of the standard library as it was before gevent or eventlet patched it."""
    monkey = imported("gevent.monkey")
    if monkey is not None:
        return monkey.get_original(module, name)
    patcher = imported("eventlet.patcher")
    if patcher is not None:
        return getattr(patcher.original(module), name)
    return getattr(importlib.import_module(module), name)


# Bound at import, because gevent may patch later.
allocate_lock: Final[Callable[[], Any]] = native("_thread", "allocate_lock")
_start_new_thread: Final[Callable[..., int]] = native("_thread", "start_new_thread")
sleep: Final[Callable[[float], None]] = native("time", "sleep")
_get_ident: Final[Callable[[], int]] = native("_thread", "get_ident")
_POLL: Final = 0.0002  # seconds
_SOON: Final = 0.001  # seconds
_AFTER_FAILURE: Final = 1.0  # seconds


def thread_cpu_clock() -> int:
    """Return the id of the CPU clock of the current thread, for `read_cpu_clock` in any thread."""
    return cpu_clock_of(_get_ident())


def start_new_thread(run: Callable[[], object]) -> None:
    """Run a function in a new daemon thread; the last act is one call, which starts the thread.

    Raises:
        RuntimeError: no thread can be started, for one because the interpreter is ending.
    """
    body = _body(run, _get_ident())
    next(body)
    _start_new_thread(body.__next__, ())


def _body(run: Callable[[], object], starter: int) -> Iterator[None]:
    """Stop within `try`, where the new thread goes on: no exception can arrive before that."""
    try:
        yield
    except GeneratorExit:  # no thread was started
        return
    except BaseException as error:  # noqa: BLE001  # handed on
        with contextlib.suppress(ImportError, OSError):  # no descriptor is left
            interrupt(starter, type(error))
    run()
    yield


def interrupt(thread: int, kind: type[BaseException]) -> None:
    """Raise an exception in another thread, as soon as it runs Python code."""
    import ctypes  # noqa: PLC0415  # seldom needed

    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(kind))


def interrupt_soon(kind: type[BaseException]) -> None:
    """Raise an exception in this thread as soon as it has left its present function."""

    def later(thread: int) -> None:
        sleep(_SOON)
        interrupt(thread, kind)

    start_new_thread(partial(later, _get_ident()))


class _Life:
    """One thread of a loop, from the decision to start it until its end."""

    def __init__(self, *, is_over: bool = False) -> None:
        self.is_over = is_over
        self.begun = allocate_lock()  # taken by the thread
        self.ended = allocate_lock()  # held until the thread has ended
        if not is_over:
            self.ended.acquire()


class Loop:
    """A daemon thread that runs a function until it is halted, and can be started again.

    It is not a `threading.Thread`, because `Thread.start` waits for the new thread to run, which
    takes long beside busy threads. An exception does not end the thread. An interrupt may end a
    `start` at any step; the next one makes up for it.

    Attributes:
        name: the thread's name; empty for a thread that is not worth one.
        halting: whether the thread is to end.
        cpu_clock: the CPU clock of the thread; None before the first.
    """

    def __init__(self, name: str, run: Callable[[], object]) -> None:
        """Make the loop; no thread runs yet.

        Args:
            name: the thread's name, of which the system shows 15 characters.
            run: a function that returns soon after `halting` has become true. The thread ends
                when it returns, unless `start` was called meanwhile.
        """
        self.name = name
        self.halting = False
        self.cpu_clock: int | None = None
        self._run = run
        self._asked = False  # `start` was called, and no run of the function has begun since
        self._life = _Life(is_over=True)
        self._deciding = allocate_lock()  # whether the thread goes on
        self._native_id = 0
        self._wake = allocate_lock()  # held while there is no reason to wake up
        self._wake.acquire()

    @property
    def is_running(self) -> bool:
        """Whether there is a thread, or is to be one."""
        return bool(self._life.ended.locked())

    @property
    def has_begun(self) -> bool:
        """Whether there is a thread; False also where an interrupt has ended `start` before."""
        return self.is_running and bool(self._life.begun.locked())

    def start(self) -> None:
        """Run the function, in the running thread or else in a new one.

        Raises:
            RuntimeError: no thread can be started, for one because the interpreter is ending.
        """
        with self._deciding:
            self._asked, self.halting = True, False
            if self._life.is_over:
                self._life = _Life()
            life = self._life
        if not life.begun.locked():  # a second thread for the same life ends at once
            try:
                start_new_thread(partial(self._run_thread, life))
            except RuntimeError:
                life.is_over = True
                life.ended.release()
                raise

    def halt(self) -> None:
        """Tell the thread to end."""
        with self._deciding:
            self._asked, self.halting = False, True

    def wake(self) -> None:
        """Wake the thread from its `pause`, or from its next one."""
        with contextlib.suppress(RuntimeError):  # awake already
            self._wake.release()

    def pause(self, seconds: float) -> bool:
        """Sleep until `wake` is called, ``seconds`` at the longest; for the thread itself.

        Returns:
            Whether it was called.
        """
        return bool(self._wake.acquire(timeout=seconds))

    def rest(self, seconds: float) -> None:
        """Sleep for ``seconds``, whatever `wake` says; `stop` ends it. For the thread itself."""
        until = monotonic() + seconds
        while not self.halting and (left := until - monotonic()) > 0:
            self.pause(left)

    def stop(self) -> None:
        """Tell the thread to end, and wake it."""
        self.halt()
        self.wake()

    def join(self, until: float) -> bool:
        """Wait until the thread has ended, at most until this time of `monotonic`.

        Returns:
            Whether it has ended.
        """
        while self.is_running:  # not by `acquire`: an interrupt could leave it locked
            if monotonic() >= until:
                return False
            sleep(_POLL)
        # Also wait for the system, because Python 3.12 warns at a fork where it counts threads.
        task = f"/proc/self/task/{self._native_id}"
        while self._native_id and os.access(task, os.F_OK) and monotonic() < until:
            sleep(_POLL)
        return True

    def _run_thread(self, life: _Life) -> None:
        if not life.begun.acquire(blocking=False):
            return
        try:
            self._native_id = threading.get_native_id()
            self.cpu_clock = thread_cpu_clock()
            self._show_name()
            self._asked = False
            while True:
                try:
                    self._run()
                except BaseException as error:  # noqa: BLE001  # nothing else would start it again
                    with contextlib.suppress(BaseException):
                        log_failure("sidelight: a thread failed, and goes on: %s", repr(error))
                    self.pause(_AFTER_FAILURE)
                    self._asked = not self.halting
                if not self._is_wanted(life):
                    return
        finally:
            life.is_over = True
            life.ended.release()

    def _show_name(self) -> None:
        if self.name:
            threading.current_thread().name = self.name
            from sidelight.host.descriptor import Descriptor  # noqa: PLC0415  # seldom needed

            path = f"/proc/self/task/{self._native_id}/comm"
            with contextlib.suppress(OSError), Descriptor(os.open(path, os.O_WRONLY), path) as fd:
                os.write(fd, self.name[:15].encode())

    def _is_wanted(self, life: _Life) -> bool:
        with self._deciding:
            if life.is_over or not self._asked:
                life.is_over, self.halting = True, False
            self._asked = False
            return not life.is_over


_MADV_WIPEONFORK: Final = 18  # Linux; the mmap module has no name for it yet


def _marked_page() -> mmap.mmap | bytearray:
    with contextlib.suppress(OSError, ValueError):
        if IS_LINUX:
            private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
            page = mmap.mmap(-1, mmap.PAGESIZE, flags=private)
            page.madvise(_MADV_WIPEONFORK)
            return page
    return bytearray(1)  # where the kernel clears nothing, only Python's hooks tell of a fork


PROCESS_MARK: Final = _marked_page()
"""Its first byte is 0 in a forked child until `mark_process` is called there."""


def mark_process() -> None:
    """Note that this process knows what it has inherited."""
    PROCESS_MARK[0] = 1


mark_process()
