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
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from sidelight.host.clock import cpu_clock_of, monotonic
from sidelight.host.imports import imported
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


class Loop:
    """A daemon thread that runs a function until it is halted, and can be started again.

    It is not a `threading.Thread`, because `Thread.start` waits for the new thread to run, which
    takes long beside busy threads.

    Attributes:
        name: the thread's name.
        cpu_clock: the CPU clock of the thread; None before the first.
    """

    def __init__(self, name: str, run: Callable[[], object]) -> None:
        """Make the loop; no thread runs yet.

        Args:
            name: the thread's name, of which the system shows 15 characters.
            run: a function that returns soon after `halting` has become true.
        """
        self.name = name
        self._run = run
        self._halts: deque[bool] = deque()
        self._ended = allocate_lock()  # held while there is a thread
        self._native_id = 0
        self.cpu_clock: int | None = None
        self._wake = allocate_lock()  # held while there is no reason to wake up
        self._wake.acquire()

    @property
    def halting(self) -> bool:
        """Whether the thread is to end."""
        return bool(self._halts)

    @property
    def is_running(self) -> bool:
        """Whether there is a thread."""
        return bool(self._ended.locked())

    def start(self) -> None:
        """Run the function, in the running thread or else in a new one.

        Raises:
            RuntimeError: no thread can be started, for one because the interpreter is ending.
        """
        with contextlib.suppress(IndexError):
            self._halts.pop()  # the thread has not seen it, and keeps running
            if self.is_running:
                return
        self._ended = ended = allocate_lock()
        ended.acquire()
        try:
            start_new_thread(partial(self._run_thread, ended))
        except RuntimeError:
            ended.release()
            raise

    def halt(self) -> None:
        """Tell the thread to end."""
        if not self._halts:
            self._halts.append(True)

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

    def stop(self) -> None:
        """Tell the thread to end, and wake it."""
        self.halt()
        self.wake()

    def join(self, until: float) -> bool:
        """Wait until the thread has ended, at most until this time of `monotonic`.

        Returns:
            Whether it has ended.
        """
        if not self._ended.acquire(timeout=max(0.0, until - monotonic())):
            return False
        self._ended.release()
        # Also wait for the system, because Python 3.12 warns at a fork where it counts threads.
        task = f"/proc/self/task/{self._native_id}"
        while self._native_id and os.access(task, os.F_OK) and monotonic() < until:
            sleep(_POLL)
        return True

    def _run_thread(self, ended: Any) -> None:
        try:
            self._native_id = threading.get_native_id()
            self.cpu_clock = thread_cpu_clock()
            threading.current_thread().name = self.name
            comm = f"/proc/self/task/{self._native_id}/comm"
            with contextlib.suppress(OSError), open(comm, "w") as file:  # noqa: PTH123  # slow to import
                file.write(self.name[:15])
            while True:
                self._run()
                with contextlib.suppress(IndexError):
                    self._halts.pop()
                    return
        finally:
            ended.release()


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
